"""CAS: the score, the comparison with real images, resuming, and what is refused. A network of a
few weights stands in for ResNet-50, which has tests of its own below."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from eval.cas import training as cas_training
from eval.cas.__main__ import main
from eval.cas.data import labelled
from eval.cas.recipe import get_recipe
from eval.cas.score import (
    classification_accuracy,
    metric_id,
    proportional_counts,
)
from maskgit.common.errors import UsageError
from tests.paths import ROOT


def tiny_network(stem, num_classes, seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, num_classes),
        )


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(cas_training, "build_network", tiny_network)


def images(count, classes=4, seed=0, size=8):
    """Noise around a colour that tells the class."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % classes)
    colours = 40 + 160 * (np.arange(1, classes + 1)[:, None] >> np.arange(3) & 1)
    noise = rng.normal(0, 8, (count, size, size, 3))
    return np.clip(colours[labels][:, None, None] + noise, 0, 255).astype(np.uint8), labels


def recipe(**changes):
    return get_recipe("embedded", 8, **{"epochs": 3, "batch_size": 8, "rate": 3.0, **changes})


def score(samples, validation, real=None, **settings):
    settings = {"recipe": recipe(), **settings}
    given = (("samples", samples), ("--validation", validation), ("--real-train", real))
    sets = [labelled(*data, what=what) for what, data in given if data is not None]
    return classification_accuracy(*sets, **settings)


def timeless(result):
    """Without the seconds, which differ from run to run."""
    text = json.dumps(result)
    for name in ("samples", "real"):
        for run in (result[name] or {"runs": []})["runs"]:
            for key in ("seconds", "cpu_seconds"):
                text = text.replace(f'"{key}": {run[key]}', f'"{key}": 0')
    return json.loads(text)


def test_good_samples_score_like_real_images_and_mislabelled_ones_do_not(tiny):
    real, validation = images(200, seed=1), images(80, seed=2)
    result = score(images(100), validation, real)
    assert result["value"] == result["samples"]["top1"] > 0.95
    assert result["ratio_top1"] == result["value"] / result["real"]["top1"]
    assert result["samples"]["top5"] is None  # of four classes five are always enough
    wrong = images(100)[0], np.random.default_rng(0).integers(0, 4, 100)
    assert score(wrong, validation)["value"] < 0.7
    assert score(wrong, validation)["ratio_top1"] is None


def test_real_images_have_the_samples_budget(tiny):
    pixels, labels = images(100)
    keep = np.flatnonzero((labels != 0) | (np.arange(100) % 2 == 0))  # fewer of class 0
    result = score((pixels[keep], labels[keep]), images(40, seed=2), images(300, seed=1))
    assert result["counts"]["real"] == result["counts"]["samples"]
    assert sum(result["counts"]["real"]) == len(keep)
    steps = {result[name]["runs"][0]["steps"] for name in ("samples", "real")}
    assert steps == {3 * (len(keep) // 8)}
    notes = " ".join(result["notes"])
    assert f"{len(keep)} of 300" in notes
    assert "do not follow the real classes" in notes
    assert "of class 0, in proportion it would be" in notes


def test_more_samples_than_real_images_are_left_out(tiny):
    result = score(images(100), images(40, seed=2), images(40, seed=1))
    assert result["counts"]["samples"] == result["counts"]["real"] == [10] * 4
    assert any("60 samples left out" in note for note in result["notes"])


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=20).filter(any), st.integers(0, 5000))
def test_proportional_counts_add_up_and_are_exact_to_one(real, total):
    got = proportional_counts(np.array(real), total)
    assert got.sum() == total
    assert np.abs(got - np.array(real) * total / sum(real)).max() < 1
    np.testing.assert_array_equal(proportional_counts(np.array(real), sum(real)), real)


