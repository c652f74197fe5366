"""Table 1: values are the sampler's own, pools share their samples, CAS follows the classes."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest

from experiments.sampler.held_out import find_held_out
from experiments.sampler.samplers import sampling
from experiments.studies import cas
from experiments.studies.class_conditional.experiment import Options
from maskgit.common.errors import UsageError
from maskgit.presets import load_preset
from tests.experiments.grids import build
from tests.experiments.studies.table_doubles import call, results, value, with_baseline


def test_both_samplers_are_measured_as_a_sweep_measures(weights, tmp_path):
    from maskgit.checkpoints import load_autoregressive, load_tokenizer

    folder = with_baseline(weights, tmp_path / "weights")
    out = tmp_path / "class_conditional"
    shared = ("--num-samples", 20, "--seeds", "1")
    flags = ("--T", 2, "--cas-samples", 0)
    assert call("class_conditional", *shared, *flags, out=out, weights=folder) == 0
    plain = tmp_path / "ablate_schedule"
    sweep = ("--T", 2, "--schedules", "cosine", "--metrics", "fid,is,precision,recall")
    assert call("ablate_schedule", *shared, *sweep, out=plain, weights=folder) == 0
    made = [r for r in results(out) if r["cell"]["part"] != "tokenizer"]
    found = {r["cell"].get("sampler", "real"): r for r in made}
    theirs = results(plain)[0]
    for metric in ("fid", "is", "precision", "recall"):
        assert value(found["maskgit"], metric) == value(theirs, metric)
    parts = load_autoregressive(folder / "autoregressive"), load_tokenizer(folder / "tokenizer")
    count = sum(p.numel() for part in parts for p in part.parameters())
    assert value(found["autoregressive"], "parameters") == count
    assert found["autoregressive"]["cell"]["steps"] == 64
    stored = np.load(out / "cells" / found["real"]["key"] / "samples.npz")
    assert stored["labels"].tolist() == [c for c in range(10) for _ in range(4)]


def test_a_pool_begins_with_the_samples_of_a_smaller_cell(weights, tmp_path):
    options = Options(weights=weights, T="2", cas_samples=0, quick=True)
    worker = build(options, "class_conditional").computer
    worker.run = tmp_path
    worker.start(0, 1)
    few, many = (
        sampling(load_preset("embedded"), steps=2, seed=0, num_samples=n) for n in (10, 30)
    )
    whole = worker.tokens(many)
    assert (worker.tokens(few, 25) == whole[:25]).all()
    assert (worker.tokens(few) == whole[:10]).all()


def test_without_the_baseline_the_report_says_so(weights, tmp_path):
    out = tmp_path / "class_conditional"
    flags = ("--num-samples", 10, "--T", 1, "--cas-samples", 0)
    assert call("class_conditional", *flags, out=out, weights=weights) == 0
    text = (out / "report" / "report.md").read_text(encoding="utf-8")
    assert "the baseline, FID" in text
    assert "autoregressive" in text
    assert text.count("**not run**") == 3


def test_too_few_images_for_a_batch_are_refused(weights, tmp_path):
    with pytest.raises(UsageError, match="--cas-samples 20: expected 0, or at least a batch"):
        call("class_conditional", "--cas-samples", 20, out=tmp_path / "run", weights=weights)


def test_generated_images_follow_the_classes_of_the_real_ones(tmp_path, monkeypatch):
    tokens = np.arange(40)[:, None]
    made = []

    def decode(found, backend):
        made.append(len(found))
        return [found.reshape(-1, 1, 1, 1).astype(np.uint8)]

    worker = SimpleNamespace(
        tokens=lambda settings, count: tokens[:count],
        images=lambda found, backend: found.reshape(-1, 1, 1, 1).astype(np.uint8),
        decode=decode,
        run=tmp_path,
        resources=SimpleNamespace(
            stage_keys=lambda settings: SimpleNamespace(tokens="t" * 64),
            networks={"tokenizer": SimpleNamespace(identity=["sha", 1])},
            code="code",
        ),
    )
    settings = sampling(load_preset("embedded"), steps=2, seed=0, num_samples=4)
    found = cas.generated(worker, settings, np.array([3, 1, 4, 2]))
    assert found.in_memory
    assert np.bincount(found.labels).tolist() == [3, 1, 4, 2]
    assert [int(found[i].item()) % 4 for i in range(10)] == found.labels.tolist()
    assert made == []
    # Beyond the memory the same images are read from files, which a stopped run goes on with.
    monkeypatch.setattr(cas, "IN_MEMORY", 5)
    monkeypatch.setattr(cas, "SHARD", 4)
    streamed = cas.generated(worker, settings, np.array([3, 1, 4, 2]))
    assert not streamed.in_memory
    assert made == [4, 4, 2]
    (lost,) = tmp_path.glob("cas/images-*/00001.zip")
    lost.unlink()
    streamed = pickle.loads(pickle.dumps(cas.generated(worker, settings, np.array([3, 1, 4, 2]))))
    assert made == [4, 4, 2, 4]
    assert [streamed[i].tolist() for i in range(10)] == [found[i].tolist() for i in range(10)]
    assert streamed.labels.tolist() == found.labels.tolist()


def test_real_images_beyond_the_memory_are_read_as_they_are_needed(monkeypatch):
    selection = find_held_out(load_preset("embedded"), None, 30)
    ids = np.array([3, 20, 7])
    whole = cas.selected(selection, ids)
    monkeypatch.setattr(cas, "IN_MEMORY", 1000)
    streamed = pickle.loads(pickle.dumps(cas.selected(selection, ids)))
    assert whole.in_memory
    assert not streamed.in_memory
    assert streamed.labels.tolist() == whole.labels.tolist()
    assert all(np.array_equal(streamed[i], whole[i]) for i in range(3))


def test_the_recipe_is_asked_for_and_real_images_are_trained_on_once(weights):
    from experiments.studies.class_conditional.experiment import Options, build

    cells = [
        task.cell
        for recipe in ("auto", "long")
        for task in build(Options(weights=weights, T="1,2", cas_recipe=recipe)).tasks
        if task.cell["part"] == "cas"
    ]
    assert [cell["recipe"] for cell in cells] == ["auto"] * 3 + ["long"] * 3
    assert [cell["sampler"] for cell in cells].count("real") == 2  # one a recipe, for all rows
    with pytest.raises(UsageError, match="--cas-recipe brief: expected one of auto, "):
        Options(cas_recipe="brief").check()


@pytest.mark.slow
def test_cas_trains_on_samples_and_on_real_images(weights, tmp_path):
    out = tmp_path / "class_conditional"
    flags = ("--num-samples", 10, "--T", 1, "--cas-samples", 64, "--cas-epochs", 1)
    assert call("class_conditional", *flags, "--held-out", 50, out=out, weights=weights) == 0
    found = [r for r in results(out) if r["cell"]["part"] == "cas"]
    assert {r["cell"]["sampler"] for r in found} == {"maskgit", "real"}
    for result in found:
        assert 0 <= value(result, "cas_top1") <= value(result, "cas_top5") <= 1
        assert sum(result["protocol"]["counts"]) == 64
