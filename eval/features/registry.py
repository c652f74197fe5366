"""The registry of feature extractors, and their base class.

An extractor turns uint8 images into pooled features (FID, KID, precision/recall) and logits
(Inception Score), and states its protocol, which every number computed with it carries. To add
one: write its file in eval/features/ with a subclass of `Extractor`, enter its weights in
eval/weights/files.py, and add one line to EXTRACTORS.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from eval.weights.files import checked_weights
from maskgit.common.class_lists import CLASS_LISTS
from maskgit.common.device import check_device
from maskgit.common.errors import UsageError, one_line

if TYPE_CHECKING:
    import torch

EXTRACTORS = {
    "fashion-resnet": "eval.features.fashion_resnet:FashionResNetExtractor",
    "efficientnet-lite0": "eval.features.efficientnet_lite0:EfficientNetLite0Extractor",
    "inception-v3-compat": "eval.features.inception_v3_compat:InceptionV3CompatExtractor",
    "inception-v3-clean": "eval.features.inception_v3_clean:InceptionV3CleanExtractor",
    "inception-tfgan": "eval.features.inception_tfgan:InceptionTFGANExtractor",
    "vgg16": "eval.features.vgg16:VGG16Extractor",
    "dinov2-vit-l-14": "eval.features.dinov2:DINOv2Extractor",
    "resnet50": "eval.features.resnet50:ResNet50Extractor",
}
# Of ImageNet's training images, RGB in [0, 1], as torchvision states them.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Features(NamedTuple):
    """features float32 (n, D) and logits float32 (n, L) of the same n images; L is 0 if the
    network has no classifier."""

    features: np.ndarray
    logits: np.ndarray


def get_extractor(
    name: str, feature_weights: str | Path | None = None, device: str = "cpu"
) -> Extractor:
    """Load a feature extractor with its weights.

    Args:
        name: registry name, see EXTRACTORS.
        feature_weights: folder with the weights; None looks where `eval.weights.files` says.
        device: torch device to compute on.

    Raises:
        Unavailable: the weights are not on this machine.
        UsageError: unknown name or device, broken weights, or a package that is not installed.
    """
    return extractor_class(name)(feature_weights, device)


def extractor_class(name: str) -> type[Extractor]:
    """The class of an extractor, which knows its sizes and describes itself without weights.

    Raises:
        UsageError: unknown name.
    """
    if name not in EXTRACTORS:
        raise UsageError(f"features {name!r}: expected one of {', '.join(EXTRACTORS)}")
    module, cls = EXTRACTORS[name].split(":")
    return getattr(importlib.import_module(module), cls)


class Extractor:
    """Base of the extractors. A subclass sets the class attributes and implements `load`,
    `prepare` and `forward`.

    Attributes:
        name: registry name.
        weights: name of its weights in `eval.weights.files`; empty if that is `name`.
        dim: number D of features.
        num_logits: number L of logits; 0 if the network has no classifier.
        class_list: which classes the logits are of, a name of maskgit.common.class_lists; empty if
            they are of none of these.
        input_range, resize, image_size, layer: the network's input and the output that is taken;
            image_size is (H, W, C) after resizing.
        weights_sha256: of the weights file.
        protocol: all that a number depends on: the above and the weights.
    """

    name: ClassVar[str]
    weights: ClassVar[str] = ""
    dim: ClassVar[int]
    num_logits: ClassVar[int]
    class_list: ClassVar[str] = ""
    input_range: ClassVar[str]
    resize: ClassVar[str]
    image_size: ClassVar[tuple[int, int, int]]
    layer: ClassVar[str]
    # Every forward has exactly this many images (the last is filled up with black ones), so that
    # a feature never depends on how many images come with it: libraries choose their kernels by
    # the batch's shape.
    chunk: int = 64
    gpu_chunk: int = 64

    def __init__(self, feature_weights: str | Path | None, device: str) -> None:
        self.device = check_device(device)
        if self.device.type != "cpu":
            self.chunk = self.gpu_chunk
        self.check_packages()
        found = checked_weights(self.weights or self.name, feature_weights)
        self.weights_sha256 = found.sha256
        self.protocol = {
            **self.describe(),
            "precision": "float32",
            "weights": found.name,
            "weights_sha256": found.sha256,
        }
        self.load(found.path)

    @classmethod
    def describe(cls) -> dict[str, object]:
        """The part of the protocol that does not depend on the weights."""
        return {
            "features": cls.name,
            "input": cls.input_range,
            "resize": cls.resize,
            "image_size": list(cls.image_size),
            "layer": cls.layer,
            "dim": cls.dim,
            "num_logits": cls.num_logits,
        }

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes that the logits are of; empty where they are not known."""
        return CLASS_LISTS[self.class_list]().names if self.class_list else ()

    @property
    def resizes(self) -> bool:
        """Whether it takes images of any size."""
        return self.protocol.get("resize") != "none"

    def check_packages(self) -> None:
        """Raise a UsageError if a package that this extractor needs is not installed."""

    def load(self, path: Path) -> None:
        """Build the network on `self.device` with the weights at `path`.

        Raises:
            UsageError: the file does not hold weights of this network.
        """
        raise NotImplementedError

    def prepare(self, images: np.ndarray) -> torch.Tensor:
        """uint8 (n, H, W, C), n <= chunk -> the network's input (n, c, h, w), on the device."""
        raise NotImplementedError

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Network input -> features (n, D), logits (n, L), or None for a network without."""
        raise NotImplementedError

    def extract(self, images: np.ndarray) -> Features:
        """Features and logits of an array of images, uint8 (n, H, W, C) with C of 1 or 3, n >= 1.

        Raises:
            UsageError: wrong type or shape, or a size this extractor does not take.
        """
        return self.extract_batches([images])

    def extract_batches(self, batches: Iterable[np.ndarray]) -> Features:
        """Features and logits, in order, of images that come in batches (each as for `extract`;
        an extractor that resizes takes batches of different sizes)."""
        parts = list(self.stream(batches))
        if not parts:
            raise UsageError("no images to extract features from")
        features, logits = zip(*parts, strict=True)
        return Features(np.concatenate(features), np.concatenate(logits))

    def stream(self, batches: Iterable[np.ndarray]) -> Iterator[Features]:
        """Yield the same in parts of at most `chunk` images, in constant memory."""
        import torch

        waiting = None  # fewer than a chunk, for the next images to fill up
        for images in batches:
            images = check_images(images)
            for start in range(0, len(images), self.chunk):
                with torch.inference_mode():
                    inputs = self.prepare(images[start : start + self.chunk])
                    waiting = inputs if waiting is None else torch.cat([waiting, inputs])
                if len(waiting) >= self.chunk:
                    yield self._compute(waiting[: self.chunk])
                    waiting = waiting[self.chunk :]
        if waiting is not None and len(waiting):
            yield self._compute(waiting)

    def _compute(self, inputs: torch.Tensor) -> Features:
        import torch

        count = len(inputs)
        # float32 in full: TensorFloat-32, torch's default for convolutions on a GPU, has a mantissa
        # of 10 bits only.
        exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
        with torch.inference_mode(), exact:
            if count < self.chunk:
                black = inputs.new_zeros(self.chunk - count, *inputs.shape[1:])
                inputs = torch.cat([inputs, black])
            features, logits = self.forward(inputs)
            if logits is None:
                logits = features[:, :0]
        return Features(
            features[:count].float().cpu().numpy(), logits[:count].float().cpu().numpy()
        )


def check_images(
    images: np.ndarray, what: str = "images", floats: tuple[int, int] | None = None
) -> np.ndarray:
    """Return images (n, H, W, C), or raise a UsageError that says what is wrong with them.

    floats: the range of floating-point ones; None takes uint8 only.
    """
    images = np.asarray(images)
    is_float = floats is not None and images.dtype.kind == "f"
    if not (is_float or images.dtype == np.uint8) or images.shape[3:] not in ((1,), (3,)):
        raise UsageError(
            f"{what}: expected uint8{' or floats' * (floats is not None)} (n, H, W, C) with C of "
            f"1 or 3, got {images.dtype} {images.shape}"
        )
    if 0 in images.shape:
        raise UsageError(f"{what}: an empty array {images.shape}")
    if floats is not None and is_float:
        low, high = float(images.min()), float(images.max())
        if not (low >= floats[0] and high <= floats[1]):  # NaN too
            raise UsageError(f"{what}: expected values in {list(floats)}, got [{low:g}, {high:g}]")
    return images


def check_pairs(
    first: np.ndarray, second: np.ndarray, names: tuple[str, str], floats: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Two arrays of images that are compared one by one, checked by `check_images`."""
    first, second = (
        check_images(images, f"{name} images", floats)
        for images, name in zip((first, second), names, strict=True)
    )
    if first.shape != second.shape:
        raise UsageError(f"images {first.shape} and {second.shape}: shapes must be equal")
    return first, second


