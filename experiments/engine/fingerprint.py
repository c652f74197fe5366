"""Fingerprint of the code that computes a number: a changed method is never served old cells.

The fingerprint of a set of root modules is a sha256 over their sources and the sources of all that
they import of our own packages, directly or not (imports inside functions count). Following the
imports beats a hand-kept list: a module added tomorrow is covered without anybody remembering to.

Sources are compared as syntax trees without docstrings: comments, blank lines, quotes, line breaks
and documentation do not change a fingerprint; any change of a name, number or operator does. The
tree is written out by our own walker, because the text of `ast.dump` is another in Python 3.13.
"""

import ast
import hashlib
import importlib.util
from collections.abc import Collection, Iterable
from functools import cache
from pathlib import Path

# Packages and modules that cannot change a number: the engine decides when a cell is computed and
# where it is kept; what a preset holds, and which file of weights was found, is in the key itself.
IGNORED = (
    *(f"maskgit.common.{name}" for name in ("errors", "files", "records", "download", "device")),
    *("maskgit.common.cli", "maskgit.presets", "maskgit.checkpoints.paths", "eval.weights"),
    *("experiments.engine", "experiments.sampler.networks", "experiments.sampler.resources"),
    *("experiments.sampler.samplers", "experiments.sampler.feature_networks"),
)


def normalised(source: str) -> str:
    """A text of the syntax tree of Python source, without docstrings, comments and layout."""
    parts: list[str] = []
    _write(ast.parse(source), parts)
    return "".join(parts)


def _is_docstring(node: object) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _write(node: object, parts: list[str]) -> None:
    if isinstance(node, ast.Constant):
        parts.append(f"={type(node.value).__name__}:{node.value!r};")
    elif isinstance(node, ast.AST):
        parts.append(f"({type(node).__name__}")
        for name, value in ast.iter_fields(node):
            # Absent parts are left out: newer Pythons add fields, which old sources do not use.
            if value is None or value == [] or name == "type_comment":
                continue
            parts.append(f" {name}")
            _write(value, parts)
        parts.append(")")
    elif isinstance(node, list):
        parts.append("[")
        for item in node:
            if not _is_docstring(item):
                _write(item, parts)
        parts.append("]")
    else:
        parts.append(f"={node!r};")


def imported_modules(source: str, module: str, packages: Collection[str]) -> set[str]:
    """Dotted names that a module's source imports from our packages.

    `from a.b import c` gives both `a.b` and `a.b.c`: only one of them need be a module.
    """
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = module.split(".")[: -node.level]
                base = ".".join([*parent, base] if base else parent)
            found.add(base)
            found.update(f"{base}.{alias.name}" for alias in node.names)
    return {name for name in found if name.split(".")[0] in packages}


def module_file(name: str, roots: dict[str, Path]) -> Path | None:
    """The source file of a dotted module name, or None if there is no such module."""
    package, *rest = name.split(".")
    path = roots[package].joinpath(*rest)
    if rest and path.with_suffix(".py").is_file():
        return path.with_suffix(".py")
    return path / "__init__.py" if (path / "__init__.py").is_file() else None


def closure(
    modules: Iterable[str], roots: dict[str, Path], without: Collection[str] = ()
) -> dict[str, Path]:
    """All modules reachable from `modules` by imports within `roots`: name -> file.

    Modules in `without` (and `IGNORED`), and what only they import, are left out.

    Raises:
        ModuleNotFoundError: one of `modules` itself does not exist.
    """
    waiting = list(modules)
    seen: dict[str, Path] = {}
    for name in waiting:
        if module_file(name, roots) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    while waiting:
        name = waiting.pop()
        skipped = name in seen or _below(name, IGNORED) or name in without
        file = None if skipped else module_file(name, roots)
        if file is None:
            continue
        seen[name] = file
        if "." in name:
            waiting.append(name.rpartition(".")[0])  # importing a module runs its package first
        module = f"{name}.__init__" if file.name == "__init__.py" else name
        waiting.extend(imported_modules(file.read_text(encoding="utf-8"), module, roots))
    return seen


def _below(name: str, packages: Collection[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def fingerprint_of(
    modules: Iterable[str], roots: dict[str, Path], without: Collection[str] = ()
) -> str:
    """sha256 over the normalised sources of the closure of `modules`, in order of their names."""
    sha = hashlib.sha256()
    for name, file in sorted(closure(modules, roots, without).items()):
        text = normalised(file.read_text(encoding="utf-8"))
        sha.update(f"{name}\n{len(text)}\n{text}\n".encode())
    return sha.hexdigest()


@cache
def fingerprint(*modules: str, without: tuple[str, ...] = ()) -> str:
    """`fingerprint_of` for our installed packages."""
    roots = {}
    for package in ("maskgit", "eval", "experiments"):
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
        roots[package] = Path(next(iter(spec.submodule_search_locations)))
    return fingerprint_of(modules, roots, without)
