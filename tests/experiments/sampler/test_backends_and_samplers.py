"""Cells of the JAX backend and of the autoregressive sampler, beside those of the usual kind."""

import json
import shutil

import numpy as np
import pytest

from experiments.engine.cells import Sampling
from experiments.sampler.resources import find_resources
from experiments.sampler.samplers import sampling
from experiments.sampler.worker import Worker
from experiments.studies.ablate_schedule.experiment import Options, task_of
from maskgit.common.errors import UsageError
from maskgit.presets import load_preset
from tests.experiments.grids import build, keys_of, resources_of, stage_keys
from tests.experiments.studies.table_doubles import with_baseline

GRID = ("--T", "3", "--schedules", "cosine,linear", "--num-samples", "21")
EMBEDDED = load_preset("embedded")


def usual(weights, **changes):
    shared = {"T": "3", "schedules": "cosine", "num_samples": 12, "metrics": "fid,nll"}
    return keys_of(Options(weights=weights, **shared, **changes))


# ---- keys ----------------------------------------------------------------------------------------


def test_an_extractor_changes_neither_tokens_nor_likelihood(weights):
    first, second = usual(weights), usual(weights, features="efficientnet-lite0")
    assert first.tokens == second.tokens
    assert first.likelihood == second.likelihood
    assert first.features != second.features
    assert first.key != second.key


def test_the_presets_extractor_by_name_is_the_same_cell(weights):
    first, second = usual(weights), usual(weights, features="fashion-resnet")
    assert first == second
    assert first.cell["features"] == "fashion-resnet"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"backend": "jax", "sampler": "autoregressive"}, "needs --backend torch"),
        ({"backend": "tpu"}, "expected one of torch, jax"),
        ({"sampler": "gibbs"}, "expected one of maskgit, autoregressive"),
        ({"precision": "float16"}, "expected one of float32, bfloat16"),
        ({"backend": "jax", "precision": "bfloat16"}, "--precision bfloat16: .*float32 only"),
        ({"mode": "fast"}, "expected one of eager, compiled, graphs, autotuned"),
        ({"backend": "jax", "mode": "graphs"}, "--mode graphs: .* takes eager only"),
    ],
)
def test_a_sampler_and_a_backend_that_do_not_go_together_are_refused(settings, says):
    with pytest.raises(UsageError, match=says):
        sampling(EMBEDDED, **{"steps": 3, "seed": 0, "num_samples": 12, **settings})


@pytest.mark.parametrize("sampler", ["maskgit", "autoregressive"])
def test_both_samplers_take_every_mode(sampler):
    for mode in ("eager", "compiled", "graphs", "autotuned"):
        found = sampling(EMBEDDED, sampler, steps=3, seed=0, num_samples=12, mode=mode)
        assert found.mode == mode


def test_metrics_beyond_the_usual_ones_are_measured_on_request(run, tmp_path):
    flags = ("--T", "2", "--schedules", "cosine", "--num-samples", "12")
    code, _, err = run(*flags, "--metrics", "coverage,density")
    assert code == 0, err
    (path,) = (tmp_path / "run").glob("cells/*/result.json")
    assert set(json.loads(path.read_text())["metrics"]) == {"density", "coverage"}
    grid = json.loads((tmp_path / "run" / "grid.json").read_text())
    assert grid["metrics"]["coverage"]["direction"] == "higher"
    assert set(grid["protocol"]["metrics"]) == {"density", "coverage"}


# ---- autoregressive ------------------------------------------------------------------------------


@pytest.fixture
def baseline(weights, tmp_path):
    """The weights with an autoregressive baseline."""
    return with_baseline(weights, tmp_path / "with baseline")


def grid_of(folder, *cells):
    """(resources, tasks) of cells of any samplers, as an experiment would make them."""
    metrics = {"fid": "fashion-resnet", "is": "fashion-resnet", "nll": ""}
    options = Options(weights=folder)
    resources = find_resources("ablate_schedule", options, cells, metrics=metrics)
    return resources, [task_of(resources, cell, "fashion-resnet") for cell in cells]


