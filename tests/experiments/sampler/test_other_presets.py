"""Any preset through the engine: official files, and metrics that cannot be computed here.

The preset `tiny` has the sizes of the golden checkpoints, which the official code wrote.
"""

import importlib.util
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.presets import register

pytest.importorskip("efficientnet_lite_pytorch")
GRID = ("--preset", "tiny", "--T", "2", "--schedules", "cosine,linear", "--num-samples", "3")
LITE = ("--features", "efficientnet-lite0")


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No weights and references but those that ship, whatever this machine has; small chunks."""
    monkeypatch.setattr("experiments.sampler.imaging.CHUNK_PIXELS", 4 * 32 * 32)
    lite = "eval.features.efficientnet_lite0.EfficientNetLite0Extractor"
    monkeypatch.setattr(f"{lite}.chunk", 4)
    for name in ("MASKGIT_BENCH_CACHE", "MASKGIT_BENCH_WEIGHTS", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))


def results(folder):
    return [json.loads(path.read_text()) for path in sorted(folder.glob("cells/*/result.json"))]


def never(*_, **__):
    raise AssertionError("this stage was to be served from its file")


def test_official_files_give_what_the_packages_give_one_by_one(run, tmp_path, tiny, monkeypatch):
    import torch

    from eval.features.registry import get_extractor
    from eval.metrics.inception_score import inception_score
    from maskgit import checkpoints
    from maskgit.decoding import generate

    loads = Counter()
    real = checkpoints.load_transformer

    def counted(*args, **kwargs):
        loads["transformer"] += 1
        return real(*args, **kwargs)

    monkeypatch.setattr(checkpoints, "load_transformer", counted)
    code, out, err = run(*GRID, *LITE, "--weights", tiny)
    assert code == 0, err
    assert loads["transformer"] == 2  # once to check it, once to sample both cells

    transformer = checkpoints.load_transformer(tiny / "maskgit_tiny_checkpoint", num_codes=32)
    tokenizer = checkpoints.load_tokenizer(tiny / "tokenizer_tiny_checkpoint")
    extractor = get_extractor("efficientnet-lite0")
    found = results(tmp_path / "run")
    assert len(found) == 2
    for result in found:
        cell = result["cell"]
        assert (cell["features"], cell["backend"]) == ("efficientnet-lite0", "torch")
        tokens = generate(
            transformer, torch.arange(3), steps=cell["steps"], schedule=cell["schedule"]
        )
        decoded = tokenizer.decode(tokens.view(3, 2, 2)).clamp(0, 1).mul(255).round()
        images = decoded.permute(0, 2, 3, 1).to(torch.uint8).numpy()
        with np.load(tmp_path / "run" / "cells" / result["key"] / "samples.npz") as samples:
            assert samples["labels"].tolist() == [0, 1, 2]
            assert np.abs(samples["images"].astype(int) - images).max() <= 1
            score = inception_score(extractor.extract(samples["images"]).logits, splits=1)[0]
        assert set(result["metrics"]) == {"is"}
        assert result["metrics"]["is"]["value"] == pytest.approx(score, rel=1e-5)
        assert result["protocol"]["weights"]["transformer"] == checkpoints.weights_sha256(
            tiny / "maskgit_tiny_checkpoint"
        )
        assert set(result["missing"]) == {"fid", "precision", "recall", "kid", "nll"}
        assert "tiny-train" in result["missing"]["fid"]
        assert "--data" in result["missing"]["nll"]
        assert str(tmp_path) not in json.dumps(result)

    text = Path(out.strip()).read_text()
    words = "one transformer, trained with the cosine schedule, decoded with every schedule"
    assert words in text
    assert "tiny-train" in text
    assert "**not run**" in text
    assert "--features efficientnet-lite0" in text
    assert "--weights FOLDER" in text
    assert (tmp_path / "run" / "report" / "samples_cosine.png").is_file()
    assert [line for line in err.splitlines() if line.startswith("warning: FID")]


def test_without_any_extractor_cells_are_done_and_the_report_says_why(run, tmp_path, tiny):
    code, out, err = run(*GRID, "--weights", tiny)
    assert code == 0, err
    found = results(tmp_path / "run")
    assert len(found) == 2
    for result in found:
        assert result["metrics"] == {}
        assert set(result["missing"]) == {"fid", "is", "precision", "recall", "kid", "nll"}
        assert "inception-v3-compat" in result["missing"]["is"]
        assert str(tmp_path) not in json.dumps(result)
    page = {path.name: path.read_bytes() for path in Path(out.strip()).parent.iterdir()}
    text = page["report.md"].decode()
    assert "weights of inception-v3-compat not found" in text
    assert text.count("**not run**") == 4
    assert "samples_linear.png" in page
    code, _, err = run(*GRID, "--weights", tiny)
    assert "2 cached" in err.splitlines()[-1]
    after = {path.name: path.read_bytes() for path in Path(out.strip()).parent.iterdir()}
    assert after == page


def test_a_metric_is_computed_when_its_weights_have_come(run, tmp_path, monkeypatch):
    import shutil

    from eval.weights.files import ZOO

    folder = tmp_path / "extractors"
    folder.mkdir()
    flags = (
        "--T",
        "2",
        "--schedules",
        "cosine",
        "--num-samples",
        "12",
        "--feature-weights",
        folder,
    )
    assert run(*flags)[0] == 0
    (before,) = results(tmp_path / "run")
    assert set(before["metrics"]) == {"nll"}
    shutil.copy(ZOO / "fashion-resnet" / "model.safetensors", folder)
    monkeypatch.setattr("experiments.sampler.sampling.draw", never)
    monkeypatch.setattr("experiments.sampler.likelihood.negative_log_likelihood", never)
    code, _, err = run(*flags)
    assert code == 0, err
    (after,) = [result for result in results(tmp_path / "run") if result["key"] != before["key"]]
    assert set(after["metrics"]) == {"fid", "is", "precision", "recall", "kid", "nll"}
    assert after["missing"] == {}
    assert after["metrics"]["nll"] == before["metrics"]["nll"]
    (folder / "model.safetensors").unlink()
    code, _, err = run(*flags)
    assert "1 cached" in err.splitlines()[-1]  # the same request as at first


def test_another_extractor_takes_the_tokens_that_are_there(run, tmp_path, monkeypatch):
    flags = ("--T", "2", "--schedules", "cosine", "--num-samples", "12", "--metrics", "fid,is")
    assert run(*flags)[0] == 0
    monkeypatch.setattr("experiments.sampler.sampling.draw", never)
    code, _, err = run(*flags, *LITE)
    assert code == 0, err
    first, second = sorted(results(tmp_path / "run"), key=lambda r: r["cell"]["features"])
    assert second["metrics"]["is"]["id"] == "is.fashion-resnet.v2"
    assert first["metrics"]["is"]["id"] == "is.efficientnet-lite0.v2"
    assert "fashion-mnist-train" in first["missing"]["fid"]
    assert len(list((tmp_path / "run/stages/tokens").glob("*/*.npy"))) == 1
    assert len(list((tmp_path / "run/stages/features").glob("*/*.npz"))) == 2


# ---- held-out images -----------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path):
    """Three images of each of ten classes, of other sizes than the preset's."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for c in range(10):
        folder = tmp_path / "data" / "val" / f"n{c:02d}"
        folder.mkdir(parents=True)
        for k in range(3):
            image = rng.integers(0, 256, (40, 50 + c, 3), np.uint8)
            Image.fromarray(image).save(folder / f"{k}.png")
    return tmp_path / "data"


