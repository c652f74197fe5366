"""A run folder is data to a report: nothing of it is embedded, followed or believed unchecked."""

import base64
import io
import json
import os

import numpy as np
import pytest
from PIL import Image

from reports.build import build
from reports.load import load_run
from tests.faults.abuse import damaged, fault, report, strange_json
from tests.reports.study_run import editing_run, panorama_run, trace_run
from tests.reports.synthetic_run import checksum, write_run

SECRET = "the-secret-of-this-machine"


@pytest.fixture
def run(tmp_path):
    """A small run, and a file beside it that is nobody's business."""
    (tmp_path / "secret.txt").write_text(SECRET)
    (tmp_path / "secret.png").write_bytes(picture())
    return write_run(tmp_path / "run", ["cosine", "linear"], [4, 8, 12], [0, 1])


def picture():
    buffer = io.BytesIO()
    Image.fromarray(np.full((5, 7), 77, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def rewrite(path, change):
    content = json.loads(path.read_text())
    change(content)
    if "checksum" in content:
        content["checksum"] = checksum(content)
    path.write_text(json.dumps(content))


def cells(run):
    return sorted((run / "cells").iterdir())


LINKS = [
    "![p](../../secret.png)",
    "![p](../../secret.txt)",
    "[p](../../secret.png)",
    "![p](<../../secret.txt>)",
    '![p](../../secret.txt "title")',
    "![p][x]\n\n[x]: ../../secret.txt\n",
    "|![p](../../secret.txt)|",
    "`x` ![p](../../secret.txt) `",
]


def inject(run, where, text):
    """Put a text into one of the places of a run folder that a report shows."""
    if where == "card":

        def change(grid):
            for model in grid["models"].values():
                model["name"] = model["data"] = model["command"] = text

        rewrite(run / "grid.json", change)
    elif where == "class":
        rewrite(run / "grid.json", lambda grid: grid["protocol"].update(class_names=[text] * 10))
    elif where == "protocol":

        def name(grid):
            grid["protocol"].update(features=text, reference=text, missing={text: text})

        rewrite(run / "grid.json", name)
    elif where == "preset":
        rewrite(run / "grid.json", lambda grid: grid.update(preset=text, command=text))
    elif where == "missing":
        for cell in cells(run)[:2]:
            rewrite(cell / "result.json", lambda result: result["missing"].update(kid=text))
            rewrite(cell / "result.json", lambda result: result["metrics"].pop("kid", None))
    else:
        cell = cells(run)[0]
        (cell / "result.json").unlink()
        failure = {"error": text, "traceback": text, "attempts": 1}
        (cell / "failure.json").write_text(json.dumps(failure))


@pytest.mark.parametrize("text", LINKS)
def test_no_text_of_a_run_embeds_a_file(run, tmp_path, text):
    for path in (run / "cells").glob("*/samples.npz"):
        path.unlink()
    for where in ("card", "class", "protocol", "preset", "missing", "error"):
        inject(run, where, text)
    build(run, run / "report")
    page = (run / "report" / "report.html").read_bytes()
    for name in ("secret.txt", "secret.png"):
        held = base64.b64encode((tmp_path / name).read_bytes()).rstrip(b"=")[:-2]
        assert held not in page


def test_html_of_a_run_is_text(run):
    script = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    for where in ("card", "class", "protocol", "preset", "error"):
        inject(run, where, script)
    build(run, run / "report")
    page = (run / "report" / "report.html").read_text()
    assert "alert(1)</script>" not in page
    assert "<img src=x" not in page


def test_latex_of_a_run_is_text(run):
    inject(run, "card", r"\input{/etc/hostname}")
    inject(run, "error", r"\input{/etc/hostname}")
    build(run, run / "report")
    for path in (run / "report").glob("*.tex"):
        assert r"\input{" not in path.read_text()


# Cells whose files are damaged, missing or of another kind.


@pytest.mark.parametrize("make", [editing_run, panorama_run, trace_run])
def test_damaged_samples_end_no_report_of_a_study(tmp_path, make):
    run = make(tmp_path / "run")
    paths = sorted((run / "cells").glob("*/samples.npz"))
    wholes = {path: path.read_bytes() for path in paths}
    wrong, tried = {}, 0
    for seed in range(6):
        for path, whole in wholes.items():
            cases = dict(damaged(whole, 8, seed))
            name = list(cases)[seed % len(cases)]
            path.write_bytes(cases[name] if seed else b"")
        tried += 1
        if what := fault(lambda: build(run, tmp_path / "out"), seconds=60, memory=64 << 30):
            wrong[str(seed)] = what
    report(wrong, tried)


@pytest.mark.parametrize("how", ["empty", "flipped"])
def test_damaged_samples_end_no_report_of_the_schedules(run, how):
    for path in sorted((run / "cells").glob("*/samples.npz")):
        held = bytearray(path.read_bytes())
        for place in range(200, len(held) - 200, 50):
            held[place] ^= 255
        path.write_bytes(held if how == "flipped" else b"")
    call = lambda: build(run, run / "report")  # noqa: E731
    assert fault(call, seconds=60, memory=64 << 30) == ""


@pytest.mark.parametrize("kind", ["dangling", "directory", "loop", "list", "fifo", "deep"])
def test_a_strange_result_is_a_missing_cell(run, kind):
    path = cells(run)[0] / "result.json"
    path.unlink()
    if kind == "dangling":
        path.symlink_to("nowhere")
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "deep":
        path.write_text('{"a":' * 100_000)
    else:
        path.write_text("[]")
    found = []
    assert fault(lambda: found.append(load_run(run)), (), seconds=3) == ""
    assert [entry.status for entry in found[0].entries].count("done") == len(cells(run)) - 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["grid.json", "result.json"])
def test_strange_files_of_a_run_are_refused_or_reported(run, tmp_path, name):
    for path in (run / "cells").glob("*/samples.npz"):
        path.unlink()
    path = run / name if name == "grid.json" else cells(run)[0] / name
    whole = json.loads(path.read_text())
    cases = [*strange_json(whole, 80, seed=1), *damaged(path.read_bytes(), 16)]
    wrong = {}
    for number, (case, content) in enumerate(cases):
        if name == "result.json":
            try:
                changed = json.loads(content)
                content = json.dumps(changed | {"checksum": checksum(changed)}).encode()
            except (ValueError, TypeError, AttributeError, RecursionError):
                pass
        path.write_bytes(content)
        if what := fault(lambda: load_run(run)):
            wrong[case] = what
        elif number % 8 == 0:  # a whole report takes seconds
            call = lambda: build(run, tmp_path / "out")  # noqa: E731
            if what := fault(call, seconds=30, memory=64 << 30):
                wrong[case] = what
    report(wrong, len(cases))
