"""What `evaluate` makes of several sets, subsets, missing parts and mixed input."""

import io
import json
import zipfile

import numpy as np
import PIL.Image
import pytest

from eval import evaluate as module
from eval.evaluate import Options, choose_features, evaluate
from eval.features.registry import Features
from eval.metrics.density_coverage import density_coverage
from eval.metrics.fid import frechet_distance
from eval.metrics.kid import kernel_distance
from eval.metrics.registry import (
    ON_FEATURES,
    PreparedReference,
    Settings,
    combine,
    parse_metrics,
    subset_errors,
)
from eval.metrics.registry import (
    measure as measure_features,
)
from eval.metrics.statistics import Statistics
from eval.reference.build import build_reference
from eval.reference.files import Reference
from maskgit.common.errors import Unavailable, UsageError
from tests.eval.tiny_extractor import Tiny

RNG = np.random.default_rng(0)
REAL = RNG.integers(0, 256, (80, 8, 8, 3), dtype=np.uint8)
FAKE = RNG.integers(0, 220, (80, 8, 8, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def tiny(tmp_path, monkeypatch):
    """Every extractor is the small one; dinov2's weights are not here."""

    def get(name, feature_weights=None, device="cpu"):
        if name == "dinov2-vit-l-14":
            raise Unavailable("weights of dinov2-vit-l-14 are not here")
        return Tiny()

    monkeypatch.setattr(module, "get_extractor", get)
    monkeypatch.setitem(module.EXTRACTORS, "tiny", "")
    monkeypatch.setenv("MASKGIT_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("eval.reference.files.weights_sha256", lambda name, folder=None: "a" * 64)


@pytest.fixture
def sets(tmp_path):
    np.save(tmp_path / "real.npy", REAL)
    for i in range(4):
        np.save(tmp_path / f"seed{i}.npy", FAKE[20 * i : 20 * i + 20])
    np.save(tmp_path / "fake.npy", FAKE)
    return tmp_path


def measure(sets, *images, metrics=("fid",), reference="real.npy", **options):
    paths = [sets / name for name in images]
    words = (tuple(map(str, paths)), str(sets / reference), ",".join(metrics), "tiny")
    return evaluate(Options(*words, **options))


def fid_of(real, fake):
    x, y = (Statistics.of(Tiny().extract(side).features) for side in (real, fake))
    return frechet_distance(x.mean, x.cov, y.mean, y.cov)


def test_several_sets_give_mean_and_deviation_and_say_so(sets):
    result = measure(sets, "seed0.npy", "seed1.npy", "seed2.npy", metrics=("fid", "is"))
    fids = [fid_of(REAL, FAKE[20 * i : 20 * i + 20]) for i in range(3)]
    entry = result["metrics"]["fid"]
    assert entry["values"] == pytest.approx(fids)
    assert entry["value"] == pytest.approx(np.mean(fids))
    assert entry["error"] == pytest.approx(np.std(fids, ddof=1))
    assert entry["error_is"] == "sd over 3 sets of images"
    assert result["metrics"]["is"]["error_is"] == "sd over 3 sets of images"
    assert result["protocol"]["n"] == [20, 20, 20]


def test_error_bars_come_from_disjoint_subsets_and_say_so(sets):
    result = measure(sets, "fake.npy", metrics=("fid", "kid", "precision-recall"), error_bars=4)
    entry = result["metrics"]["fid"]
    assert entry["value"] == pytest.approx(fid_of(REAL, FAKE))
    order = np.random.default_rng(0).permutation(80)
    fids = [fid_of(REAL, FAKE[rows]) for rows in np.array_split(order, 4)]
    assert entry["subset_values"] == pytest.approx(fids)
    assert entry["error"] == pytest.approx(np.std(fids, ddof=1) / 2)
    assert entry["error_is"] == "standard error, from 4 disjoint subsets of 20 images"
    assert "disjoint subsets of 20 images" in result["metrics"]["recall"]["error_is"]
    assert "subset_values" not in result["metrics"]["kid"]  # has an error of its own
    assert json.loads(json.dumps(result)) == result


def test_error_bars_of_a_mean_are_its_standard_error():
    reference = Reference("r", "x", 100, np.zeros(2), np.eye(2), np.zeros((0, 2)), "", "")
    rng = np.random.default_rng(0)
    errors, values = [], []
    for _ in range(60):
        samples = Features(rng.normal(1, 1, (400, 2)), np.zeros((400, 0)))
        given = ("x", samples, PreparedReference(reference), Settings())
        entries, _ = measure_features(["fid"], *given)
        assert subset_errors(entries, *given, 10) == {}
        errors.append(entries["fid"]["error"])
        values.append(entries["fid"]["value"])
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.25)


def test_subsets_too_small_for_a_metric_cost_it_its_error_bars_only(sets):
    result = measure(sets, "fake.npy", metrics=("fid", "is"), error_bars=80)
    assert set(result["metrics"]) == {"fid", "is"}
    assert "at least 2 images, got 1" in result["missing"]["error bars of fid"]
    with pytest.raises(UsageError, match="--error-bars 1: at least 2"):
        measure(sets, "fake.npy", error_bars=1)


def test_all_metrics_carry_the_features_name_and_what_is_missing_why(sets):
    result = measure(sets, "fake.npy", metrics=parse_metrics("all"))
    assert set(result["metrics"]) == {
        *("fid", "fid-infinity", "is", "is-10-splits", "kid"),
        *("precision", "recall", "density", "coverage"),
    }
    assert all(".tiny.v" in entry["id"] for entry in result["metrics"].values())
    assert result["missing"] == {"fd-dinov2": "weights of dinov2-vit-l-14 are not here"}
    real, fake = (Tiny().extract(side).features for side in (REAL, FAKE))
    pair = density_coverage(real, fake)
    found = result["metrics"]["density"]["value"], result["metrics"]["coverage"]["value"]
    assert found == pair
    low, high = result["metrics"]["fid-infinity"]["slope_interval"]
    assert low < result["metrics"]["fid-infinity"]["slope"] < high
    assert set(ON_FEATURES) > {"fid-infinity", "fd-dinov2"}


def test_a_reference_without_features_costs_the_metrics_that_need_them(sets, monkeypatch):
    build_reference("mine", REAL, Tiny(), keep_features=0)
    result = evaluate(
        Options((str(sets / "fake.npy"),), "mine", "fid,kid,precision-recall", "tiny")
    )
    assert set(result["metrics"]) == {"fid"}
    assert set(result["missing"]) == {"kid", "precision", "recall"}
    assert "mean and covariance only" in result["missing"]["kid"]


def test_no_metric_left_is_an_error(sets):
    with pytest.raises(Unavailable, match="dinov2-vit-l-14 are not here"):
        measure(sets, "fake.npy", metrics=("fd-dinov2",))


def test_dinov2_numbers_come_with_their_own_protocol(sets, monkeypatch):
    monkeypatch.setattr(module, "get_extractor", lambda name, *_: Tiny())
    result = measure(sets, "fake.npy", metrics=("fid", "fd-dinov2"))
    assert result["metrics"]["fd-dinov2"]["id"] == "fd.dinov2-vit-l-14.v1"
    assert result["metrics"]["fd-dinov2"]["value"] == result["metrics"]["fid"]["value"]
    assert len(result["protocol"]["also"]) == 1


def test_a_folder_as_the_reference_is_kept_by_content_and_never_stale(sets, monkeypatch):
    first = measure(sets, "fake.npy")["metrics"]["fid"]["value"]
    seen = []
    monkeypatch.setattr(Tiny, "extract_batches", _counted(Tiny.extract_batches, seen))
    assert measure(sets, "fake.npy")["metrics"]["fid"]["value"] == first
    assert len(seen) == 1  # the generated images only
    changed = REAL.copy()
    changed[5, 4, 4, 1] ^= 255
    np.save(sets / "real.npy", changed)
    assert measure(sets, "fake.npy")["metrics"]["fid"]["value"] == fid_of(changed, FAKE) != first


def _counted(function, seen):
    def call(self, batches):
        seen.append(1)
        return function(self, batches)

    return call


def test_a_zip_of_classes_with_other_files_in_it_is_measured_and_the_rest_is_said(sets):
    with zipfile.ZipFile(sets / "f.zip", "w") as archive:
        for i, image in enumerate(FAKE):
            buffer = io.BytesIO()
            PIL.Image.fromarray(image).save(buffer, "png")
            archive.writestr(f"out/{i // 40}/{i:03}.png", buffer.getvalue())
        archive.writestr("out/README.md", "x")
        archive.writestr("out/1/zzz.png", b"broken")
    with pytest.raises(UsageError, match=r"zzz\.png: not a readable image"):
        measure(sets, "f.zip")
    result = measure(sets, "f.zip", skip_broken=True)
    assert result["metrics"]["fid"]["value"] == pytest.approx(fid_of(REAL, FAKE), rel=1e-12)
    assert (result["protocol"]["n"], result["protocol"]["skipped"]) == (80, 1)
    text = " ".join(result["protocol"]["notes"])
    assert "README.md" in text
    assert "zzz.png: not a readable image" in text


def test_padding_reaches_both_sides(sets):
    result = measure(sets, "fake.npy", pad=12)
    real, fake = (np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0))) for x in (REAL, FAKE))
    assert result["metrics"]["fid"]["value"] == pytest.approx(fid_of(real, fake))
    assert result["protocol"]["pad"] == 12


