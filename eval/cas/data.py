"""The images of the Classification Accuracy Score: labelled sets, the batches of a training and
their augmentation.

All random numbers come from (seed, epoch, index of the image), so a batch is the same whoever
loads it, and a training that was killed goes on with the same batches. Small sets lie in memory
as uint8; a folder beyond IN_MEMORY bytes is read by DataLoader's processes as it is needed.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from eval.cas.recipe import RANDAUGMENT, SMALL
from eval.features.registry import imagenet_normalised, rgb_tensor
from eval.images.source import ImageSource, content_sha256
from maskgit.common.errors import UsageError

if TYPE_CHECKING:
    import torch

IN_MEMORY = 2 * 2**30  # bytes of pixels
MAX_CLASSES = 100_000  # larger labels are mistakes, and the last layer would not fit
CROP, RESIZE = 224, 256  # of ImageNet's protocol
ORDER, AUGMENTATION = 0, 1  # streams of random numbers


class Images(Protocol):
    """Images uint8 (H, W, C) by index; picklable, as several processes read them."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> np.ndarray: ...


class FileImages:
    """Image files by index, opened anew in every process."""

    def __init__(self, where: Path, count: int, pad: int | None) -> None:
        self.where, self.count, self.pad = where, count, pad
        self._source: ImageSource | None = None

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> np.ndarray:
        if self._source is None:
            self._source = ImageSource(self.where, pad=self.pad, any_size=True)
        return next(self._source.batches(1, index, index + 1))[0]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_source": None}


@dataclass(frozen=True)
class Labelled:
    """Images with their classes: `data[i]` is uint8 (H, W, C), C of 1 or 3.

    Attributes:
        name: for messages and results.
        images: what the images are taken from.
        rows: which of them, int64 (n,).
        labels: int64 (n,), from 0.
        class_names: where a folder gave them; labels count them.
        sha256: identity of the set: of its pixels or files, its labels and their order.
    """

    name: str
    images: Images | Sequence[np.ndarray] | np.ndarray
    rows: np.ndarray
    labels: np.ndarray
    class_names: list[str] | None
    sha256: str

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.images[int(self.rows[index])]

    @property
    def in_memory(self) -> bool:
        """Whether all images are in memory, so that no file is read for one."""
        return isinstance(self.images, np.ndarray | list)

    def counts(self, num_classes: int) -> np.ndarray:
        """Images of each class, int64 (num_classes,)."""
        return np.bincount(self.labels, minlength=num_classes)

    def subset(self, chosen: np.ndarray) -> Labelled:
        """The images `chosen` (indices), in that order."""
        digest = hashlib.sha256(f"{self.sha256} {chosen.tolist()}".encode()).hexdigest()
        rows, labels = self.rows[chosen], self.labels[chosen]
        return dataclasses.replace(self, rows=rows, labels=labels, sha256=digest)


def labelled(
    where: np.ndarray | str | Path,
    labels: np.ndarray | None = None,
    *,
    what: str = "images",
    pad: int | None = None,
    in_memory: int = IN_MEMORY,
) -> Labelled:
    """A labelled set from an array, or from anything `eval.images.source.ImageSource` opens.

    Args:
        where: uint8 array (n, H, W, C), or a path: npz with arr_0 and arr_1, folder of class
            folders, IDX images beside their labels, ...
        labels: int (n,); overrides those of a path.
        what: for messages.
        pad: put every image in the middle of a black square of so many pixels.
        in_memory: bytes of pixels up to which a folder or zip is loaded.

    Raises:
        UsageError: no classes, negative ones, another number of them than of images, or images
            that cannot be read.
    """
    source = ImageSource(where, pad=pad, any_size=True)
    found = source.labels if labels is None else np.asarray(labels)
    if found is None:
        raise UsageError(
            f"{what} {where if source.where else 'array'}: no classes, expected folders of "
            "classes, an npz with arr_1, or labels"
        )
    if found.ndim != 1 or found.dtype.kind not in "iu" or len(found) != len(source):
        raise UsageError(
            f"{what}: labels {found.dtype} {found.shape}, expected {len(source)} integers, as many "
            "as images"
        )
    if found.min() < 0 or found.max() >= MAX_CLASSES:
        wrong = found.min() if found.min() < 0 else found.max()
        raise UsageError(f"{what}: label {wrong}, expected classes from 0 to {MAX_CLASSES - 1}")
    found = found.astype(np.int64)
    names = source.class_names if labels is None else None
    files = source.where is not None and (
        source.where.is_dir() or source.where.suffix.lower() == ".zip"
    )
    if files and len(source) * source.first().nbytes > in_memory:
        assert source.where is not None
        images: Any = FileImages(source.where, len(source), pad)
        identity = _file_identity(source)
    else:
        parts = list(source.batches(256))
        same = len({part.shape[1:] for part in parts}) == 1
        images = np.concatenate(parts) if same else [image for part in parts for image in part]
        identity = content_sha256(source.digests()) + f" {source.decoder} {pad}"
    digest = hashlib.sha256(identity.encode() + found.tobytes()).hexdigest()
    return Labelled(source.name, images, np.arange(len(source)), found, names, digest)