def test_an_autoregressive_cell_is_the_baselines_samples_measured_alike(baseline, tmp_path):
    import torch

    from maskgit.checkpoints import load_autoregressive
    from maskgit.sampling.autoregressive import generate_autoregressive

    settings = {"steps": 3, "seed": 3, "num_samples": 12}
    cells = [sampling(EMBEDDED, name, **settings) for name in ("autoregressive", "maskgit")]
    assert cells[0].steps == 64
    resources, (baseline_task, parallel_task) = grid_of(baseline, *cells)
    keys = stage_keys(resources, baseline_task)
    assert keys.tokens != stage_keys(resources, parallel_task).tokens
    assert baseline_task.group != parallel_task.group
    worker = Worker(resources, tmp_path / "run", asked_device="cpu")
    worker.start(0, 1)
    outcome = worker.compute(baseline_task)
    assert set(outcome.protocol["weights"]) == {"autoregressive", "tokenizer", "fashion-resnet"}
    assert set(outcome.metrics) == {"fid", "is"}
    assert "not defined for the autoregressive sampler" in outcome.missing["nll"]
    kept = np.load(tmp_path / "run" / "stages" / "tokens" / keys.tokens / "00000.npy")
    expected = generate_autoregressive(
        load_autoregressive(baseline / "autoregressive"), torch.arange(12) % 10, seed=3
    )
    assert np.array_equal(kept, expected.numpy())
    assert set(worker.compute(parallel_task).metrics) == {"fid", "is", "nll"}


def test_what_the_baseline_does_not_use_is_not_in_its_tokens_key(baseline):
    from dataclasses import replace

    cell = sampling(EMBEDDED, "autoregressive", steps=64, seed=0, num_samples=12)
    others = replace(cell, choice_temperature=4.5), replace(cell, sampling_temperature=0.9)
    resources, tasks = grid_of(baseline, cell, *others)
    first, second, third = (stage_keys(resources, task).tokens for task in tasks)
    assert first == second != third
    assert tasks[0].key != tasks[1].key


def test_a_folder_without_the_baseline_is_one_line(weights):
    cell = sampling(EMBEDDED, "autoregressive", steps=64, seed=0, num_samples=2)
    with pytest.raises(UsageError, match="autoregressive") as caught:
        grid_of(weights, cell)
    assert "\n" not in str(caught.value)


# ---- bfloat16 ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "value"), [("precision", "bfloat16"), ("mode", "graphs")])
def test_other_roundings_are_other_tokens_of_the_same_likelihood(weights, name, value):
    first, second = usual(weights), usual(weights, **{name: value})
    assert first.tokens != second.tokens
    assert first.likelihood == second.likelihood
    assert name not in first.label
    assert f"{name}={value}" in second.label