def test_nll_of_an_image_folder_is_that_of_the_transformer_on_its_images(run, tmp_path, tiny, data):
    import torch
    from PIL import Image

    from maskgit.checkpoints import load_tokenizer, load_transformer
    from maskgit.model.masking import held_out_masks

    flags = ("--metrics", "nll", "--data", data, "--weights", tiny)
    code, _, err = run(*GRID, *flags)
    assert code == 0, err

    transformer = load_transformer(tiny / "maskgit_tiny_checkpoint", num_codes=32)
    tokenizer = load_tokenizer(tiny / "tokenizer_tiny_checkpoint")
    images = []
    for k in range(2):  # the test's limit is 20 images: two of each class
        for c in range(10):
            image = Image.open(data / "val" / f"n{c:02d}" / f"{k}.png")
            width = int(32 * image.width / 40)
            left = round((width - 32) / 2)
            image = image.resize((width, 32), Image.BILINEAR).crop((left, 0, left + 32, 32))
            images.append(np.asarray(image))
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255
    tokens = tokenizer.encode(pixels).flatten(1)
    labels = torch.arange(10).repeat(2)
    for result in results(tmp_path / "run"):
        mask = held_out_masks(result["cell"]["schedule"], torch.arange(20), 4)
        inputs = torch.cat([32 + labels[:, None], tokens.masked_fill(mask, -1)], dim=1)
        with torch.no_grad():
            logits = transformer(inputs)[:, 1:]
        expected = torch.nn.functional.cross_entropy(logits[mask], tokens[mask])
        assert result["metrics"]["nll"]["value"] == pytest.approx(float(expected), rel=1e-5)
    assert len(results(tmp_path / "run")) == 2


