"""Any images: a folder, a zip or tar, arrays, IDX files, or a data set that has a name.

    PICTURES/*.png                 one class, or none
    PICTURES/CLASS/*.jpg           a folder for each class, at any depth below it
    PICTURES/{train,val}/...       either of these, split by hand
    PICTURES.zip, PICTURES.tar     the same in an archive
    PICTURES.npz                   `images` uint8 (n, H, W, C), `labels` (n,); also .npy
    images-idx3-ubyte              with the labels beside it, or a folder with MNIST's four files
    torchvision:CIFAR10, hf:NAME   see maskgit.data.named

Without val/, the split follows from the images' contents: in each class those whose sha256 come
first are held out. What EXIF says of an image's rotation is done, and what is transparent lies on
white. All files are looked at once, before anything else, and the outcome is kept in the cache: a
file that is no image ends the command in one line, or with skip_broken is left out and counted.
"""

from __future__ import annotations

import functools
import hashlib
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from maskgit.common.errors import UsageError
from maskgit.common.files import atomic_write, cache_folder, json_bytes, read_json
from maskgit.common.idx import read_idx
from maskgit.common.image_file import open_image, to_uint8, upright_on_white
from maskgit.common.image_folder import class_labels, class_order
from maskgit.common.image_sets import IMAGE_KEYS, LABEL_KEYS, Array, Files, Folder, open_set
from maskgit.data.image_folder import Augmentation, Cropped
from maskgit.data.named import NAMED, open_named
from maskgit.data.source import in_turn
from maskgit.presets import Preset

LEAST_HELD_OUT = 200
_SPLITS = ("train", "val")


class Images(Cropped):
    """One split of a set of images; it travels to other processes, which open the set anew."""

    def __init__(self, data: str, part: str, rows: Sequence[int], labels: np.ndarray) -> None:
        """rows: of the set; labels: int64, of each of these."""
        items = opened(data)[part]
        self.data, self.part = data, part
        self.rows, self.labels = list(rows), labels
        self.name = f"{data} ({part})" if part in _SPLITS else data
        self.files = [Path(data)]
        if isinstance(items, Folder):
            self.files = [items.where / items.paths[row] for row in self.rows]
        self.classes: list[str] = []

    def pixels(self, index: int) -> np.ndarray:
        """See Cropped."""
        return pixels_of(opened(self.data)[self.part], self.rows[index])

    def identity(self) -> str:
        """Of all contents, which were read once."""
        found, _ = contents(self.data, self.part)
        return hashlib.sha256("".join(found[row] for row in self.rows).encode()).hexdigest()


def open_split(
    preset: Preset, data: Path | None, split: str, *, size: int | tuple[int, int], seed: int = 0
) -> Images:
    """See maskgit.data.registry.open_split.

    Raises:
        UsageError: no images there, or they do not fit the preset.
    """
    if data is None:
        raise UsageError(f"--data: the preset {preset.name} says no data.path; give --data FOLDER")
    text = str(data)
    sets = opened(text)
    part = split if "train" in sets else "all"
    if part not in sets:
        part = "train"  # split by content, like a set without parts
    _, broken = contents(text, part)
    if broken and not preset.skip_broken:
        _, why = min(broken.items())
        more = f", and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise UsageError(f"{why}{more}; `skip_broken = true` in [data] goes on without")
    if broken:
        words = f"{text}: {len(broken)} of {len(sets[part])} images are broken and left out"
        _say_once(words)
    good = np.array([row for row in range(len(sets[part])) if row not in broken], np.int64)
    labels, classes = _labels(sets, part, preset, text)
    if "val" not in sets:
        good = _share(text, part, good, labels, split)
    if len(good) < 1:
        raise UsageError(f"{text}: no images for {split}; expected at least 2 that can be read")
    if not isinstance(sets[part], Folder):
        good = good[in_turn(labels[good])]  # whoever takes the first ones gets every class
    images = Images(text, part, good.tolist(), labels[good])
    images.classes, images.seed, images.channels = classes, seed, preset.channels
    images.augmentation = Augmentation(size)
    if split == "train":
        crop = "center" if preset.crop == "none" else preset.crop
        images.augmentation = Augmentation(size, crop, preset.crop_scale, preset.flip)
    return images


