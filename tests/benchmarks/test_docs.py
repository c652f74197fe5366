"""docs/performance.md says what the result files say; the picture is readable and theirs."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import roofline, summary, work
from benchmarks.runner import RESULTS
from maskgit.common.errors import UsageError
from maskgit.model.config import TransformerConfig

FILES = sorted([*RESULTS.glob("*-cpu.json"), *RESULTS.glob("*-amd.json")])


def test_the_document_is_what_the_results_say():
    text = summary.DOCUMENT.read_text()
    made = summary.filled(text, summary.load(), summary.load(ending="amd"))
    assert made == text, "run python benchmarks/summary.py"


def test_another_number_would_be_noticed():
    text = summary.DOCUMENT.read_text()
    for changed in (0, 1):
        machines = [summary.load(), summary.load(ending="amd")]
        machines[changed]["sampling"]["rows"][0]["images_per_second"] *= 1.5
        assert summary.filled(text, *machines) != text


@pytest.mark.parametrize(
    "change", ["<!-- gird -->\n<!-- /gird -->\n", "<!-- grid -->\n<!-- /grid -->"]
)
def test_a_block_that_is_wrong_or_twice_is_refused(change):
    with pytest.raises(UsageError, match=r"^performance.md: blocks .*; expected machine, "):
        summary.filled(summary.DOCUMENT.read_text() + change, summary.load(), {})


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_result_files_name_the_machine_and_versions(path):
    content = json.loads(path.read_text())
    assert {"processor", "cores", "python", "torch"} <= set(content["machine"])
    names = [row["name"] for row in content["rows"]]
    assert names
    assert len(names) == len(set(names))


def test_a_missing_result_file_names_the_command(tmp_path):
    with pytest.raises(UsageError, match=f"python benchmarks/sampling.py --out {tmp_path}"):
        summary.load(tmp_path)


def test_the_ablation_is_its_cells_summed_one_by_one():
    from maskgit.presets import load_preset

    config = load_preset("imagenet256").transformer_config
    tokens, pixels = summary.ablation_flops()
    cells = 7 * 57 * 3
    # Bounds: every iteration whole, and all but the first with one position only.
    most = cells / 57 * sum(work.full_flops(config, 50_000, steps) for steps in range(4, 61))
    assert 0.8 * most < tokens < most
    images = cells * 50_000
    assert pixels == pytest.approx(images * work.decoder_flops(load_preset("imagenet256")))


def test_bytes_grow_with_images_but_weights_are_read_once():
    config = TransformerConfig(24, 5, 16, width=32, layers=3, heads=2, mlp=48)
    one, two, three = (roofline.forward_bytes(config, images, 17, 4) for images in (1, 2, 3))
    assert two - one == three - two
    weights = 4 * (3 * (4 * 32**2 + 2 * 32 * 48) + 32**2 + 32 * 24)
    assert one - (two - one) == weights


@given(st.lists(st.floats(1.0, 1e3), min_size=1, max_size=12))
def test_labels_are_apart_and_in_order(heights):
    placed = roofline.column([(str(y), "", 1.0, y) for y in heights])
    ys = [entry[3] for entry, _ in placed]
    assert ys == sorted(heights, reverse=True)
    labels = [height for _, height in placed]
    assert all(label <= y for label, y in zip(labels, ys, strict=True))
    ratios = [a / b for a, b in itertools.pairwise(labels)]
    assert all(ratio >= roofline.APART * 0.999 for ratio in ratios)


def test_the_picture_is_small_and_made_of_the_results(tmp_path):
    path = summary.DOCUMENT.with_name(summary.PICTURE)
    assert 10_000 < path.stat().st_size < 200_000
    rows = summary.load()["sampling"]["rows"]
    for name in ("one.png", "two.png"):
        roofline.draw(rows, tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
