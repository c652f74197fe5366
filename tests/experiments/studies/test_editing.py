"""`editing.py`: masks, fillings and their composites, what it measures, one line for mistakes."""

import numpy as np
import pytest

from experiments import editing
from experiments.sampler.held_out import ImageSelection
from experiments.sampler.worker import softmax
from experiments.studies import filling
from experiments.studies.filling import TASKS
from maskgit.common.errors import UsageError
from tests.experiments.studies.editing_runs import cells_of, embedded_worker, run_script
from tests.experiments.studies.table_doubles import with_baseline

SAMPLED = {"seed": 0, "steps": 4, "start": 1}


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    return embedded_worker(tmp_path_factory.mktemp("worker"))


@pytest.fixture(scope="module")
def photos():
    from maskgit.data.fashion_mnist import load_split

    images, labels = load_split("test")
    return images[:3], labels[:3].astype(np.int64)


# ---- masks and fillings --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "share"),
    [
        *((f"outpaint-{side}", 0.5) for side in ("right", "left", "top", "bottom")),
        ("inpaint-center", 0.25),
        ("inpaint-large", 0.5625),
        ("surround-50", 0.75),
        ("surround-31", 1 - (10 / 32) ** 2),
        ("strip", 0.75),
    ],
)
def test_the_share_of_the_image_that_each_task_hides(task, share):
    assert TASKS[task](32, 32).mean() == pytest.approx(share)


def test_sides_are_where_their_names_say():
    assert TASKS["outpaint-right"](32, 32)[:, 16:].all()
    assert TASKS["outpaint-bottom"](32, 32)[16:].all()
    assert not TASKS["strip"](32, 32)[:, 12:20].any()
    assert TASKS["strip"](32, 32)[:, :12].all()
    assert not TASKS["surround-50"](32, 32)[8:24, 8:24].any()


@pytest.mark.parametrize("task", TASKS)
def test_mean_fill_is_the_mean_of_the_known_pixels(task, photos):
    images, mask = photos[0], TASKS[task](32, 32)
    expected = images.astype(np.float64)
    for i in range(len(images)):
        expected[i, mask, 0] = images[i, ~mask, 0].astype(np.float64).mean()
    filled = filling.mean_fill(images, mask)
    np.testing.assert_array_equal(filled[:, ~mask], images[:, ~mask])
    assert np.abs(filled.astype(np.float64) - expected).max() <= 0.5 + 1e-3  # rounded to a byte


@pytest.mark.parametrize("method", ["maskgit", "autoregressive"])
def test_hidden_pixels_do_not_reach_a_filling_and_far_pixels_stay(method, worker, photos):
    from maskgit.sampling.editing import blend_weights, latent_mask

    images, labels = photos
    mask = TASKS["outpaint-bottom"](32, 32)
    cell = {"task": "outpaint-bottom", "method": method, **SAMPLED}
    filled = filling.fill(worker, cell, images, labels, np.arange(3))
    other = images.copy()
    other[:, mask] = np.random.default_rng(0).integers(0, 256, other[:, mask].shape, np.uint8)
    np.testing.assert_array_equal(filling.fill(worker, cell, other, labels, np.arange(3)), filled)
    far = (blend_weights(latent_mask(mask, 4), (32, 32)) == 0) & ~mask
    assert far.sum() >= 32 * 12
    np.testing.assert_array_equal(filled[:, far], images[:, far])
    assert (filled[:, mask] != images[:, mask]).any()
    again = filling.fill(worker, {**cell, "seed": 1}, images, labels, np.arange(3))
    assert (again[:, mask] != filled[:, mask]).any()


def test_a_filling_depends_on_its_own_noise_and_not_on_its_neighbours(worker, photos):
    images, labels = photos
    cell = {"task": "inpaint-center", "method": "maskgit", **SAMPLED}
    together = filling.fill(worker, cell, images, labels, np.array([7, 8, 9]))
    alone = filling.fill(worker, cell, images[1:2], labels[1:2], np.array([8]))
    assert np.abs(together[1].astype(int) - alone[0].astype(int)).max() <= 1


def test_a_biharmonic_filling_continues_a_ramp():
    """A plane solves the biharmonic equation, so the hole in one is filled with it."""
    pytest.importorskip("skimage")
    y, x = np.mgrid[0:32, 0:32]
    ramps = np.stack([4 * x + 2 * y, 200 - 5 * x + y]).astype(np.uint8)[..., None]
    holed, mask = ramps.copy(), TASKS["inpaint-center"](32, 32)
    holed[:, mask] = 0
    np.testing.assert_array_equal(filling.biharmonic_fill(holed, mask), ramps)


def test_without_scikit_image_the_baseline_says_what_to_install(monkeypatch, photos):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert filling.library() == "missing"
    with pytest.raises(
        UsageError, match=r"scikit-image is not installed: pip install .*inpainting"
    ):
        filling.biharmonic_fill(photos[0], TASKS["strip"](32, 32))


def test_softmax_against_scipy():
    from scipy.special import softmax as theirs

    logits = np.random.default_rng(0).normal(0, 30, (4, 10)).astype(np.float32)
    np.testing.assert_allclose(softmax(logits), theirs(logits.astype(float), axis=1), rtol=1e-12)


# ---- the script ----------------------------------------------------------------------------------