def is_here(data: Path | None, split: str) -> bool:
    """See maskgit.data.registry.DataSet."""
    return data is not None and (os.path.exists(data) or str(data).partition(":")[0] in NAMED)


def about(images: int, crops: int | None = None) -> str:
    """What a model card says of the data."""
    more = "" if crops is None else f", {crops} crop{'s' * (crops > 1)} of each, as tokens"
    return f"own images, {images:,} to train on{more}"


def held_out_count(count: int) -> int:
    """How many of `count` images are held out: 5%, but at least 200 where that is no more than a
    fifth of them, else a fifth; and one."""
    return max(1, round(count * 0.05), min(LEAST_HELD_OUT, count // 5))


@functools.lru_cache(maxsize=8)
def _opened(data: str, process: int) -> Mapping[str, Files | Array]:
    kind, _, name = data.partition(":")
    if kind in NAMED:
        return open_named(kind, name)
    where = Path(data).expanduser()
    if where.is_dir():
        if (where / "train").is_dir():
            there = [split for split in _SPLITS if (where / split).is_dir()]
            return {split: Folder(where / split) for split in there}
        if pairs := _idx_pairs(where):
            return pairs
    if where.suffix.lower() == ".npz":  # in memory: rows are asked for in any order
        open_set(where)  # checks it
        with np.load(where, allow_pickle=False) as file:
            found = [key for key in LABEL_KEYS if key in file]
            images = file[next(key for key in IMAGE_KEYS if key in file)]
            return {"all": Array(images, data, file[found[0]] if found else None)}
    items = open_set(where)
    for note in items.notes:
        _say_once(note)
    return {"all": items}


def opened(data: str) -> Mapping[str, Files | Array]:
    """The sets of images at a path, by split, or all of them as "all"; opened once a process.

    Raises:
        UsageError: nothing there, or nothing that holds images.
    """
    return _opened(data, os.getpid())  # a forked process must not share a file's place


def _idx_pairs(where: Path) -> dict[str, Array]:
    """MNIST's files in a folder, if they are there."""
    found = {}
    for split, stem in (("train", "train"), ("val", "t10k")):
        for end in ("", ".gz"):
            images = where / f"{stem}-images-idx3-ubyte{end}"
            labels = where / f"{stem}-labels-idx1-ubyte{end}"
            if images.is_file() and labels.is_file():
                found[split] = Array(read_idx(images, 3), str(images), read_idx(labels, 1))
    return found if "train" in found else {}


def pixels_of(items: Files | Array, row: int) -> np.ndarray:
    """The pixels of an item as it is, uint8 (H, W, 1 or 3)."""
    return _decoded(items, row, items.raw(row))


def _decoded(items: Files | Array, row: int, raw: bytes) -> np.ndarray:
    """The pixels in an item's bytes, uint8 (H, W, 1 or 3)."""
    if isinstance(items, Array):
        return items.pixels(row, raw)
    image = open_image(raw, items.name(row))
    if image.has_transparency_data:
        _say_once(f"{items.where}: what is transparent is put on white")
    if image.mode.startswith("I"):
        _say_once(f"{items.where}: 16-bit images are scaled to 8 bits")
    return to_uint8(upright_on_white(image), items.name(row))


@functools.lru_cache(maxsize=64)
def _say_once(words: str) -> None:
    print(words, file=sys.stderr)


@functools.lru_cache(maxsize=8)
def contents(data: str, part: str) -> tuple[list[str], dict[int, str]]:
    """sha256 of the bytes of every image of a set, and row -> what is wrong with those that are no
    images; kept in the cache as long as no file changes."""
    items = opened(data)[part]
    state = hashlib.sha256(f"{data}\n{part}\n".encode(errors="surrogateescape"))
    paths = [Path(data)]
    if isinstance(items, Folder):
        paths = [items.where / path for path in items.paths]
    for path in paths:
        try:
            status = path.stat()
            words = f"{path}\n{status.st_size} {status.st_mtime_ns} {status.st_ino}\n"
        except OSError:
            words = f"{path}\nmissing\n"
        state.update(words.encode(errors="surrogateescape"))
    kept = cache_folder() / "data" / f"{state.hexdigest()}.json"
    try:
        found = read_json(kept)
        if len(found["sha256"]) == len(items):
            return found["sha256"], {int(row): why for row, why in found["broken"].items()}
    except (UsageError, KeyError, TypeError, ValueError, AttributeError):
        pass
    digests, broken = [], {}
    for row in range(len(items)):
        raw = b""
        try:
            raw = items.raw(row)
            _decoded(items, row, raw)
        except UsageError as error:
            broken[row] = str(error)
        digests.append(hashlib.sha256(raw).hexdigest())
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(kept, json_bytes({"sha256": digests, "broken": broken}))
    except OSError:
        pass  # then it is read again next time
    return digests, broken


def _labels(
    sets: Mapping[str, Files | Array], part: str, preset: Preset, text: str
) -> tuple[np.ndarray, list[str]]:
    """The class of every image of a part, and the classes' names; zeros without classes.

    Raises:
        UsageError: the parts have other classes than each other, or than the preset.
    """
    if not preset.conditional:
        return np.zeros(len(sets[part]), np.int64), []
    names = {name: class_names_of(items) for name, items in sets.items()}
    first = names[part]
    for other in sets:
        if names[other] is None or first is None:
            continue
        if odd := sorted(set(names[other] or ()) ^ set(first)):
            raise UsageError(f"{text}: {odd[0]!r} is a class in one of train and val only")
    if first is None:  # one class, all of it
        if preset.num_classes != 1:
            raise UsageError(
                f"{text}: no classes there (a folder for each, or labels), the preset has "
                f"{preset.num_classes}"
            )
        return np.zeros(len(sets[part]), np.int64), []
    if len(first) != preset.num_classes:
        raise UsageError(f"{text}: {len(first)} classes, the preset has {preset.num_classes}")
    items = sets[part]
    if isinstance(items, Files):
        return class_labels(first, _folders(items)), first
    assert items.labels is not None
    return items.labels, first


def _folders(items: Files) -> list[str]:
    """The class folder of every image, empty where there is none: the first part of the paths
    behind what all of them share."""
    parts = [PurePosixPath(path).parts[:-1] for path in items.paths]
    low, high = min(parts), max(parts)
    shared = 0
    if not isinstance(items, Folder):  # an archive often has one folder around all
        while shared < min(len(low), len(high)) and low[shared] == high[shared]:
            shared += 1
    return [names[shared] if len(names) > shared else "" for names in parts]


def class_names_of(items: Files | Array) -> list[str] | None:
    """The classes' names in their order; None where there are none."""
    if isinstance(items, Array):
        if items.labels is None:
            return items.class_names
        if items.labels.min() < 0:
            raise UsageError(f"{items.where}: label {items.labels.min()}, expected 0 or more")
        count = int(items.labels.max()) + 1
        return items.class_names or [str(number) for number in range(count)]
    folders = Counter(_folders(items))
    if set(folders) == {""}:
        return None
    if "" in folders:
        raise UsageError(
            f"{items.where}: {folders['']} images lie beside the class folders, of no class"
        )
    return class_order(list(folders))


def _share(data: str, part: str, rows: np.ndarray, labels: np.ndarray, split: str) -> np.ndarray:
    """The rows of one split, by their contents."""
    found, _ = contents(data, part)
    total, kept = held_out_count(len(rows)), []
    for label in np.unique(labels[rows]):
        mine = sorted(rows[labels[rows] == label].tolist(), key=lambda row: (found[row], row))
        count = min(len(mine) - 1, max(1, round(total * len(mine) / len(rows))))
        # Equal images are on one side.
        while 0 < count < len(mine) and found[mine[count]] == found[mine[count - 1]]:
            count += 1
        kept += mine[:count] if split == "val" else mine[count:]
    return np.array(sorted(kept), np.int64)