class Constant(nn.Module):
    """Prefers the first class; ties among all others."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return self.logits.expand(len(x), -1) + 0 * self.unused


def test_top_1_and_top_5_of_a_network_that_does_not_look(monkeypatch):
    monkeypatch.setattr(
        cas_training, "build_network", lambda *_: Constant(torch.tensor([9.0] + [0.0] * 9))
    )
    validation = np.zeros((100, 8, 8, 3), np.uint8), np.repeat(np.arange(10), np.arange(1, 20, 2))
    result = score(images(100, 10), validation, recipe=recipe(epochs=1))
    run = result["samples"]["runs"][0]
    assert run["top1"] == 0.01
    assert run["top5"] == 0.25  # the classes 0 to 4, as equal logits count in their order
    assert run["per_class"] == [1.0] + [0.0] * 9


def test_several_seeds_give_mean_and_deviation(tiny):
    result = score(images(64), images(40, seed=2), seeds=(0, 1), recipe=recipe(epochs=1, rate=0.3))
    first, second = (run["top1"] for run in result["samples"]["runs"])
    assert first != second
    assert result["value"] == pytest.approx((first + second) / 2)
    assert result["samples"]["top1_deviation"] == pytest.approx(abs(first - second) / 2**0.5)


class Cut(Exception):
    pass


def cut_at(step):
    def progress(what, done, total):
        if what.startswith("train") and done == step:
            raise Cut

    return progress


@pytest.mark.parametrize("step", [5, 12, 35])  # in the first epoch, at the end of one, in the last
def test_a_training_that_was_cut_off_gives_the_same_result(tiny, tmp_path, step):
    data = images(100), images(40, seed=2)
    settings = {"recipe": recipe(randaugment=True), "checkpoint_seconds": 0}
    whole = score(*data, out=tmp_path / "whole", **settings)
    with pytest.raises(Cut):
        score(*data, out=tmp_path / "cut", progress=cut_at(step), **settings)
    assert [path.suffix for path in (tmp_path / "cut").iterdir()] == [".pt"]
    steps = []
    result = score(*data, out=tmp_path / "cut", progress=lambda *a: steps.append(a), **settings)
    assert steps[0][1] == step  # the one after the last checkpoint, which was the step before
    assert timeless(result) == timeless(whole)
    assert [path.suffix for path in (tmp_path / "cut").iterdir()] == [".json"]


def test_a_broken_or_foreign_checkpoint_is_as_good_as_none(tiny, tmp_path):
    data = images(100), images(40, seed=2)
    whole = score(*data)
    with pytest.raises(Cut):
        score(*data, out=tmp_path, progress=cut_at(9), checkpoint_seconds=0)
    checkpoint = next(tmp_path.iterdir())
    content = checkpoint.read_bytes()
    bad = [content[: len(content) // 2], b"", b"cos\nsystem\n(S'touch hit'\ntR."]
    for raw in bad:
        checkpoint.write_bytes(raw)
        (tmp_path / "hit").unlink(missing_ok=True)
        assert timeless(score(*data, out=tmp_path)) == timeless(whole)
        assert not (tmp_path / "hit").exists()
        next(tmp_path.glob("*.json")).unlink()


def test_results_are_kept_and_a_changed_pixel_is_noticed(tiny, tmp_path, monkeypatch):
    samples, validation, real = images(64), images(40, seed=2), images(64, seed=1)
    trained = []
    original = cas_training.Training._fit
    monkeypatch.setattr(
        cas_training.Training,
        "_fit",
        lambda self, progress: trained.append(self.name) or original(self, progress),
    )
    first = score(samples, validation, real, out=tmp_path)
    assert trained == ["samples", "real"]
    assert score(samples, validation, real, out=tmp_path) == first
    assert trained == ["samples", "real"]
    samples[0][3, 2, 2] ^= 1
    score(samples, validation, real, out=tmp_path)
    assert trained == ["samples", "real", "samples"]  # the real images' training is shared
    for path in tmp_path.iterdir():
        path.write_text(path.read_text()[:-20])
    score(samples, validation, real, out=tmp_path)
    assert len(trained) == 5


KILLED = """
    import sys
    from pathlib import Path
    import numpy as np
    import torch
    torch.set_num_threads(1)
    import tests.eval.cas.test_score as here
    here.cas_training.build_network = here.tiny_network
    here.score(
        here.images(100), here.images(40, seed=2), out=Path(sys.argv[1]), checkpoint_seconds=0,
        progress=lambda *a: print(*a, flush=True),
    )
