"""Images in folders, one folder for each class (torchvision's ImageFolder layout).

    DATA/train/n01440764/....JPEG      DATA/val/n01440764/....JPEG

Classes are numbered by the sorted names of their folders (names that are numbers are sorted as
such). For ImageNet these are the WordNet ids, so the numbers are those of everyone's class lists
and of the released weights.

The official code was released without its input pipeline, and the paper says "RandomResizeAndCrop"
only. Crops here are torchvision's RandomResizedCrop with its own aspect ratios, 3/4 to 4/3; the
share of the area and the flip come from the preset. The random numbers of a crop follow from (seed,
epoch, number of the image): not from the worker that decodes it, the process, or a resume.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from maskgit.common.errors import UsageError
from maskgit.common.files import without_tilde
from maskgit.common.image_file import SUFFIXES, center_square, read_image
from maskgit.common.image_folder import class_labels, class_order, files_below, is_hidden
from maskgit.data.source import ImageSource, spread
from maskgit.presets import Preset

SPLITS = ("train", "val")
ASPECT_RATIOS = (3.0 / 4.0, 4.0 / 3.0)
CROPS = ("random-resized", "center")


@dataclass(frozen=True)
class Augmentation:
    """How a file becomes an image of one size."""

    size: int | tuple[int, int]  # pixels a side, or height and width
    crop: str = "center"  # or "random-resized"
    scale: tuple[float, float] = (1.0, 1.0)  # share of the area, for "random-resized"
    flip: bool = False  # mirror every second crop

    def __post_init__(self) -> None:
        if self.crop not in CROPS:
            raise UsageError(f"crop {self.crop}: expected one of {', '.join(CROPS)}")
        low, high = self.scale
        if not 0.0 < low <= high <= 1.0:
            raise UsageError(f"crop scale {self.scale}: expected 0 < lowest <= highest <= 1")

    @property
    def varies(self) -> bool:
        """Whether an image is another one in another epoch."""
        return self.crop == "random-resized" or self.flip

    def __call__(self, image: Any, seed: int, epoch: int, index: int) -> Any:
        """A PIL image of any size -> one of size x size, by the numbers of (seed, epoch, index).

        Bilinear with antialiasing, as torchvision does by default. "center" scales the shorter
        side to `size` and cuts the middle.
        """
        import torch
        from torchvision.transforms import RandomResizedCrop
        from torchvision.transforms import functional as F

        words = np.random.SeedSequence([seed, epoch, index]).generate_state(2, np.uint32)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(words[0]) << 32 | int(words[1]))
            size = [self.size] * 2 if isinstance(self.size, int) else list(self.size)
            if self.crop == "random-resized":
                ratios = [x * size[1] / size[0] for x in ASPECT_RATIOS]
                box = RandomResizedCrop.get_params(image, list(self.scale), ratios)
                image = F.resized_crop(image, *box, size)
            else:
                image = center_square(image, self.size)
            if self.flip and torch.rand(()) < 0.5:
                image = F.hflip(image)
        return image


class Cropped:
    """Images of any size, decoded when they are asked for; see maskgit.data.source.ImageSource.

    A subclass has `pixels`, `labels`, `classes`, `files`, and `identity`, what stands for them.
    """

    name: str
    labels: np.ndarray
    classes: list[str]
    augmentation: Augmentation
    seed: int
    channels: int

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, index: int) -> np.ndarray:
        """Image `index` as it is, uint8 (H, W, 1 or 3)."""
        raise NotImplementedError

    def identity(self) -> str:
        """sha256 that changes when an image does."""
        raise NotImplementedError

    def image(self, index: int, epoch: int = 0) -> np.ndarray:
        """Image `index` with the crop of `epoch`: uint8 (height, width, C).

        Raises:
            UsageError: the file is not a readable image; the message names it.
        """
        pixels = self.pixels(index)
        image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
        image = image.convert({1: "L", 3: "RGB"}[self.channels])
        pixels = np.asarray(self.augmentation(image, self.seed, epoch, index))
        return pixels.reshape(*pixels.shape[:2], -1)

    def some(self, count: int) -> np.ndarray:
        """Images at even distances: they may be sorted by class."""
        return spread(len(self), count)

    def settings(self) -> dict[str, Any]:
        """See maskgit.data.source.ImageSource."""
        augmentation = self.augmentation
        plain = json.loads(json.dumps(asdict(augmentation)))  # lists, as they are read back
        return {
            "augmentation": plain if augmentation.varies else "center",
            "size": plain["size"],
            "seed": self.seed,
            "classes": self.classes,
            "files_sha256": self.identity(),
        }

    def batch(self, picked: np.ndarray, epoch: np.ndarray | int) -> np.ndarray:
        """See maskgit.data.source.ImageSource."""
        epochs = np.broadcast_to(epoch, picked.shape)
        pairs = zip(picked.tolist(), epochs.tolist(), strict=True)
        return np.stack([self.image(i, e) for i, e in pairs])


class ImageFolder(Cropped):
    """One split of a data set in folders: `labels` int64 (n,)."""

    def __init__(
        self,
        root: Path,
        split: str,
        augmentation: Augmentation,
        *,
        seed: int = 0,
        num_classes: int | None = None,
        conditional: bool = True,
        channels: int = 3,
    ):
        """root holds train/ and val/; with conditional=False folders do not matter, labels are 0.

        Raises:
            UsageError: no such folder, no images, or not num_classes class folders.
        """
        self.folder = without_tilde(root) / split
        self.name = str(self.folder)
        self.augmentation, self.seed = augmentation, seed
        self.channels = channels
        if not self.folder.is_dir():
            raise UsageError(
                f"--data {root}: expected the folders {' and '.join(SPLITS)} in it, with one "
                f"folder of images for each class; {self.folder} is missing"
            )
        self.paths, self.labels, self.classes = (
            _by_class(self.folder) if conditional else _all_images(self.folder)
        )
        if conditional and num_classes not in (None, len(self.classes)):
            raise UsageError(
                f"--data {root}: {len(self.classes)} class folders in {self.folder}, the preset "
                f"has {num_classes} classes"
            )

    @property
    def files(self) -> list[Path]:
        """The files of the images, in their order."""
        return [Path(path) for path in self.paths]

    def pixels(self, index: int) -> np.ndarray:
        """See Cropped."""
        return read_image(self.paths[index])

    def identity(self) -> str:
        """Of names and sizes: to read all contents would take as long as to encode them."""
        files = (
            f"{os.path.relpath(path, self.folder)} {os.path.getsize(path)}" for path in self.paths
        )
        return hashlib.sha256("\n".join(files).encode()).hexdigest()


def open_split(
    preset: Preset, data: Path | None, split: str, *, size: int, seed: int = 0
) -> ImageFolder:
    """See maskgit.data.registry.open_split: the train split is augmented, val cropped centrally.

    Raises:
        UsageError: no folder is given, or it does not fit the preset.
    """
    if data is None:
        raise UsageError(
            f"--data: the preset {preset.name} needs a folder with {' and '.join(SPLITS)}"
        )
    augmentation = Augmentation(size)
    if split == "train":
        augmentation = Augmentation(size, preset.crop, preset.crop_scale, preset.flip)
    folder = ImageFolder(
        data,
        split,
        augmentation,
        seed=seed,
        num_classes=preset.num_classes,
        conditional=preset.conditional,
        channels=preset.channels,
    )
    check_class_folders(folder, preset)
    return folder


def check_class_folders(folder: ImageFolder, preset: Preset) -> None:
    """Raise a UsageError unless the folders are those of the preset's classes: otherwise a class
    number would mean another class than to everyone's weights and classifiers."""
    for i, name in enumerate(preset.class_folders if preset.conditional else ()):
        if name not in folder.classes:
            odd = next(x for x in folder.classes if x not in preset.class_folders)
            raise UsageError(
                f"{folder.name}: no folder {name} of class {i} ({preset.class_names[i]}), but "
                f"{odd}; expected the {preset.num_classes} folders of data.class_list = "
                f"{preset.class_list!r}"
            )


