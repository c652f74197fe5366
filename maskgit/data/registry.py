"""The kinds of data that a preset's `data` names. A new kind is a module here and a line below."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from maskgit.common.cli import suggestion
from maskgit.common.errors import UsageError
from maskgit.data import fashion_mnist, image_folder, images
from maskgit.data.source import ImageSource
from maskgit.presets import Preset

SPLITS = ("train", "val")


@dataclass(frozen=True)
class DataSet:
    """One kind of data.

    Attributes:
        open_split: called as (preset, data, split, size=, seed=) with the folder of
            --data or None, a split of SPLITS, and a size: pixels a side, or height and width.
        about: called as (images, crops or None); returns what a model card says of the data.
        is_here: called as (data, split); whether the split is on this machine, without a download.
        padding: black pixels that each side of an image gets before the tokenizer sees it.
        one_file: whether the tokens of a split are kept in one file, not in shards.
        ships: the splits that come with the package; --data names the folder of the others.
    """

    open_split: Callable[..., ImageSource]
    about: Callable[[int, int | None], str]
    is_here: Callable[[Path | None, str], bool]
    padding: int = 0
    one_file: bool = False
    ships: tuple[str, ...] = ()


DATA_SETS = {
    "fashion-mnist": DataSet(
        fashion_mnist.open_split,
        fashion_mnist.about,
        fashion_mnist.is_here,
        padding=fashion_mnist.PADDING,
        one_file=True,
        ships=("val",),
    ),
    "imagefolder": DataSet(image_folder.open_split, image_folder.about, image_folder.is_here),
    "images": DataSet(images.open_split, images.about, images.is_here),
}


def data_set(preset: Preset) -> DataSet:
    """The kind of a preset's data.

    Raises:
        UsageError: nobody registered it.
    """
    if preset.data not in DATA_SETS:
        near = suggestion(preset.data, DATA_SETS)
        raise UsageError(f"data.kind {preset.data}: expected one of {', '.join(DATA_SETS)}{near}")
    return DATA_SETS[preset.data]


def open_split(
    preset: Preset,
    data: Path | None,
    split: str,
    *,
    size: int | tuple[int, int] | None = None,
    seed: int = 0,
    augment: bool = False,
) -> Any:
    """One split of a preset's data.

    Args:
        preset: whose data.
        data: of --data; None is the preset's path, or where the kind of data is known to lie.
        split: "train" or "val".
        size: pixels a side, or height and width; None is the preset's.
        seed: of the augmentation.
        augment: whether the train split is augmented as the preset says, which training asks for.
            What is measured or shown is cropped centrally.

    Returns:
        an ImageSource.

    Raises:
        UsageError: the split is unknown, is not there, or does not fit the preset.
    """
    if split not in SPLITS:
        raise UsageError(f"--split {split}: expected {' or '.join(SPLITS)}")
    if not augment and preset.augments:
        preset = replace(preset, crop="center", crop_scale=(1.0, 1.0), flip=False)
    size = size or preset.size
    if not isinstance(size, int) and size[0] == size[1]:
        size = size[0]  # a square is told by one number, in the settings of tokens too
    return data_set(preset).open_split(preset, data or preset.path, split, size=size, seed=seed)