def test_other_images_are_another_key_and_a_wrong_folder_is_one_line(run, tmp_path, tiny, data):
    import shutil

    flags = ("--preset", "tiny", "--T", "2", "--schedules", "cosine", "--metrics", "nll")
    flags += ("--num-samples", "2", "--weights", tiny, "--data")
    assert run(*flags, data)[0] == 0
    moved = shutil.copytree(data, tmp_path / "moved")
    assert "1 cached" in run(*flags, moved)[2].splitlines()[-1]
    shutil.copy(moved / "val/n00/1.png", moved / "val/n00/0.png")
    assert "1 done" in run(*flags, moved)[2].splitlines()[-1]
    (moved / "val/n03/0.png").write_bytes(b"no image")
    code, _, err = run(*flags, moved)
    assert code == 1  # found out when it is read
    assert "n03/0.png: not a readable image" in err
    shutil.rmtree(moved / "val" / "n05")
    code, _, err = run(*flags, moved)
    assert (code, len(err.splitlines())) == (2, 1), err
    assert "9 class folders" in err


# ---- requests ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--features", "inception"), "expected one of fashion-resnet"),
        (("--features", "fashion-resnet"), "take grey 32x32 images"),
        (("--backend", "tensorflow"), "expected one of torch, jax"),
        (("--weights-dir", "/nowhere"), "no such folder"),
        (("--data", "/nowhere"), "no such folder"),
    ],
)
def test_what_cannot_work_is_one_line_before_any_work(run, tmp_path, tiny, words, says):
    code, out, err = run(*GRID, "--weights", tiny, *words)
    assert (code, out, len(err.splitlines())) == (2, "", 1), err
    assert says in err
    assert not (tmp_path / "run").exists()


def test_a_damaged_official_file_names_it(run, tmp_path, tiny):
    import shutil

    copy = shutil.copytree(tiny, tmp_path / "copy")
    file = copy / "maskgit_tiny_checkpoint"
    file.write_bytes(file.read_bytes()[:-1000])
    code, _, err = run(*GRID, "--weights", copy)
    assert (code, len(err.splitlines())) == (2, 1), err
    assert "maskgit_tiny_checkpoint" in err


def test_an_official_file_of_other_sizes_names_both(run, tmp_path, tiny, monkeypatch):
    from dataclasses import replace

    from maskgit import presets

    classes = {"num_classes": 11, "class_names": tuple("abcdefghijk"), "block": 110}
    other = replace(presets.load_preset("tiny"), **classes)
    register(monkeypatch, tmp_path, other)
    code, _, err = run(*GRID, "--weights", tiny)
    assert (code, len(err.splitlines())) == (2, 1), err
    assert "10 classes, --preset tiny has 11" in err


def test_a_dry_run_of_a_preset_without_extractor_estimates_sampling(run, tmp_path, tiny):
    code, out, err = run(*GRID, "--weights", tiny, "--dry-run")
    assert code == 0, err
    assert out.splitlines()[0] == "2 cells: 0 cached, 2 to do"
    assert re.fullmatch(r"about [0-9]:[0-9]{2} with 0 workers, .*", out.splitlines()[2])
    assert not (tmp_path / "run").exists()


