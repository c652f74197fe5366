"""Fingerprints: layout and documentation do not count, everything that computes does."""

import importlib.util
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.engine.fingerprint import (
    closure,
    fingerprint,
    fingerprint_of,
    imported_modules,
    normalised,
)
from experiments.sampler.samplers import IMAGING, SAMPLERS
from experiments.studies.registry import EXPERIMENTS

SOURCE = '''"""Module."""
import math


class Scale:
    """A class."""

    factor: float = 2.0

    def apply(self, x, *, half=None):
        """A method."""
        # a comment
        return math.floor(x * self.factor) if half is None else f"{x!r:>4}"
'''
SAME = """# a licence
import math

class Scale:
    factor: float = 2.0
    def apply(
        self,
        x, *, half = None
    ):
        "Another docstring."
        return (math.floor(x*self.factor) if half is None else f'{x!r:>4}')
"""


def test_comments_docstrings_quotes_and_layout_do_not_count():
    assert normalised(SOURCE) == normalised(SAME)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("2.0", "2.5"),
        ("2.0", "2"),
        ("x * self", "x + self"),
        ("math.floor", "math.ceil"),
        ("half is None", "half is not None"),
        ("half=None", "half=0"),
        (":>4", ":>5"),
        ("!r", "!s"),
        ("*, half", "half"),
        ("factor: float", "factor: int"),
    ],
)
def test_every_change_of_the_code_counts(old, new):
    assert old in SOURCE
    assert normalised(SOURCE.replace(old, new)) != normalised(SOURCE)


def test_a_string_that_is_used_counts_although_it_looks_like_a_docstring():
    assert normalised("x = 'a'") != normalised("x = 'b'")
    assert normalised("def f():\n    return 'a'") != normalised("def f():\n    return 'b'")


@given(st.integers() | st.floats(allow_nan=False) | st.text() | st.booleans() | st.none())
def test_constants_are_told_apart_by_type_and_value(value):
    assert normalised(f"x = {value!r}") == normalised(f"x  =  ({value!r})")
    assert normalised(f"x = {value!r}") != normalised(f"x = {[value]!r}")


@pytest.fixture
def packages(tmp_path):
    files = {
        "one/__init__.py": "",
        "one/a.py": "from one.b import f\nfrom two import g\n",
        "one/b.py": "def f():\n    from . import c\n    return c.VALUE\n",
        "one/c.py": "VALUE = 1\nimport numpy\nfrom one import errors\n",
        "one/errors.py": "class E(ValueError): pass\n",
        "one/unused.py": "VALUE = 1\n",
        "two/__init__.py": "from .deep import g\n",
        "two/deep.py": "def g(): return 2\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return {"one": tmp_path / "one", "two": tmp_path / "two"}


def test_imports_are_followed_through_packages_functions_and_relative_names(packages):
    found = set(closure(["one.a"], packages))
    assert found == {"one", "one.a", "one.b", "one.c", "one.errors", "two", "two.deep"}


def test_modules_can_be_left_out_with_all_that_only_they_import(packages):
    assert set(closure(["one.a"], packages, without=("one.b",))) == {
        "one",
        "one.a",
        "two",
        "two.deep",
    }


def test_a_change_in_an_imported_module_counts_and_in_another_does_not(packages):
    before = fingerprint_of(["one.a"], packages)
    (packages["one"] / "unused.py").write_text("VALUE = 2\n")
    (packages["one"] / "c.py").write_text(
        "# why\nVALUE = 1\nimport numpy\nfrom one import errors\n"
    )
    assert fingerprint_of(["one.a"], packages) == before
    (packages["two"] / "deep.py").write_text("def g(): return 3\n")
    assert fingerprint_of(["one.a"], packages) != before


def test_the_fingerprint_does_not_depend_on_where_the_sources_are(packages, tmp_path):
    import shutil

    moved = {name: tmp_path / "moved" / name for name in packages}
    for name, folder in packages.items():
        shutil.copytree(folder, moved[name])
    assert fingerprint_of(["one.a"], moved) == fingerprint_of(["one.a"], packages)


def test_a_root_that_does_not_exist_is_an_error_and_not_an_empty_fingerprint(packages):
    with pytest.raises(ModuleNotFoundError, match=r"one\.nothing"):
        fingerprint_of(["one.nothing"], packages)


def test_relative_imports_are_resolved():
    assert imported_modules("from .b import c", "one.a", {"one"}) == {"one.b", "one.b.c"}
    assert imported_modules("from ..b import c", "one.x.a", {"one"}) == {"one.b", "one.b.c"}
    assert imported_modules("import one.q as z, os", "one.a", {"one"}) == {"one.q"}


ROOTS = {
    name: Path(importlib.util.find_spec(name).submodule_search_locations[0])
    for name in ("maskgit", "eval", "experiments")
}


def reached(code):
    """The modules that the fingerprint of a stage's code covers."""
    return set(closure([code.name, *code.also], ROOTS, code.without))


TOKENS = {
    ("torch", "maskgit"): (
        {"maskgit.decoding", "maskgit.model.transformer", "experiments.sampler.sampling"},
        {
            "maskgit.model.tokenizer",
            "maskgit.model.causal",
            "maskgit.sampling.autoregressive",
            "maskgit.jax",
        },
    ),
    ("torch", "autoregressive"): (
        {
            "maskgit.sampling.autoregressive",
            "maskgit.model.causal",
            "experiments.sampler.sampling_autoregressive",
        },
        {"maskgit.model.tokenizer", "maskgit.jax", "experiments.sampler.sampling"},
    ),
    ("jax", "maskgit"): (
        {"maskgit.jax.decoding", "maskgit.jax.transformer", "maskgit.jax.noise"},
        {"maskgit.jax.tokenizer", "maskgit.model.causal", "experiments.sampler.sampling"},
    ),
}


@pytest.mark.parametrize(("backend", "sampler"), TOKENS)
def test_the_tokens_code_is_that_of_the_backend_and_the_sampler(backend, sampler):
    code = SAMPLERS[sampler].code[backend]
    inside, outside = TOKENS[backend, sampler]
    assert inside <= reached(code)
    assert not outside & reached(code)
    assert not any(name.startswith("eval") for name in reached(code))
    assert code.fingerprint == fingerprint(code.name, *code.also, without=code.without)
    images = reached(IMAGING[backend])
    assert "maskgit.model.tokenizer" in images
    assert ("maskgit.jax.tokenizer" in images) == (backend == "jax")
    assert not {"maskgit.jax.decoding", "maskgit.decoding", "maskgit.model.causal"} & images


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_cells_code_covers_what_computes_it_and_no_bookkeeping(name):
    modules = set(closure([f"experiments.studies.{name}.compute"], ROOTS))
    assert {"experiments.sampler.worker", "eval.metrics.fid", "eval.metrics.kid"} <= modules
    assert not any(module.startswith("experiments.engine") for module in modules)


def test_the_sampling_code_covers_decoding_noise_and_schedules():
    modules = reached(SAMPLERS["maskgit"].code["torch"])
    assert {"maskgit.decoding", "maskgit.sampling.noise", "maskgit.schedules"} <= modules
