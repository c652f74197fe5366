"""The grammar of --T and of lists of names, and grid.json."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.engine.cells import Task
from experiments.engine.grid import (
    grid_json,
    parse_integers,
    parse_names,
    write_grid,
)
from experiments.engine.options import command
from experiments.studies.ablate_schedule.experiment import Options
from maskgit.common.errors import UsageError
from tests.experiments.grids import build

SCHEDULES = ("exponential", "cosine", "linear")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("8", [8]),
        ("8,10,12", [8, 10, 12]),
        ("12, 10 ,8,8", [8, 10, 12]),
        ("4..7", [4, 5, 6, 7]),
        ("4..60:4", list(range(4, 61, 4))),
        ("4..11:4", [4, 8]),
        ("5..5", [5]),
        ("1,4..6,8..12:2", [1, 4, 5, 6, 8, 10, 12]),
    ],
)
def test_integers(text, values):
    assert parse_integers(text, "--T", 1) == values


@given(
    st.lists(
        st.tuples(st.integers(1, 200), st.integers(0, 50), st.integers(1, 9)),
        min_size=1,
        max_size=5,
    )
)
def test_a_mixture_of_ranges_is_the_sorted_union(items):
    text = ",".join(f"{first}..{first + more}:{stride}" for first, more, stride in items)
    union = {n for first, more, stride in items for n in range(first, first + more + 1, stride)}
    assert parse_integers(text, "--T", 1) == sorted(union)


@given(st.text(max_size=12))
def test_any_text_gives_values_or_one_line_that_names_the_flag(text):
    problem, values = "", [1]
    try:
        values = parse_integers(text, "--T", 1, 240)
    except UsageError as error:
        problem = str(error)
    assert values == sorted(set(values))
    assert 1 <= values[0] <= values[-1] <= 240
    assert problem.startswith("--T") or not problem


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "form"),
        ("x", "'x'"),
        ("0", "at least 1"),
        ("9..4", "goes down; write 4..9"),
        ("4..60:0", "stride"),
        ("4..", "form"),
        ("..4", "form"),
        ("4,,5", "''"),
        ("-3", "'-3'"),
        ("4.5", "form"),
        ("4..300", "at most 240"),
        ("٤", "form"),  # a digit to Python, not to us
        ("4:2", "form"),
    ],
)
def test_wrong_integers_are_named(text, says):
    with pytest.raises(UsageError, match="--T") as caught:
        parse_integers(text, "--T", 1, 240)
    assert says in str(caught.value)


def test_a_range_by_mistake_does_not_fill_the_memory():
    with pytest.raises(UsageError, match="too many"):
        parse_integers("0..999999999999", "--seeds")


def test_names_come_once_in_the_order_of_the_registry():
    assert parse_names("linear,cosine,linear", "--schedules", SCHEDULES) == ["cosine", "linear"]
    assert parse_names("all", "--schedules", SCHEDULES) == list(SCHEDULES)


@pytest.mark.parametrize("text", ["cosin", "cosine,", "", "cosine linear", "Cosine"])
def test_wrong_names_are_named_with_what_there_is(text):
    with pytest.raises(UsageError, match="--schedules") as caught:
        parse_names(text, "--schedules", SCHEDULES)
    assert "exponential, cosine, linear" in str(caught.value)


def test_a_near_name_is_suggested():
    with pytest.raises(UsageError, match="did you mean cosine"):
        parse_names("cosin", "--schedules", SCHEDULES)


def test_the_default_grid_of_the_paper_has_399_cells():
    built = build(Options())
    assert len(built.tasks) == len({task.key for task in built.tasks}) == 399
    assert built.tasks[0].cell["schedule"] == "exponential"
    assert [task.cell["steps"] for task in built.tasks[:2]] == [4, 5]


def test_the_command_says_what_differs_from_the_defaults(tmp_path):
    options = Options(
        T="8,12", seeds="0,1,2", weights=tmp_path, out=tmp_path, workers=2, precision="bfloat16"
    )
    assert command("ablate_schedule", options) == (
        "python experiments/ablate_schedule.py --weights FOLDER --precision bfloat16 "
        "--seeds 0,1,2 --T 8,12"
    )
    assert command("ablate_schedule", Options(data=Path("my data"))).endswith("--data 'my data'")
    assert command("ablate_schedule", Options()) == "python experiments/ablate_schedule.py"


def test_the_same_request_gives_the_same_bytes(tmp_path):
    task = Task("k", {"b": 1, "a": 2})
    again = Task("k", {"a": 2, "b": 1}, cost=9.0)
    texts = []
    for item, protocol in ((task, {"y": 1, "x": 2}), (again, {"x": 2, "y": 1})):
        write_grid(tmp_path, grid_json("e", "p", [item], protocol, {"m": {"s": 1}}))
        texts.append((tmp_path / "grid.json").read_bytes())
    assert texts[0] == texts[1]
    grid = json.loads(texts[0])
    assert grid["cells"] == [{"key": "k", "cell": {"a": 2, "b": 1}}]
    assert set(grid) == {
        *("schema", "experiment", "preset", "cells", "protocol", "models", "metrics", "command")
    }
