"""`ablate_schedule.py` as a user meets it: results, resume, and one line for every mistake.

The networks have the embedded benchmark's interfaces, are a few numbers wide and untrained: what is
tested is the way from flags to report, not the numbers. Most tests run in this process, because a
process that imports torch takes seconds to start.
"""

import json
import os
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from experiments import ablate_schedule
from experiments.studies.ablate_schedule.experiment import Options
from tests.experiments.grids import keys_of

SCRIPT = Path(ablate_schedule.__file__)
GRID = ("--T", "2,4", "--schedules", "cosine,linear", "--num-samples", "21")


def results(folder):
    files = [folder / "grid.json", *folder.glob("cells/*/result.json")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def tokens(folder):
    return {
        path.parent.name: path.read_bytes() for path in folder.glob("stages/tokens/*/00000.npy")
    }


def report(folder):
    return {path.name: path.read_bytes() for path in (folder / "report").iterdir()}


def never(*_, **__):
    raise AssertionError("this stage was to be served from its file")


# ---- results -------------------------------------------------------------------------------------


def test_a_grid_from_flags_to_report_and_the_same_command_again(run, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    code, out, err = run(*GRID)
    assert code == 0, err
    assert out == f"{folder / 'report' / 'report.md'}\n"
    assert "4/4 cells: 4 done, 0 cached, 0 failed" in err.splitlines()[-1]
    grid = json.loads((folder / "grid.json").read_text())
    assert [(c["cell"]["schedule"], c["cell"]["steps"]) for c in grid["cells"]] == [
        ("cosine", 2), ("cosine", 4), ("linear", 2), ("linear", 4)
    ]  # fmt: skip
    assert grid["models"] == {"cosine": {"name": "cosine"}, "linear": {"name": "linear"}}
    assert str(tmp_path) not in json.dumps(grid)
    for item in grid["cells"]:
        cell = folder / "cells" / item["key"]
        result = json.loads((cell / "result.json").read_text())
        assert result["cell"] == item["cell"]
        assert result["missing"] == {}
        assert set(result["metrics"]) == {"fid", "is", "precision", "recall", "kid", "nll"}
        assert result["metrics"]["nll"]["value"] == pytest.approx(np.log(523), abs=0.2)  # untrained
        with np.load(cell / "samples.npz") as samples:
            assert samples["images"].shape == (20, 32, 32, 1)
            assert samples["images"].dtype == np.uint8
            assert samples["labels"].tolist() == [i % 10 for i in range(20)]
        assert not (cell / "lease").exists()

    before, page = results(folder), report(folder)
    for stage in ("sampling.draw", "imaging.decode_batches", "worker.measure"):
        monkeypatch.setattr(f"experiments.sampler.{stage}", never)
    code, out, err = run(*GRID)
    assert code == 0, err
    assert "0 done, 4 cached" in err.splitlines()[-1]
    assert results(folder) == before
    assert report(folder) == page
    code, out, _ = run("--only-report")
    assert (code, out) == (0, f"{folder / 'report' / 'report.md'}\n")
    assert report(folder) == page


def test_neither_batch_size_nor_workers_nor_folder_change_a_token_or_a_key(run, tmp_path):
    outs = []
    for size, workers in ((1, 0), (7, 2), (64, 0)):
        out = tmp_path / f"{size}-{workers}"
        flags = ("--T", "3", "--schedules", "cosine,linear", "--num-samples", "13")
        code, _, err = run(
            *flags, "--metrics", "fid", "--batch-size", size, "--workers", workers, out=out
        )
        assert code == 0, err
        outs.append(out)
    assert tokens(outs[0]) == tokens(outs[1]) == tokens(outs[2])
    assert results(outs[0]) == results(outs[1]) == results(outs[2])
    assert len(tokens(outs[0])) == 2


def test_a_new_metric_samples_nothing_again(run, tmp_path, monkeypatch):
    flags = ("--T", "2", "--schedules", "cosine", "--num-samples", "12")
    assert run(*flags, "--metrics", "fid")[0] == 0
    monkeypatch.setattr("experiments.sampler.sampling.draw", never)
    monkeypatch.setattr("eval.features.registry.Extractor.extract", never)
    code, _, err = run(*flags, "--metrics", "precision,is,nll")
    assert code == 0, err
    assert "1 done" in err.splitlines()[-1]
    found = [json.loads(path.read_text()) for path in tmp_path.glob("run/cells/*/result.json")]
    assert sorted(tuple(sorted(result["metrics"])) for result in found) == [
        ("fid",), ("is", "nll", "precision")
    ]  # fmt: skip


def test_own_weights_may_be_of_any_schedule(run, tmp_path, weights):
    own = shutil.copytree(weights, tmp_path / "own")
    shutil.copytree(own / "transformer-cosine", own / "transformer-pow1.5")
    flags = ("--T", "2", "--num-samples", "20", "--weights", own, "--schedules")
    assert run(*flags, "pow1.5")[0] == 0
    grid = json.loads((tmp_path / "run" / "grid.json").read_text())
    assert [entry["cell"]["schedule"] for entry in grid["cells"]] == ["pow1.5"]
    code, _, err = run(*flags, "pow1.5,powder")
    assert (code, err.count("\n")) == (2, 1)
    assert "powder" in err


def test_too_few_samples_for_a_metric_are_said_and_not_an_error(run, tmp_path):
    code, _, err = run("--T", "2", "--schedules", "cosine", "--num-samples", "1")
    assert code == 0, err
    result = json.loads(next(tmp_path.glob("run/cells/*/result.json")).read_text())
    assert set(result["metrics"]) == {"is", "nll"}  # one sample scores 1, whatever it is
    assert result["metrics"]["is"]["value"] == pytest.approx(1.0)
    assert set(result["missing"]) == {"fid", "precision", "recall", "kid"}
    assert all(reason and "\n" not in reason for reason in result["missing"].values())


def test_keys_follow_the_networks_that_a_stage_needs(weights, tmp_path):
    from maskgit.checkpoints import load_tokenizer, save_model

    def task(folder):
        return keys_of(Options(weights=folder, T="4", schedules="cosine", metrics="fid,nll"))

    before = task(weights)
    moved = tmp_path / "moved"
    shutil.copytree(weights, moved)
    assert task(moved) == before

    tokenizer = load_tokenizer(moved / "tokenizer")
    tokenizer.quantizer.codebook.data[0, 0] += 1
    save_model(moved / "tokenizer", tokenizer)
    other = task(moved)
    assert other.tokens == before.tokens  # sampling needs no tokenizer
    assert other.features != before.features
    assert other.likelihood != before.likelihood
    assert other.key != before.key

    config = moved / "transformer-cosine" / "config.json"
    sizes = json.loads(config.read_text())
    sizes["config"]["heads"] = 4  # the same weights, another network
    config.write_text(json.dumps(sizes))
    assert task(moved).tokens != before.tokens


def test_a_dry_run_counts_measures_and_writes_nothing(run, tmp_path):
    code, out, err = run(*GRID, "--dry-run")
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0] == "4 cells: 0 cached, 4 to do"
    assert lines[1].startswith(f"{21 * (2 + 4) * 2} transformer forwards")
    assert re.match("about [0-9]:[0-9]{2} with 0 workers", lines[2])
    assert not (tmp_path / "run").exists()
    assert run("--T", "2", *GRID[2:])[0] == 0
    lines = run(*GRID, "--dry-run")[1].splitlines()
    assert lines[0] == "4 cells: 2 cached, 2 to do"
    assert lines[1].startswith(f"{21 * 4 * 2} transformer forwards")


# ---- faults --------------------------------------------------------------------------------------


def test_a_failed_cell_is_one_line_exit_1_and_in_the_report(run, tmp_path, monkeypatch):
    from experiments.sampler import sampling

    real = sampling.draw

    def moody(transformer, cell, labels, **more):
        if (cell.schedule, cell.steps) == ("linear", 4):
            raise RuntimeError("not\ntoday")
        return real(transformer, cell, labels, **more)

    monkeypatch.setattr(sampling, "draw", moody)
    code, out, err = run(*GRID)
    assert code == 1
    assert out.endswith("report.md\n")
    lines = [line for line in err.splitlines() if line.startswith("failed:")]
    assert len(lines) == 1
    assert "schedule=linear steps=4" in lines[0]
    assert lines[0].endswith("RuntimeError: not today")
    assert "run the same command again" in err.splitlines()[-1]
    assert "not today" in Path(out.strip()).read_text()
    monkeypatch.undo()
    monkeypatch.setattr("experiments.sampler.held_out.NLL_IMAGES", 20)
    code, _, err = run(*GRID)
    assert code == 0
    assert "1 done, 3 cached" in err.splitlines()[-1]
    assert not list(tmp_path.rglob("failure.json"))


def test_a_tampered_result_is_computed_again_with_one_line_of_warning(run, tmp_path):
    assert run(*GRID)[0] == 0
    before = results(tmp_path / "run")
    path = next(tmp_path.glob("run/cells/*/result.json"))
    result = json.loads(path.read_text())
    result["metrics"]["fid"]["value"] = 0.0
    path.write_text(json.dumps(result))
    code, _, err = run(*GRID)
    assert code == 0
    warnings = [line for line in err.splitlines() if "warning" in line]
    assert len(warnings) == 1
    assert str(path) in warnings[0]
    assert "1 done, 3 cached" in err.splitlines()[-1]
    assert results(tmp_path / "run") == before


def test_ctrl_c_says_how_to_go_on(run, tmp_path, monkeypatch):
    from experiments.sampler import sampling

    real = sampling.draw

    def interrupted(transformer, cell, labels, **more):
        os.kill(os.getpid(), signal.SIGINT)
        return real(transformer, cell, labels, **more)

    monkeypatch.setattr(sampling, "draw", interrupted)
    code, out, err = run(*GRID)
    assert (code, out) == (130, "")
    assert err.splitlines()[-1] == "ended by SIGINT; run the same command again to go on"
    assert not list(tmp_path.rglob("lease"))
