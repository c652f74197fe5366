"""Cells of the JAX backend and of the autoregressive sampler, beside those of the usual kind."""

import json
import shutil

import numpy as np
import pytest

from experiments.engine.cells import Cell
from experiments.engine.grid import autoregressive_cells, sampler_cells
from experiments.sampler.compute import SamplerComputer
from experiments.sampler.request import make_task, resolve
from maskgit.common.errors import UsageError

GRID = ("--T", "3", "--schedules", "cosine,linear", "--num-samples", "21")


def usual(**changes):
    return Cell("e", "embedded", "cosine", 3, 0, 12, **changes)


def tasks(cells, weights, metrics=("fid", "nll")):
    request = resolve(cells, metrics, weights=weights)
    return [make_task(request, cell) for cell in cells]


# ---- keys ----------------------------------------------------------------------------------------


def test_an_extractor_changes_neither_tokens_nor_likelihood(weights):
    first, second = tasks([usual(), usual(features="efficientnet-lite0")], weights)
    assert first.spec.tokens == second.spec.tokens
    assert first.spec.likelihood == second.spec.likelihood
    assert first.spec.features != second.spec.features
    assert first.key != second.key


def test_the_presets_extractor_by_name_is_the_same_cell(weights):
    first, second = tasks([usual(), usual(features="fashion-resnet")], weights)
    assert first == second
    assert first.cell["features"] == "fashion-resnet"


def test_a_sampler_and_a_backend_that_do_not_go_together_are_refused(weights):
    for cell, says in (
        (usual(backend="jax", sampler="autoregressive"), "needs --backend torch"),
        (usual(backend="tpu"), "expected one of torch, jax"),
        (usual(sampler="gibbs"), "expected one of maskgit, autoregressive"),
        (usual(precision="float16"), "expected one of float32, bfloat16"),
        (usual(backend="jax", precision="bfloat16"), "needs --backend torch"),
        (usual(mode="fast"), "expected one of eager, compiled, graphs, autotuned"),
        (usual(backend="jax", mode="graphs"), "--mode graphs: only for MaskGIT's sampler"),
        (usual(sampler="autoregressive", mode="compiled"), "--mode compiled: only for MaskGIT's"),
    ):
        with pytest.raises(UsageError, match=says):
            resolve([cell], ["fid"], weights=weights)


def test_cells_of_two_presets_are_no_grid(weights):
    with pytest.raises(ValueError, match="2 presets"):
        resolve([usual(), Cell("e", "imagenet256", "cosine", 3, 0, 2)], ["fid"], weights=weights)


# ---- autoregressive ------------------------------------------------------------------------------


@pytest.fixture
def baseline(weights, tmp_path):
    """A folder with the small networks and an autoregressive one."""
    import shutil

    import torch

    from maskgit.checkpoints import save_model
    from maskgit.model.config import TransformerConfig
    from maskgit.sampling.autoregressive import Autoregressive

    torch.manual_seed(1)
    sizes = TransformerConfig(
        num_codes=512, num_classes=10, num_tokens=64, width=16, layers=1, heads=2, mlp=16,
        dropout=0.0,
    )  # fmt: skip
    folder = shutil.copytree(weights, tmp_path / "with baseline")
    save_model(folder / "autoregressive", Autoregressive(sizes), card={"name": "baseline"})
    return folder


def test_an_autoregressive_cell_is_the_baselines_samples_measured_alike(baseline, tmp_path):
    import torch

    from maskgit.checkpoints import load_autoregressive
    from maskgit.sampling.autoregressive import generate_autoregressive

    cells = autoregressive_cells("e", "embedded", num_tokens=64, seeds=[3], num_samples=12)
    cells += sampler_cells(
        "e", "embedded", schedules=["cosine"], steps=[3], seeds=[3], num_samples=12
    )
    request = resolve(cells, ["fid", "is", "nll"], weights=baseline)
    baseline_task, parallel_task = (make_task(request, cell) for cell in cells)
    assert baseline_task.spec.tokens != parallel_task.spec.tokens
    assert baseline_task.group != parallel_task.group
    assert set(baseline_task.spec.protocol["weights"]) == {
        "autoregressive", "tokenizer", "fashion-resnet"
    }  # fmt: skip
    computer = SamplerComputer(request, tmp_path / "run", device="cpu")
    computer.start(0, 1)
    outcome = computer.compute(baseline_task)
    assert set(outcome.metrics) == {"fid", "is"}
    assert "not defined for the autoregressive sampler" in outcome.missing["nll"]
    kept = np.load(tmp_path / "run" / "stages" / "tokens" / f"{baseline_task.spec.tokens}.npy")
    expected = generate_autoregressive(
        load_autoregressive(baseline / "autoregressive"), torch.arange(12) % 10, seed=3
    )
    assert np.array_equal(kept, expected.numpy())
    assert set(computer.compute(parallel_task).metrics) == {"fid", "is", "nll"}


def test_what_the_baseline_does_not_use_is_not_in_its_tokens_key(baseline):
    from dataclasses import replace

    (cell,) = autoregressive_cells("e", "embedded", num_tokens=64, seeds=[0], num_samples=12)
    first, second, third = tasks(
        [cell, replace(cell, choice_temperature=4.5), replace(cell, sampling_temperature=0.9)],
        baseline,
    )
    assert first.spec.tokens == second.spec.tokens != third.spec.tokens
    assert first.key != second.key


def test_a_folder_without_the_baseline_is_one_line(weights):
    from maskgit.common.errors import UsageError as Missing

    cells = autoregressive_cells("e", "embedded", num_tokens=64, seeds=[0], num_samples=2)
    with pytest.raises(Missing, match="autoregressive") as caught:
        resolve(cells, ["fid"], weights=weights)
    assert "\n" not in str(caught.value)


# ---- bfloat16 ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "value"), [("precision", "bfloat16"), ("mode", "graphs")])
def test_other_roundings_are_other_tokens_of_the_same_likelihood(weights, name, value):
    first, second = tasks([usual(), usual(**{name: value})], weights)
    assert first.spec.tokens != second.spec.tokens
    assert first.spec.likelihood == second.spec.likelihood
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


def test_a_study_refuses_what_it_would_ignore(tmp_path):
    from experiments.panorama import Options, run

    for change in ({"precision": "bfloat16"}, {"backend": "jax"}, {"mode": "graphs"}):
        with pytest.raises(UsageError, match=r"takes (float32|torch|eager) only"):
            run(Options(out=tmp_path / "out", **change))
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
    assert len(list((tmp_path / "run/stages/tokens").glob("*.npy"))) == 4 + 1  # and the held-out
    for schedule in ("cosine", "linear"):
        torch_result, jax_result = cells[schedule, "torch"], cells[schedule, "jax"]
        cell = Cell(**jax_result["cell"])
        request = resolve([cell], ["fid"], weights=weights)
        ours = np.load(
            tmp_path / "run/stages/tokens" / f"{make_task(request, cell).spec.tokens}.npy"
        )
        cell = Cell(**torch_result["cell"])
        theirs = np.load(
            tmp_path / "run/stages/tokens" / f"{make_task(request, cell).spec.tokens}.npy"
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