def test_kid_of_a_folder_is_that_of_other_libraries_draws(sets):
    real, fake = (Tiny().extract(side).features for side in (REAL, FAKE))
    entry = measure(sets, "fake.npy", metrics=("kid",))["metrics"]["kid"]
    assert (entry["value"], entry["sd"]) == kernel_distance(real, fake)


def test_a_typo_of_the_reference_is_an_error_before_anything_is_computed(sets, monkeypatch):
    monkeypatch.setattr(module, "get_extractor", None)
    with pytest.raises(UsageError, match=r"--reference .*typo: no such folder or file, nor one"):
        measure(sets, "fake.npy", reference="typo")
    with pytest.raises(UsageError, match="no images to measure"):
        measure(sets)


def test_a_builds_settings_are_compared_with_the_extractors(sets, monkeypatch):
    build_reference("mine", REAL, Tiny(resize="old"))
    with pytest.raises(UsageError, match="was made with tiny's resize 'old'"):
        evaluate(Options((str(sets / "fake.npy"),), "mine", "fid", "tiny"))


@pytest.mark.parametrize(
    ("shape", "reference", "weights", "expected"),
    [
        ((32, 32, 1), None, True, "fashion-resnet"),
        ((64, 64, 3), None, True, "inception-v3-compat"),
        ((64, 64, 3), None, False, "efficientnet-lite0"),
        ((28, 28, 1), None, False, "efficientnet-lite0"),
        ((64, 64, 3), "fashion-mnist-train", True, "fashion-resnet"),
        ((32, 32, 1), "mine", True, "tiny"),
    ],
)
def test_features_are_chosen_by_reference_then_images_then_weights(
    monkeypatch, shape, reference, weights, expected
):
    def path(name, feature_weights=None):
        if not weights:
            raise Unavailable("not here")

    monkeypatch.setattr("eval.evaluate.weights_path", path)
    build_reference("mine", REAL, Tiny())
    name, why = choose_features(np.zeros(shape, np.uint8), reference)
    assert name == expected
    assert why


def test_a_metric_that_one_set_lacks_is_not_averaged():
    sets = [{"a": {"id": "a", "value": 1.0}, "b": {"id": "b", "value": 1.0}}]
    sets += [{"a": {"id": "a", "value": 3.0}}]
    combined = combine(sets)
    assert set(combined) == {"a"}
    assert combined["a"]["value"] == 2.0