@pytest.fixture
def run(monkeypatch, capsys, weights, tmp_path):
    folder = with_baseline(weights, tmp_path / "weights")

    def call(*flags):
        shared = ("--weights", folder, "--out", tmp_path / "run", "--workers", 0)
        return run_script(monkeypatch, capsys, editing, *shared, *flags)

    return call


def test_from_flags_to_numbers(run, tmp_path, monkeypatch):
    from eval.features.registry import get_extractor
    from eval.metrics.fid import frechet_distance
    from eval.metrics.statistics import Statistics
    from eval.reference.files import load_reference
    from maskgit.data.fashion_mnist import load_split

    monkeypatch.setattr(filling, "library", lambda: "missing")
    flags = ("--tasks", "outpaint-right,outpaint-bottom", "--T", 2, "--start", 0)
    code, out, err = run(*flags, "--classes", "0,1", "--targets", "2,3", "--held-out", 80)
    assert code == 0, err
    assert out == f"{tmp_path / 'run' / 'report' / 'report.md'}\n"
    found = cells_of(tmp_path / "run")
    measured = {
        (cell["task"], cell["method"]): result for cell, result, _ in found
        if cell["part"] == "measure"
    }  # fmt: skip
    assert len(measured) == 2 + 3 + 4
    # The real images: the same FID from eval's own parts.
    images = load_split("test")[0][:80]
    features = get_extractor("fashion-resnet").extract(images).features
    here, there = Statistics.of(features), load_reference("fashion-mnist-train", "fashion-resnet")
    expected = frechet_distance(there.mean, there.cov, here.mean, here.cov)
    real = measured["none", "real"]["metrics"]["fid"]
    assert real["value"] == pytest.approx(expected, rel=1e-6)
    assert real["id"].startswith("fid.fashion-resnet")
    for (task, method), result in measured.items():
        if method == "biharmonic":
            assert "scikit-image is not installed" in result["missing"]["fid"]
        elif task != "none":
            assert result["metrics"]["fid"]["value"] > real["value"]  # the networks are untrained
            kept = result["metrics"]["kept"]["value"]
            assert kept == 1 if method == "mean" else 0.75 <= kept < 1  # a rim of 2 to 4 pixels
    assert "biharmonic inpainting: scikit-image is not installed" in _text(tmp_path)

    pictures = {c["task"]: (c, a) for c, _, a in found if c["part"] == "pictures"}
    cell, arrays = pictures["outpaint-bottom"]
    assert arrays["maskgit"].shape == arrays["autoregressive"].shape == (2, 4, 32, 32, 1)
    assert set(pictures["outpaint-right"][1]) == {"inputs", "labels", "mask", "maskgit", "mean"}
    np.testing.assert_array_equal(arrays["inputs"], load_split("test")[0][cell["images"]])
    assert arrays["labels"].tolist() == [0, 1]
    edited = next(a for c, _, a in found if c["part"] == "edits")
    assert edited["edited"].shape == (2, 2, 32, 32, 1)
    top = ~edited["latent"].any(axis=1).repeat(4)
    top[top.nonzero()[0][-4:]] = False  # the blur's reach
    np.testing.assert_array_equal(edited["edited"][:, 1][:, top], edited["inputs"][:, top])
    shares = next(r["metrics"] for c, r, _ in found if c["part"] == "edit")
    assert 0 <= shares["target"]["value"] <= 1 - shares["original"]["value"]


def _text(folder):
    return (folder / "run" / "report" / "report.md").read_text()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--tasks", "outpaint-up"), "--tasks outpaint-up: unknown 'outpaint-up'"),
        (("--T", 0), "--T 0: must be at least 1"),
        (("--start", 12), "--start 12: must be from 0 to 11, below --T"),
        (("--classes", "10"), "--classes 10: 10 is too large"),
        (("--targets", "x"), "--targets x: 'x' is not of the form"),
        (("--box", "1,2,3"), "--box 1,2,3: expected TOP,LEFT,HEIGHT,WIDTH in pixels"),
        (
            ("--box", "20,0,20,8"),
            "--box 20,0,20,8: expected TOP,LEFT,HEIGHT,WIDTH in pixels inside",
        ),
        (("--box", "4,4,24,24"), "--box 4,4,24,24: covers every token"),
    ],
)
def test_a_mistake_is_one_line(run, tmp_path, flags, words):
    code, out, err = run(*flags)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {words}")
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_without_the_baseline_the_rest_runs_and_says_why(monkeypatch, capsys, weights, tmp_path):
    shared = ("--weights", weights, "--out", tmp_path / "run", "--workers", 0)
    flags = ("--tasks", "outpaint-bottom", "--T", 1, "--start", 0, "--num-samples", 2)
    code, _, err = run_script(monkeypatch, capsys, editing, *shared, *flags)
    assert code == 0, err
    assert "autoregressive" not in {c.get("method") for c, _, _ in cells_of(tmp_path / "run")}
    assert "has no autoregressive; train it with" in _text(tmp_path)


def test_first_images_are_of_the_classes_asked_for():
    from maskgit.presets import load_preset

    preset, held_out = load_preset("embedded"), ImageSelection("", "", labels=(3, 1, 1, 0))
    assert held_out.first_of_classes(preset, "--classes", "0,1") == [3, 1]
    with pytest.raises(UsageError, match="--classes 0,2: no held-out image is of class 2"):
        held_out.first_of_classes(preset, "--classes", "0,2")
