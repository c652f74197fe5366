"""reproduce.py: goes on after a failure, says what did not run, and shares its folders."""

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest

from experiments.engine import command
from experiments.studies import reproduce
from experiments.studies.registry import EXPERIMENTS
from experiments.studies.reproduce import arguments
from maskgit.common.errors import UsageError


@dataclass(frozen=True)
class Fake:
    preset: str = ""
    out: Path | None = None
    stages: Path | None = None
    seeds: str = ""
    quick: bool = False


Options = Fake  # this module stands in for every experiment's


def write_report(options):
    from reports.not_run import write_page

    write_page(options.out / "report", {f"a report of {options.out.name}": "this is a fake"})
    return 0


@pytest.fixture
def fakes(monkeypatch):
    seen = {}

    def fail(options):
        raise RuntimeError("no luck")

    def run(name, options):
        seen[name] = options
        return {"editing": fail, "runtime": lambda options: 1}.get(name, write_report)(options)

    for name, experiment in EXPERIMENTS.items():
        module = "experiments.gone" if name == "panorama" else __name__
        monkeypatch.setitem(EXPERIMENTS, name, replace(experiment, module=module))
    monkeypatch.setattr(command, "run", run)
    return seen


def test_it_goes_on_after_failures_and_the_index_says_why(fakes, tmp_path, capsys):
    names = "class_conditional,editing,runtime,panorama,decoding_trace"
    options = reproduce.Options(quick=True, only=names, out=tmp_path)
    assert reproduce.run(options) == 1
    said = capsys.readouterr()
    assert "3 of 5 failed: runtime, editing, panorama" in said.err
    assert "class_conditional (Table 1, Figures 5 and 11 to 13): done" in said.out
    index = (tmp_path / "report" / "index.md").read_text(encoding="utf-8")
    assert "RuntimeError: no luck" in index
    assert "left out with --only" in index
    assert "ended with exit code 1" in index
    assert "no module experiments.gone" in index
    assert "Table 2" in (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    rows = json.loads((tmp_path / "not_run" / "summary.json").read_text(encoding="utf-8"))["rows"]
    assert len(rows) == len(EXPERIMENTS) - 2
    assert {r["verdict"] for r in rows} == {"not run"}


def test_one_folder_of_stages_serves_all(fakes, tmp_path):
    options = reproduce.Options(only="class_conditional,decoding_trace", out=tmp_path, seeds="4,5")
    assert reproduce.run(options) == 0
    assert {o.stages for o in fakes.values()} == {tmp_path}
    assert {o.out for o in fakes.values()} == {tmp_path / name for name in fakes}
    assert (fakes["class_conditional"].seeds, fakes["decoding_trace"].seeds) == ("4,5", "4")


@pytest.mark.parametrize("quick", [False, True])
def test_numbers_of_samples_go_to_those_that_take_them(quick, tmp_path):
    known = ["num_samples", "cas_samples", "out"]
    options = reproduce.Options(quick=quick, num_samples=70, cas_samples=0)
    values = arguments(options, "ablate_schedule", tmp_path, known)
    assert values == {"num_samples": 70, "cas_samples": 0, "out": tmp_path / "ablate_schedule"}
    assert "num_samples" not in arguments(options, "runtime", tmp_path, known[1:])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"num_samples": 7}, "--num-samples 7: expected a multiple of the 10 classes"),
        ({"num_samples": 0}, "--num-samples 0: expected a multiple"),
        ({"cas_samples": -3}, "--cas-samples -3: must be 0 or more"),
    ],
)
def test_impossible_numbers_are_refused_before_the_first_experiment(fakes, tmp_path, change, says):
    with pytest.raises(UsageError, match=says):
        reproduce.run(reproduce.Options(out=tmp_path / "out", **change))
    assert not fakes
    assert not (tmp_path / "out").exists()


def test_every_experiment_takes_its_arguments(tmp_path):
    for quick in (False, True):
        for name, experiment in EXPERIMENTS.items():
            known = [item.name for item in fields(experiment.options)]
            values = arguments(reproduce.Options(quick=quick), name, tmp_path, known)
            assert set(experiment.quick if quick else experiment.full) <= set(values)
            experiment.options(**values).check()


def test_the_budgets_leave_room_below_a_quarter_of_an_hour():
    assert sum(experiment.minutes for experiment in EXPERIMENTS.values()) < 15
