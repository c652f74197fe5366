"""What the benchmarks share: result files, tables, verdicts, processes, arguments."""

import argparse
import json
import subprocess
import sys

import pytest

from benchmarks import runner
from maskgit.common.errors import RunError, UsageError
from tests.paths import ROOT


def test_a_result_file_keeps_other_rows_and_replaces_one_of_the_same_name(tmp_path):
    out = tmp_path / "deep" / "result.json"
    first = runner.Results("x", "cpu", out)
    first.add({"name": "a", "value": 1})
    first.add({"name": "b", "value": 2})
    second = runner.Results("x", "cpu", out)
    second.add({"name": "a", "value": 3})
    content = json.loads(out.read_text())
    assert [(row["name"], row["value"]) for row in content["rows"]] == [("a", 3), ("b", 2)]
    assert content["machine"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert [path.name for path in out.parent.iterdir()] == ["result.json"]


def test_a_result_file_of_another_machine_is_begun_anew(tmp_path, capsys):
    out = tmp_path / "result.json"
    out.write_text(json.dumps({"machine": {"processor": "abacus"}, "rows": [{"name": "old"}]}))
    results = runner.Results("x", "cpu", out)
    results.add({"name": "new"})
    assert [row["name"] for row in json.loads(out.read_text())["rows"]] == ["new"]
    assert "another machine" in capsys.readouterr().err


def test_a_file_that_is_no_result_is_left_alone(tmp_path):
    out = tmp_path / "notes.json"
    out.write_text("dear diary")
    with pytest.raises(UsageError, match=f"^--out {out}"):
        runner.Results("x", "cpu", out)
    assert out.read_text() == "dear diary"


def test_turns_alternate_their_order():
    order = []
    found = runner.take_turns(
        {name: lambda name=name: order.append(name) or float(len(order)) for name in "ab"}, 3
    )
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert found == {"a": [1.0, 4.0, 5.0], "b": [2.0, 3.0, 6.0]}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.12345, "0.123"),
        (12.345, "12.3"),
        (1234.5, "1,234"),
        (172457193, "172,457,193"),
        (0.0, "0"),
    ],
)
def test_numbers_are_shown_with_three_digits(value, text):
    assert runner.shown(value) == text


def test_verdicts_say_met_or_missed():
    assert runner.verdict("x", 0.8, 0.8) == "x: 0.8 (at least 0.8: met)"
    assert runner.verdict("x", 0.79, 0.8).endswith("missed)")
    assert runner.verdict("x", 4.9, 5, at_most=True) == "x: 4.9 (at most 5: met)"
    assert runner.verdict("x", 5.1, 5, at_most=True).endswith("missed)")


def test_a_killed_process_is_told_by_its_signal():
    with pytest.raises(RunError, match="killed by SIGILL"):
        runner.in_fresh_process(["-c", "import os, signal; os.kill(os.getpid(), signal.SIGILL)"])


def test_a_failed_process_is_told_by_its_last_line():
    with pytest.raises(RunError, match=r"^no such thing$"):
        runner.in_fresh_process(["-c", "import sys; sys.exit('error: no such thing')"])


def test_advice_after_an_exception_is_not_the_reason():
    said = "Traceback ...\n  File ...\na.b.CompileError: no header\n\nSet DEBUG=1 for more\n"
    assert runner.reason_of(said) == "a.b.CompileError: no header"


def test_a_fresh_process_has_the_given_environment():
    code = "import json, os; print('noise'); print(json.dumps(os.environ['BENCH']))"
    assert runner.in_fresh_process(["-c", code], environment={"BENCH": "1"}) == "1"


def test_peak_memory_is_the_processs_own_and_grows_with_what_it_holds():
    code = "from benchmarks.runner import peak_mib\nx = b'1' * {size}; del x; print(peak_mib())"
    small, large = (
        runner.in_fresh_process(
            ["-c", code.format(size=size)], environment={"PYTHONPATH": str(ROOT)}
        )
        for size in (2**20, 2**26)
    )
    # 63 MiB more; and nothing of this process, which holds hundreds.
    assert 60 < large - small < 68
    assert small < 60


@pytest.mark.parametrize("text", ["0", "-1", "2.5", "", "x", "1,,2", "٣"])
def test_lists_of_numbers_refuse_what_is_none(text):
    with pytest.raises(argparse.ArgumentTypeError):
        runner.numbers(text)


@pytest.mark.parametrize(
    ("script", "words", "named"),
    [
        ("sampling", ["--T", "0"], "--T"),
        ("sampling", ["--sizes", "huge"], "--sizes"),
        ("sampling", ["--precision", "int3"], "--precision"),
        ("sampling", ["--device", "cuda"], "--device"),
        ("training", ["--stages", "third"], "--stages"),
        ("training", ["--device", "tpu"], "--device"),
        ("grid", ["--runs", "x"], "--runs"),
        ("precision", ["--samples", "none"], "--samples"),
        ("peers", [], "--peer-path"),
        ("peers", ["--peer-path", "/nowhere"], "--peer-path /nowhere"),
        ("peers", ["--muse-path", "/nowhere"], "--muse-path /nowhere"),
        ("summary", ["--docs", "/nowhere/x.md"], "--docs"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(script, words, named):
    import torch

    if words == ["--device", "cuda"] and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    command = [sys.executable, str(ROOT / "benchmarks" / f"{script}.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    assert named in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    "script", ["sampling", "training", "grid", "peers", "precision", "summary"]
)
def test_help_imports_nothing_heavy(script):
    code = f"""
import runpy, sys
sys.argv = ["x", "--help"]
try:
    runpy.run_path({str(ROOT / "benchmarks" / f"{script}.py")!r}, run_name="__main__")
except SystemExit:
    pass
heavy = set("torch jax matplotlib pandas scipy numpy".split()) & set(sys.modules)
sys.exit(f"imported {{sorted(heavy)}}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout.lower()