def _file_identity(source: ImageSource) -> str:
    """Identity of files that are too many to read twice: their names, sizes and times."""
    digest = hashlib.sha256()
    for index in range(len(source)):
        name = source.item_name(index)
        path = Path(name) if Path(name).is_file() else source.where
        assert path is not None
        status = path.stat()
        digest.update(f"{name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class Geometry:
    """How images become the network's input (height, width).

    Small images are shifted by up to an eighth of their side, over black, and validated as they
    are. Larger ones are trained on by a crop of random area (8 to 100 %) and aspect (3/4 to 4/3)
    resized to `size`, and validated on the central crop after the shorter side was resized to
    `resize`; bilinear with antialiasing.
    """

    size: tuple[int, int]
    resize: int | None

    def describe(self) -> dict[str, Any]:
        """The geometry as a protocol states it (JSON-able)."""
        height, width = self.size
        if self.resize is None:
            shift = f"shift by up to {height // 8} and {width // 8} pixels over black, mirror"
            return {"input": f"{width}x{height}", "augmentation": shift, "validation": "as it is"}
        return {
            "input": f"{width}x{height}",
            "augmentation": "random crop of 8 to 100 % of the area, aspect 3/4 to 4/3, mirror",
            "validation": f"shorter side to {self.resize}, central {height}x{width}",
        }


def geometry(image: np.ndarray) -> Geometry:
    """The geometry for a set of images, from the first of them (H, W, C)."""
    height, width = image.shape[:2]
    if max(height, width) <= SMALL:
        return Geometry((height, width), None)
    side = min(CROP, height, width)
    return Geometry((side, side), round(side * RESIZE / CROP))


class TrainingBatches:
    """Batches `first` .. `last` - 1 of a training; as a torch Dataset it gives (epoch, index)."""

    def __init__(self, data: Labelled, shape: Geometry, randaugment: bool, seed: int) -> None:
        from torchvision.transforms import v2

        self.data, self.shape, self.seed = data, shape, seed
        height, width = shape.size
        if shape.resize is None:
            place: Any = v2.RandomCrop(shape.size, padding=[width // 8, height // 8])
        else:
            place = v2.RandomResizedCrop(shape.size, antialias=True)
        more = [v2.RandAugment(*RANDAUGMENT)] if randaugment else []
        self.transform = v2.Compose([place, v2.RandomHorizontalFlip(), *more])

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, int]:
        import torch

        epoch, index = key
        image = _tensor(self.data, index, self.shape)
        state = _sequence(AUGMENTATION, self.seed, epoch, index).generate_state(1, np.uint64)
        # torchvision draws from torch's global numbers; torch.manual_seed would look for a GPU.
        torch.default_generator.manual_seed(int(state[0]))
        return self.transform(image), int(self.data.labels[index])

    def keys(self, first: int, last: int, batch_size: int) -> Iterator[list[tuple[int, int]]]:
        """(epoch, index) of the images of each batch."""
        per_epoch = len(self.data) // batch_size
        order, drawn = np.empty(0, np.int64), -1
        for step in range(first, last):
            epoch, at = divmod(step, per_epoch)
            if epoch != drawn:
                rng = np.random.default_rng(_sequence(ORDER, self.seed, epoch))
                order, drawn = rng.permutation(len(self.data)), epoch
            chosen = order[at * batch_size : (at + 1) * batch_size]
            yield [(epoch, int(index)) for index in chosen]


class ValidationImages:
    """A torch Dataset of validation images, each cut as `Geometry` says."""

    def __init__(self, data: Labelled, shape: Geometry) -> None:
        from torchvision.transforms import v2

        self.data, self.shape = data, shape
        resize = [] if shape.resize is None else [v2.Resize([shape.resize], antialias=True)]
        self.transform = v2.Compose([*resize, v2.CenterCrop(shape.size)])

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = _tensor(self.data, index, self.shape)
        return self.transform(image), int(self.data.labels[index])


def _tensor(data: Labelled, index: int, shape: Geometry) -> torch.Tensor:
    """An image as uint8 (3, H, W), grey repeated; small ones must have the input's size."""
    import torch

    image = rgb_tensor(data[index][None], torch.device("cpu"))[0]
    if shape.resize is None and tuple(image.shape[1:]) != shape.size:
        (height, width), (h, w) = shape.size, image.shape[1:]
        raise UsageError(
            f"{data.name}: an image of {w}x{h} pixels, expected {width}x{height} like the first "
            "training image, as small images are not resized"
        )
    return image


def normalize(images: torch.Tensor) -> torch.Tensor:
    """uint8 (n, 3, H, W) -> float32 with ImageNet's mean and deviation, channels last."""
    import torch

    result = imagenet_normalised(images.float() / 255)
    return result.contiguous(memory_format=torch.channels_last)


def _sequence(stream: int, *numbers: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(numbers, spawn_key=(stream,))