def is_here(data: Path | None, split: str) -> bool:
    """See maskgit.data.registry.DataSet."""
    return data is not None and (without_tilde(data) / split).is_dir()


def about(images: int, crops: int | None = None) -> str:
    """What a model card says of the data: of images, or of tokens with so many crops of each."""
    if crops is None:
        return f"image folder, {images:,} training images"
    return f"image folder, {images:,} images, {crops} crop{'s' * (crops > 1)} of each, as tokens"


def check_same_classes(train: ImageSource, val: ImageSource) -> None:
    """Raises UsageError where a class number would mean two things in the two splits."""
    if train.classes != val.classes:
        odd = sorted(set(train.classes) ^ set(val.classes))[0]
        raise UsageError(
            f"{val.name}: not the classes of {train.name} ({odd} is in one of them only)"
        )


def _by_class(folder: Path) -> tuple[list[str], np.ndarray, list[str]]:
    """The images of each class folder, in torchvision's order, and their classes."""
    found, _ = files_below(folder)
    # Each class is a folder, so a file that lies beside them is of none.
    paths = [path for path in found if "/" in path and not is_hidden(path)]
    folders = [path.name for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name)]
    if not folders:
        raise UsageError(f"{folder}: no class folders in it")
    classes = class_order(folders)
    paths = [path for path in paths if path.lower().endswith(SUFFIXES)]
    if empty := sorted(set(classes) - {path.split("/")[0] for path in paths}):
        raise UsageError(
            f"{folder}: no images ({', '.join(SUFFIXES)}) of the classes {', '.join(empty)}"
        )
    labels = class_labels(classes, [path.split("/")[0] for path in paths])
    order = sorted(range(len(paths)), key=lambda i: (labels[i], *os.path.split(paths[i])))
    return [str(folder / paths[i]) for i in order], labels[order], classes


def _all_images(folder: Path) -> tuple[list[str], np.ndarray, list[str]]:
    found = [x for x in files_below(folder)[0] if x.lower().endswith(SUFFIXES)]
    paths = sorted(str(folder / path) for path in found if not is_hidden(path))
    if not paths:
        raise UsageError(f"{folder}: no images ({', '.join(SUFFIXES)}) in it")
    return paths, np.zeros(len(paths), np.int64), []
