"""Figure 4: the speed-up is that of the medians, and no two cells run at a time."""

import csv

import pytest

from experiments.engine import command
from experiments.studies.runtime.compute import interleaved_medians
from experiments.studies.runtime.experiment import Options, build
from tests.experiments.studies.table_doubles import results, value


def test_speed_up_is_of_the_medians_it_prints(weights, tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.studies.runtime.compute.MATRIX", 64)
    options = Options(
        tokens="4,16", T="1,2", batch_sizes="2", rounds=1, out=tmp_path, weights=weights, workers=0
    )
    assert command.run("runtime", options) == 0
    for result in results(tmp_path):
        for T in (1, 2):
            slow, fast = (
                value(result, f"{n}_seconds{e}")
                for n, e in (("autoregressive", ""), ("maskgit", f"_T{T}"))
            )
            assert value(result, f"speedup_T{T}") == pytest.approx(slow / fast, rel=1e-12)
    with open(tmp_path / "report" / "runtime.csv", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            ratio = float(row["autoregressive_seconds"]) / float(row["maskgit_seconds_T1"])
            assert float(row["speedup_T1"]) == pytest.approx(ratio, rel=0.02)


def test_workers_are_never_more_than_one(weights, tmp_path):
    built = build(Options(out=tmp_path, weights=weights))
    assert [built.workers(count) for count in (None, 0, 1, 7)] == [1, 0, 1, 1]


def test_the_first_round_is_not_counted(monkeypatch):
    import torch

    clock = iter([100.0, 0.0, 1.0, 0.0, 3.0, 0.0, 8.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    assert interleaved_medians({"x": lambda: None}, 3, torch.device("cpu")) == {"x": 3.0}