@pytest.mark.usefixtures("bfloat16")
def test_bfloat16_samples_and_measures_in_float32(run, tmp_path):
    grid = ("--T", "3", "--schedules", "cosine", "--num-samples", "20")
    texts = []
    for precision in ("float32", "bfloat16"):
        code, _, err = run(*grid, "--precision", precision)
        assert code == 0, err
        texts.append((tmp_path / "run/report/report.md").read_text())
    paths = (tmp_path / "run").glob("cells/*/result.json")
    results = {
        r["cell"]["precision"]: r["metrics"] for r in (json.loads(p.read_text()) for p in paths)
    }
    assert results["float32"]["fid"] != results["bfloat16"]["fid"]
    assert results["float32"]["nll"] == results["bfloat16"]["nll"]  # the network's own, in float32
    assert ["--precision bfloat16" in text for text in texts] == [False, True]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("runtime", ("--metrics", "kid", "--num-samples", "7")),
        ("panorama", ("--backend", "jax")),
        ("panorama", ("--mode", "graphs")),
        ("decoding_trace", ("--num-samples", "7")),
        ("reconstruction", ("--mode", "graphs")),
    ],
)
def test_an_experiment_refuses_what_it_would_ignore(name, words, monkeypatch, capsys, tmp_path):
    from experiments.engine import command

    monkeypatch.setattr("sys.argv", [name, *words, "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as ended:
        command.main(name, "")
    said = capsys.readouterr()
    assert (ended.value.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert said.err.startswith(f"error: {words[0]}: no such flag")
    assert not (tmp_path / "out").exists()


# ---- torch.compile -------------------------------------------------------------------------------


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")
@pytest.mark.parametrize("mode", ["compiled", "graphs"])
def test_a_compiled_sweep_measures_nearly_the_same(run, tmp_path, mode):
    grid = ("--T", "3", "--schedules", "cosine", "--num-samples", "20", "--metrics", "fid,nll")
    for words in ((), ("--mode", mode, "--workers", "0")):
        code, _, err = run(*grid, *words)
        assert code == 0, err
    report = (tmp_path / "run/report/report.md").read_text()
    assert f"--mode {mode}" in report
    paths = (tmp_path / "run").glob("cells/*/result.json")
    found = {r["cell"]["mode"]: r["metrics"] for r in (json.loads(p.read_text()) for p in paths)}
    assert found[mode]["nll"] == found["eager"]["nll"]
    assert found[mode]["fid"]["value"] == pytest.approx(found["eager"]["fid"]["value"], rel=0.05)


def test_without_a_compiler_a_mode_is_one_line(run, monkeypatch, tmp_path):
    monkeypatch.setattr("maskgit.sampling.compiled.shutil.which", lambda name: None)
    code, _, err = run("--T", "3", "--mode", "compiled")
    assert (code, err.count("\n")) == (2, 1)
    assert "error: --mode compiled: needs a C++ compiler" in err
    assert not (tmp_path / "run").exists()


# ---- JAX -----------------------------------------------------------------------------------------


def test_without_jax_the_backend_is_one_line(run, monkeypatch, tmp_path):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "jax" else find(name, *a)
    )
    code, out, err = run(*GRID, "--backend", "jax")
    assert (code, out, len(err.splitlines())) == (2, "", 1), err
    assert "maskgit-bench[jax]" in err
    assert not (tmp_path / "run").exists()


def tokens_key(weights, result):
    """The key of a result's tokens."""
    cell = result["cell"]
    options = Options(weights=weights, schedules=cell["schedule"], T="3", backend=cell["backend"])
    return resources_of(build(options)).stage_keys(Sampling.of(cell)).tokens


def found(folder):
    """(schedule, backend) -> (result, tokens of the cell)."""
    results = [json.loads(path.read_text()) for path in folder.glob("cells/*/result.json")]
    return {(result["cell"]["schedule"], result["cell"]["backend"]): result for result in results}


@pytest.mark.slow
@pytest.mark.jax
def test_jax_gives_the_report_of_torch(run, tmp_path, weights):
    pytest.importorskip("jax")
    assert run(*GRID)[0] == 0
    code, _, err = run(*GRID, "--backend", "jax")
    assert code == 0, err
    cells = found(tmp_path / "run")
    assert len(cells) == 4
    assert len(list((tmp_path / "run/stages/tokens").rglob("*.npy"))) == 4 + 1  # and the held-out
    for schedule in ("cosine", "linear"):
        torch_result, jax_result = cells[schedule, "torch"], cells[schedule, "jax"]
        ours, theirs = (
            np.load(tmp_path / "run/stages/tokens" / tokens_key(weights, result) / "00000.npy")
            for result in (jax_result, torch_result)
        )
        assert (ours == theirs).mean() >= 0.999
        assert set(jax_result["metrics"]) == set(torch_result["metrics"])
        # The likelihood is the network's own: computed once, for both.
        assert jax_result["metrics"]["nll"] == torch_result["metrics"]["nll"]
        assert jax_result["metrics"]["fid"]["value"] == pytest.approx(
            torch_result["metrics"]["fid"]["value"], rel=1e-2
        )
        assert "jax" in jax_result["protocol"]["versions"]
        assert "jax" not in torch_result["protocol"]["versions"]
        with (
            np.load(tmp_path / "run/cells" / jax_result["key"] / "samples.npz") as ours_shown,
            np.load(tmp_path / "run/cells" / torch_result["key"] / "samples.npz") as theirs_shown,
        ):
            difference = np.abs(ours_shown["images"].astype(int) - theirs_shown["images"])
            assert (difference <= 1).mean() > 0.999
    text = (tmp_path / "run" / "report" / "report.md").read_text()
    assert "--backend jax" in text


@pytest.mark.jax
def test_official_files_decode_in_jax_too(run, tmp_path, tiny):
    pytest.importorskip("jax")
    flags = ("--preset", "tiny", "--T", "2", "--schedules", "cosine", "--num-samples", "3")
    code, _, err = run(*flags, "--weights", tiny, "--metrics", "is", "--backend", "jax")
    assert code == 0, err
    assert list(found(tmp_path / "run")) == [("cosine", "jax")]
