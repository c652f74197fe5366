"""The arrows of the design: which package may import which, and what a file may hold."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "maskgit": set(),
    "eval": set(),
    "reports": set(),
    "slurm": {"experiments"},  # the engine only, and only when a job runs
    "experiments": {"maskgit", "eval", "reports", "slurm"},
}
COMMON = "maskgit.common"
SOURCES = sorted(p for name in ALLOWED for p in (ROOT / name).rglob("*.py"))


def imported_modules(path):
    """Absolute names a file imports anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_arrows(path):
    package = path.relative_to(ROOT).parts[0]
    for name in imported_modules(path):
        top = name.split(".")[0]
        assert top, f"{path}: relative import; write the absolute name"
        below = name == COMMON or name.startswith(f"{COMMON}.")
        if top in ALLOWED and top != package and not below:
            assert top in ALLOWED[package], f"{path} imports {name}"
        if COMMON.replace(".", "/") in path.as_posix():
            assert top not in ALLOWED or below, f"{path} lies below all and imports {name}"
        if package == "slurm" and top == "experiments":
            assert name.startswith("experiments.engine"), f"{path} imports {name}"


def test_files_are_one_idea_long():
    long = {p.name: n for p in SOURCES if (n := len(p.read_text().splitlines())) > 400}
    assert not long
    scripts = [p for p in (ROOT / "experiments").glob("*.py") if p.name != "__init__.py"]
    assert scripts
    assert not {p.name for p in scripts if len(p.read_text().splitlines()) > 80}


def test_no_bare_import_of_eval():
    """`import eval` would shadow the builtin of that name."""
    for path in SOURCES:
        names = [
            n.name
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import)
            for n in node.names
        ]
        assert "eval" not in names, path


@pytest.mark.parametrize(
    "module",
    [
        "maskgit",
        "maskgit.checkpoints",
        "maskgit.training",
        "maskgit.jax.agreement",
        "eval",
        "eval.reference",
        "eval.weights",
        "experiments.ablate_schedule",
        "slurm.status",
    ],
)
def test_help_imports_nothing_heavy(module):
    code = f"""
import runpy, sys
sys.argv = ["x", "--help"]
try:
    runpy.run_module("{module}", run_name="__main__", alter_sys=True)
except SystemExit:
    pass
heavy = set("torch jax matplotlib pandas scipy".split()) & set(sys.modules)
sys.exit(f"imported {{sorted(heavy)}}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout.lower()
