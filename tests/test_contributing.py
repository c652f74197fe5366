"""CONTRIBUTING.md followed to the letter, in a copy of the repository."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT

PAGE = (ROOT / "CONTRIBUTING.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S))
FENCE = re.compile(r"^(?P<before>[^\n]+)\n\n```(?P<kind>\w*)\n(?P<body>.*?)^```$", re.M | re.S)
WRITE = re.compile(r"Write `([^`]+)`:$")
PLACE = re.compile(r"In `([^`]+)`, (after|instead of) the line `([^`]+)`:$")


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """All files that git knows, as a folder of its own."""
    folder = tmp_path_factory.mktemp("repository") / "copy"
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
    ).stdout
    for name in filter(None, names.split("\0")):
        if not name.startswith(("reports/published/", "benchmarks/results/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def put(path: Path, body: str, how: str, line: str) -> None:
    """Put a block after a line of a file, or in its place; the line must stand there once."""
    lines = path.read_text().splitlines(keepends=True)
    found = [i for i, text in enumerate(lines) if text.strip() == line]
    assert len(found) == 1, f"{path}: {line!r} stands there {len(found)} times"
    place = found[0] + 1
    lines[place - (how == "instead of") : place] = body.splitlines(keepends=True)
    path.write_text("".join(lines))


def follow(section: str, folder: Path) -> int:
    """Do what a section says; returns how many commands ran."""
    ran = 0
    for match in FENCE.finditer(section):
        before, body = match["before"], match["body"]
        if write := WRITE.search(before):
            path = folder / write[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            assert not path.exists(), f"{path} is there already"
            path.write_text(body)
        elif place := PLACE.search(before):
            put(folder / place[1], body, place[2], place[3])
        elif match["kind"] == "sh":
            assert before.endswith("Run:"), before
            for command in body.splitlines():
                run(command, folder)
                ran += 1
        else:
            raise AssertionError(f"what is to be done with the block after {before!r}?")
    return ran


def run(command: str, folder: Path) -> None:
    words = command.split()
    if "grep" not in words[0]:
        words = [sys.executable if word == "python" else word for word in words]
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, env=clean(folder))
    else:
        done = subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def clean(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
@pytest.mark.parametrize("name", SECTIONS)
def test_the_page_can_be_followed(name, copy):
    assert follow(SECTIONS[name], copy) > 0


@pytest.mark.slow
def test_what_was_added_keeps_the_rules_of_the_house(copy):
    """After all sections: the architecture, the style, and the names in sight of a user."""
    checks = [
        "python -m pytest -q tests/test_architecture.py",
        "python -m ruff check .",
        "python -m ruff format --check .",
    ]
    for command in checks:
        run(command, copy)