def rgb_tensor(images: np.ndarray, device: torch.device) -> torch.Tensor:
    """uint8 (n, H, W, 1 or 3) -> uint8 (n, 3, H, W) on the device, grey repeated."""
    import torch

    tensor = torch.from_numpy(np.ascontiguousarray(images)).to(device)
    return tensor.permute(0, 3, 1, 2).expand(-1, 3, -1, -1).contiguous()


def imagenet_normalised(inputs: torch.Tensor) -> torch.Tensor:
    """RGB (n, 3, H, W) in [0, 1] with ImageNet's mean and deviation taken out."""
    mean, deviation = (inputs.new_tensor(x).view(3, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))
    return (inputs - mean) / deviation


def load_network(make: Callable[[], Any], path: Path, name: str) -> Any:
    """Build a network by `make`, with the weights of a torch file, ready to compute.

    It takes no memory before the weights are read, as they need not be initialised.

    Raises:
        UsageError: not a torch file of tensors, or of another network's.
    """
    import torch

    with torch.device("meta"):
        model = make()
    try:
        model.load_state_dict(load_state(path, name), assign=True)
    except RuntimeError as error:
        raise UsageError(f"{path}: not weights of {name} ({one_line(error)})") from error
    return model.float().eval().requires_grad_(False)


def load_state(path: Path, name: str) -> dict[str, torch.Tensor]:
    """The tensors of a torch file, read without running any code from it.

    Raises:
        UsageError: not a torch file of tensors.
    """
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever the broken bytes lead it to
        raise UsageError(f"{path}: not weights of {name} ({one_line(error)})") from error
    if not isinstance(state, dict):
        raise UsageError(f"{path}: not weights of {name} (holds a {type(state).__name__})")
    return state