def test_a_kind_of_usage_error_is_one_line_too(run, monkeypatch):
    from maskgit.common.errors import Unavailable

    def unavailable(*_, **__):
        raise Unavailable("--feature-weights x: nothing there")

    monkeypatch.setattr("experiments.sampler.resources.find_networks", unavailable)
    code, _, err = run("--T", "2")
    assert (code, err) == (2, "error: --feature-weights x: nothing there\n")


def usual_workers(tiny, device="cpu", parameters=0, **options):
    from dataclasses import replace

    from experiments.sampler import building
    from experiments.studies.ablate_schedule.experiment import Options
    from tests.experiments.grids import build, resources_of

    asked = {"preset": "tiny", "weights": tiny, "schedules": "cosine", "metrics": "fid", "T": "2"}
    asked = Options(**asked, device="cpu", **options)
    resources = resources_of(build(asked))
    large = replace(resources.networks["transformer-cosine"], parameters=parameters)
    resources = replace(resources, networks={**resources.networks, "transformer-cosine": large})
    return building.usual_workers(resources, device)


def test_large_networks_get_one_worker_and_small_ones_the_cores(tiny, monkeypatch):
    monkeypatch.setattr("experiments.sampler.building.available_cores", lambda: 6)
    assert usual_workers(tiny) == 6
    assert usual_workers(tiny, parameters=172_457_193) == 1
    if importlib.util.find_spec("jax"):
        assert usual_workers(tiny, backend="jax") == 1


def test_a_number_of_workers_is_taken_up_to_the_most_that_an_experiment_bears():
    from experiments.engine.cells import Build

    assert [Build([], None, {}, lambda: 6).workers(wanted) for wanted in (None, 0, 4)] == [6, 0, 4]
    alone = Build([], None, {}, lambda: 6, most_workers=1)
    assert [alone.workers(wanted) for wanted in (None, 0, 4)] == [1, 0, 1]


@pytest.mark.parametrize(("device", "count"), [("auto", 6), ("cuda", 6), ("cuda:1", 2)])
def test_each_gpu_gets_two_workers(tiny, monkeypatch, device, count):
    """One samples while the other measures."""
    import torch

    from maskgit.common.device import resolve_device

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert usual_workers(tiny, device) == count
    places = [resolve_device(device, worker) for worker in range(count)]
    assert {places.count(place) for place in places} == {2}


@pytest.mark.parametrize(("gpus", "at_once"), [(0, 4), (1, 1), (2, 2)])
def test_workers_that_share_a_gpu_are_not_counted_twice_in_the_estimate(
    monkeypatch, tmp_path, gpus, at_once
):
    from types import SimpleNamespace

    from experiments.engine.cells import Sampling, Task
    from experiments.sampler import estimate

    monkeypatch.setattr(estimate, "gpu_count", lambda device: gpus)
    monkeypatch.setattr(estimate, "_chunk", lambda worker, features: 1)
    # A hundredth of a second an image and iteration, and as much again for what follows.
    monkeypatch.setattr(
        estimate,
        "_once",
        lambda worker, cell, features, measured: (
            cell.num_samples * cell.steps / 100,
            measured / 100,
        ),
    )
    worker = SimpleNamespace(
        start=lambda worker, workers: None,
        resources=SimpleNamespace(metrics={"fid": "f"}),
        token_blocks=lambda cell: SimpleNamespace(missing=lambda: cell.num_samples),
        run=tmp_path,
        asked_device="auto",
    )
    cell = {**Sampling("maskgit", "cosine", 9, 0, 100, 4.5).as_dict(), "features": "f"}
    tasks = [Task(str(i), cell) for i in range(8)]
    assert estimate.seconds_of(tasks, worker, 4) == pytest.approx(8 * 100 * 0.1 / at_once)


def test_shown_samples_spread_over_the_classes():
    from experiments.sampler.samples import shown_samples

    assert shown_samples(100, 10).tolist() == list(range(20))
    assert shown_samples(13, 10).tolist() == list(range(13))
    assert shown_samples(1, 1000).tolist() == [0]
    assert shown_samples(50_000, 1000).tolist() == [
        *range(0, 1000, 100), *range(1000, 2000, 100)
    ]  # fmt: skip
    assert shown_samples(500, 1000).tolist() == list(range(0, 500, 50))
    assert shown_samples(50, 1).tolist() == list(range(20))
