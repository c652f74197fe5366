"""Lists of classes by name: what data sets and classifiers of the field call their classes.

A class is known by its name, never by its number alone: networks with equally many outputs may
know other classes, or the same ones in another order.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import NamedTuple


class ClassList(NamedTuple):
    """Classes 0, 1, ...: `names` differ; `folders`, where the data set has them, of its images."""

    names: tuple[str, ...]
    folders: tuple[str, ...] = ()


def _fashion_mnist() -> ClassList:
    return ClassList(
        names=(
            *("T-shirt", "trousers", "pullover", "dress", "coat"),
            *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
        )
    )


def _imagenet() -> ClassList:
    text = files("maskgit.common").joinpath("imagenet_classes.tsv").read_text(encoding="utf-8")
    rows = [line.split("\t") for line in text.splitlines() if not line.startswith("#")]
    folders, names = zip(*rows, strict=True)
    return ClassList(names, folders)


CLASS_LISTS: dict[str, Callable[[], ClassList]] = {
    "fashion-mnist": cache(_fashion_mnist),
    "imagenet": cache(_imagenet),
}