"""


def test_a_killed_process_is_gone_on_with(tiny, tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(KILLED)]
    root = str(ROOT)
    process = subprocess.Popen(
        [*command, str(tmp_path)], stdout=subprocess.PIPE, cwd=root,
        env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip
    for line in process.stdout:
        if b" 17 " in line:
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    data = images(100), images(40, seed=2)
    steps = []
    result = score(*data, out=tmp_path, progress=lambda *a: steps.append(a[1]))
    assert steps[0] > 16
    assert timeless(result) == timeless(score(*data))


def folder_of(root, data, names):
    for index, (pixels, label) in enumerate(zip(*data, strict=True)):
        (root / names[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / names[label] / f"{index:03}.png")
    return root


def test_folders_of_classes_give_what_arrays_give_and_names_decide(tiny, tmp_path):
    samples, validation = images(64), images(40, seed=2)
    names = ["cat", "dog", "eel", "fox"]
    folders = [
        folder_of(tmp_path / name, data, names)
        for name, data in (("samples", samples), ("validation", validation))
    ]
    result = score(folders[:1], folders[1:])
    assert result["class_names"] == names
    order = [np.lexsort((np.arange(len(d[1])), d[1])) for d in (samples, validation)]
    arrays = [tuple(x[o] for x in d) for d, o in zip((samples, validation), order, strict=True)]
    assert (
        timeless(result)["samples"] == timeless(score(*arrays))["samples"]
    )  # files sorted by class

    # Without samples of the cat, the others must not move up by one.
    for path in (folders[0] / "cat").iterdir():
        path.unlink()
    (folders[0] / "cat").rmdir()
    result = score(folders[:1], folders[1:])
    assert result["counts"]["samples"] == [0, 16, 16, 16]
    assert result["samples"]["runs"][0]["per_class"][0] == 0
    assert any("no samples of 1 classes" in note for note in result["notes"])
    (folders[0] / "dog").rename(folders[0] / "hog")
    with pytest.raises(UsageError, match="validation: no class hog"):
        score(folders[:1], folders[1:])


def test_images_read_from_files_by_workers_give_the_same_result(tiny, tmp_path):
    names = ["a", "b", "c", "d"]
    root = folder_of(tmp_path / "samples", images(40), names)
    validation = labelled(*images(40, seed=2))
    data = [labelled(root, in_memory=limit) for limit in (2**30, 0)]
    assert [d.in_memory for d in data] == [True, False]
    results = [
        classification_accuracy(d, validation, recipe=recipe(epochs=1), workers=workers)
        for d, workers in zip(data, (0, 2), strict=True)
    ]
    assert timeless(results[0])["samples"] == timeless(results[1])["samples"]


def test_a_broken_file_is_one_line_from_a_worker_too(tiny, tmp_path):
    root = folder_of(tmp_path / "samples", images(16), ["a", "b", "c", "d"])
    broken = sorted(root.glob("c/*"))[0]
    data, validation = labelled(root, in_memory=0), labelled(*images(8, seed=2))
    broken.write_bytes(broken.read_bytes()[:60])
    for workers in (0, 1):
        with pytest.raises(UsageError, match=f"^{broken}: not a readable image") as caught:
            classification_accuracy(data, validation, recipe=recipe(), workers=workers)
        assert "\n" not in str(caught.value)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_computes_in_bfloat16_and_resumes(tiny, tmp_path):
    data = images(100), images(40, seed=2)
    settings = {"device": "cuda", "checkpoint_seconds": 0}
    whole = score(*data, **settings)
    assert whole["value"] > 0.9
    assert whole["protocol"]["precision"] == "bfloat16 autocast"
    with pytest.raises(Cut):
        score(*data, out=tmp_path, progress=cut_at(20), **settings)
    assert timeless(score(*data, out=tmp_path, **settings)) == timeless(whole)


def test_what_does_not_fit_is_refused(tiny):
    good, validation = images(64), images(40, seed=2)
    large = images(16, size=16)
    for samples, says in (
        ((good[0], None), "samples array: no classes"),
        ((good[0], good[1][:-1]), "expected 64 integers"),
        ((good[0], good[1] / 2), "labels float64"),
        ((good[0], good[1] - 1), "label -1, expected classes from 0"),
        ((good[0], good[1] + 10**8), "label 10000000[0-3], expected classes from 0"),
        ((good[0][:5], good[1][:5]), "5 images to train on, expected at least a batch of 8"),
        ((good[0] / 255.0, good[1]), "expected uint8"),
        (large, "8x8 pixels, expected 16x16"),
    ):
        with pytest.raises(UsageError, match=says) as caught:
            score(samples, validation)
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="all images are of one class"):
        score((good[0], good[1] * 0), (validation[0], validation[1] * 0))
    with pytest.raises(UsageError, match="--seeds \\[1, 1\\]"):
        score(good, validation, seeds=(1, 1))
    with pytest.raises(UsageError, match="--device nonsense"):
        score(good, validation, device="nonsense")
    with pytest.raises(UsageError, match=r"loss is not finite at step .*lower --rate"):
        score(good, validation, recipe=recipe(rate=1e12))


def test_the_command_line_prints_json_and_notes(tiny, tmp_path, capsys):
    for name, data in (("s", images(64)), ("r", images(80, seed=1)), ("v", images(40, seed=2))):
        np.savez(tmp_path / f"{name}.npz", arr_0=data[0], arr_1=data[1])
    paths = {name: str(tmp_path / f"{name}.npz") for name in "srv"}
    arguments = [paths["s"], "--validation", paths["v"], "--real-train", paths["r"]]
    arguments += ["--epochs", "2", "--batch-size", "8", "--out", str(tmp_path / "out")]
    assert main([*arguments, "--seeds", "0", "1", "--randaugment"]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert result["id"] == "cas.embedded-2-stride-4-8x8-randaugment.v1"
    assert len(result["real"]["runs"]) == 2
    assert result["protocol"]["recipe"]["batch_size"] == 8
    assert "note: real images: 64 of 80" in printed.err
    for wrong, says in (
        (["--stem", "none"], "--stem none: expected one of imagenet, stride-4"),
        (["--recipe", "best"], "--recipe best: expected auto, embedded, short, long"),
        (["--epochs", "0"], "--epochs 0: expected a whole number from 1"),
        (["--threads", "0"], "--threads 0: at least 1"),
        (["--validation", str(tmp_path / "none")], "none: does not exist"),
    ):
        assert main([*arguments, *wrong]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith("error: ")
        assert says in printed.err


def test_the_id_names_what_may_not_be_compared():
    settings = [{}, {"epochs": 5}, {"stem": "stride-1"}, {"randaugment": True}]
    ids = {metric_id(get_recipe("auto", 32, **s), (32, 32)) for s in settings}
    ids |= {metric_id(get_recipe("auto", 256), size) for size in ((224, 224), (128, 128))}
    assert len(ids) == 6
