"""The arrows of the design: which package may import which, and what files and folders hold."""

import ast
import statistics
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.paths import ROOT

COMMON = "maskgit.common"  # lies below all packages and imports none of them
ALLOWED = {
    "maskgit": set(),
    "eval": set(),
    "reports": set(),
    "slurm": set(),
    "experiments": {"maskgit", "eval", "reports", "slurm"},
}
# Libraries that take long to import: a command line imports them when it knows that it needs them.
HEAVY = frozenset(
    (
        *("torch", "torchvision", "jax", "tensorflow", "tensorflow_gan", "matplotlib", "scipy"),
        *("sklearn", "pandas", "accelerate", "lpips", "torch_fidelity", "cleanfid", "skimage"),
        *("efficientnet_lite_pytorch", "submitit", "safetensors", "datasets"),
    )
)
# Packages of our extras may be missing: they are imported where they are used. Triton comes with
# torch's wheels for GPUs only, and a machine that trains without a perceptual loss needs no lpips.
OPTIONAL = frozenset(
    (
        *("tensorflow", "tensorflow_gan", "jax", "efficientnet_lite_pytorch", "skimage"),
        *("triton", "lpips", "datasets"),
    )
)


class Import(NamedTuple):
    """One import statement's target; `where` is top, function, or types (for annotations only)."""

    name: str
    line: int
    where: str


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for name in ALLOWED for path in (ROOT / name).rglob("*.py")}


def imports_of(tree: ast.AST, where: str = "top") -> Iterator[Import]:
    for node in ast.iter_child_nodes(tree):
        inside = where
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            inside = "function"
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            inside = "types"
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, where) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield Import(full if full in MODULES else base, node.lineno, where)
        else:
            yield from imports_of(node, inside)


IMPORTS = {name: list(imports_of(ast.parse(path.read_text()))) for name, path in MODULES.items()}


@cache
def loaded_by(name: str) -> frozenset[str]:
    """All that importing a module imports: modules of ours and the names of heavy libraries."""
    found, waiting = set(), [name]
    while waiting:
        current = waiting.pop()
        top = current.partition(".")[0]
        if current in found or (current not in MODULES and top not in HEAVY):
            continue
        found.add(current if current in MODULES else top)
        if current in MODULES:
            waiting += [item.name for item in IMPORTS[current] if item.where == "top"]
            waiting += [current.rpartition(".")[0]] if "." in current else []
    return frozenset(found)


def is_heavy(name: str) -> bool:
    return bool(loaded_by(name) & HEAVY)


def is_optional(name: str) -> bool:
    """Whether this is a package that may be missing, or a module of ours that is made for one."""
    tops = [item.name for item in IMPORTS.get(name, []) if item.where == "top"]
    if name == "torch.utils.tensorboard":  # imports TensorFlow where that is installed
        return True
    return any(item.partition(".")[0] in OPTIONAL for item in (name, *tops))


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_follow_the_arrows(module):
    package = module.partition(".")[0]
    for name, line, _ in IMPORTS[module]:
        assert not name.startswith("."), f"{module}:{line}: write the absolute name"
        assert name != "eval", f"{module}:{line}: `import eval` hides the builtin of that name"
        top = name.partition(".")[0]
        if top not in ALLOWED or name == COMMON or name.startswith(f"{COMMON}."):
            continue
        if module == COMMON or module.startswith(f"{COMMON}."):
            raise AssertionError(f"{module}:{line} lies below all packages and imports {name}")
        assert top == package or top in ALLOWED[package], f"{module}:{line} imports {name}"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_stand_at_the_top_unless_they_are_heavy(module):
    for name, line, where in IMPORTS[module]:
        if where == "function" and not is_optional(name):
            assert is_heavy(name), f"{module}:{line}: {name} is light: import it at the top"
            assert not is_heavy(module), f"{module}:{line}: {module} is heavy already"


def test_no_modules_import_each_other_in_a_circle():
    after = {
        name: {item.name for item in found if item.name in MODULES and item.name != name}
        for name, found in IMPORTS.items()
    }
    left = dict(after)
    while leaves := [name for name, targets in left.items() if not targets & left.keys()]:
        for name in leaves:
            del left[name]
    # What imports a circle without being in one is not to blame.
    while roots := left.keys() - set().union(*left.values()):
        for name in roots:
            del left[name]
    assert not sorted(left)


def test_files_are_one_idea_long_and_folders_can_be_read():
    lines = {name: len(path.read_text().splitlines()) for name, path in MODULES.items()}
    assert not {name: count for name, count in lines.items() if count > 400}
    whole = [count for name, count in lines.items() if MODULES[name].name != "__init__.py"]
    assert statistics.median(whole) >= 110
    folders = [path.parent for path in MODULES.values() if path.name != "__init__.py"]
    assert not {str(f.relative_to(ROOT)) for f in folders if folders.count(f) > 16}
    scripts = [path for path in MODULES.values() if path.parent == ROOT / "experiments"]
    assert not {p.name for p in scripts if lines[module_name(p)] > 80}


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
