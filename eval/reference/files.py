"""References: real images turned into mean, covariance and some features, prepared once.

They are shipped with the package, or built on this machine:

    python -m eval.reference build NAME --images DIR --features EXTRACTOR
    python -m eval.reference import adm FILE --name NAME
    python -m eval.reference list
    python -m eval.reference verify NAME
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from eval.images.arrays import write_arrays
from eval.metrics.statistics import check_features
from eval.weights.files import ZOO, weights_sha256
from maskgit.common.errors import Unavailable, UsageError, one_line
from maskgit.common.files import cache_folder

# What ships: the name given on a command line -> (file below the zoo, the extractor it was made
# with).
REFERENCES = {
    "fashion-mnist-train": ("fashion-mnist/reference-fashion-resnet.npz", "fashion-resnet"),
}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
RESERVED = ("by-content", "partial")  # folders beside those of the names


@dataclass(frozen=True)
class Reference:
    """Real images as a measurement sees them: statistics of their features, and some features.

    Attributes:
        name: as given to `load_reference`.
        extractor: name of the feature network.
        n: number of images behind mean and cov; 0 where an imported file does not say.
        mean, cov: float64 (D,) and (D, D), of all n images.
        features: float32 (m, D), a fixed random subset for precision/recall and KID, in random
            order; where the images have labels any first rows have the classes' shares (row i is
            of class i % classes if all are equally large). m is 0 for imported statistics.
        sha256: of the file, the identity of this reference.
        weights_sha256: of the extractor's weights; empty for imported statistics.
        description: one line that says what it is.
        protocol: how it was made (JSON-able), with `content_sha256` and the extractor's protocol;
            empty for shipped references.
    """

    name: str
    extractor: str
    n: int
    mean: np.ndarray
    cov: np.ndarray
    features: np.ndarray
    sha256: str
    weights_sha256: str
    description: str = ""
    protocol: Mapping[str, Any] = field(default_factory=dict)

    @property
    def geometry(self) -> str:
        """How the images were cut and their sizes, in words; empty if nothing is known."""
        known = self.protocol.get("geometry")
        if known is None:
            return ""
        sizes = " to ".join(known["sizes"]) or "of unknown size"
        return sizes if known["crop"] == "none" else f"{sizes} ({known['crop']})"

    def check_geometry(self, height: int, width: int) -> None:
        """Check that samples of such a size are compared with images of that size.

        What is not known passes: a network that does not resize has refused other sizes, and
        published statistics may not say.

        Raises:
            Unavailable: they are others.
        """
        sizes = self.protocol.get("geometry", {}).get("sizes")
        if sizes and sizes != [f"{width}x{height}"]:
            raise Unavailable(
                f"reference {self.name}: its images are {self.geometry}, the samples "
                f"{width}x{height}: build it from images of that size (--crop center --size)"
            )

    def kept_features(self, metric: str) -> np.ndarray:
        """The features that a metric needs.

        Raises:
            Unavailable: the reference is a mean and a covariance only.
        """
        if len(self.features) == 0:
            raise Unavailable(
                f"{metric} needs features of real images, reference {self.name} has mean and "
                f"covariance only ({self.description or 'imported'})"
            )
        return self.features


def write_reference(
    path: Path, reference: Reference, key: str = "", compress: bool = False
) -> None:
    """Write a reference as an npz without pickles; equal content gives equal bytes.

    Args:
        reference: its name and sha256 are not written.
        key: identity of what it was built from; empty if it ships.
        compress: as it is done for references that ship.

    Raises:
        UsageError: the file cannot be written.
    """
    arrays = {"key": np.array(key)} if key else {}
    arrays |= {
        "mean": reference.mean,
        "cov": reference.cov,
        "n": np.array(reference.n),
        "features": reference.features.astype(np.float32),
        "extractor": np.array(reference.extractor),
        "weights_sha256": np.array(reference.weights_sha256),
        "description": np.array(reference.description),
    }
    if reference.protocol:
        arrays["protocol"] = np.array(json.dumps(reference.protocol))
    write_arrays(path, arrays, zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED)


def references_folder() -> Path:
    """Where built references lie, below the cache folder."""
    return cache_folder() / "references"


def built_path(name: str, extractor: str) -> Path:
    """The path of a reference that is built on this machine under a name.

    Raises:
        UsageError: the name is none (letters, digits, `.`, `_`, `-`).
    """
    if not NAME.fullmatch(name) or name in RESERVED:
        raise UsageError(
            f"reference name {name!r}: expected letters, digits, '.', '_' and '-', "
            "the first a letter or digit"
        )
    return references_folder() / name / f"{extractor}.npz"


def built_references() -> dict[str, list[str]]:
    """The names of the references built on this machine, each with its extractors."""
    found: dict[str, list[str]] = {}
    for path in sorted(references_folder().glob("*/*.npz")):
        folder = path.parent.name
        if NAME.fullmatch(folder) and folder not in RESERVED and NAME.fullmatch(path.name):
            found.setdefault(path.parent.name, []).append(path.name.removesuffix(".npz"))
    return found


def reference_names() -> list[str]:
    """The names of all references on this machine, the shipped ones first."""
    return list(dict.fromkeys([*REFERENCES, *built_references()]))


def reference_extractors(name: str) -> list[str]:
    """The extractors for which a named reference exists here, the shipped one first."""
    shipped = [REFERENCES[name][1]] if name in REFERENCES else []
    return [*shipped, *(x for x in built_references().get(name, []) if x not in shipped)]


def reference_path(name: str, extractor: str) -> Path:
    """The path of a named reference, whether the file exists or not."""
    if _is_shipped(name, extractor):
        return ZOO / REFERENCES[name][0]
    return built_path(name, extractor)


def _is_shipped(name: str, extractor: str) -> bool:
    return name in REFERENCES and REFERENCES[name][1] == extractor


def load_reference(
    name: str, extractor: str | None = None, feature_weights: str | Path | None = None
) -> Reference:
    """Load a reference by its name: a shipped one, or one that was built or imported here.

    Args:
        name: one of REFERENCES, or what `python -m eval.reference list` shows.
        extractor: the extractor that the caller measures with; None takes the shipped one, or
            else the first that the reference was built with.
        feature_weights: folder of the extractor's weights when they are not the shipped ones.

    Raises:
        Unavailable: there is none of this name, or none for this extractor.
        UsageError: a broken file, or weights other than those the reference was made with.
    """
    made_with = reference_extractors(name) if NAME.fullmatch(name) else []
    if extractor is None and not made_with:
        raise Unavailable(
            f"reference {name!r}: expected one of {', '.join(reference_names())}, or one that "
            f"python -m eval.reference build NAME --images ... makes in {references_folder()}"
        )
    if extractor is None:
        extractor = made_with[0]
    if extractor not in made_with:
        there = "there is none of this name here"
        if made_with:
            there = f"it holds features of {' and '.join(made_with)}, not of {extractor}"
        raise Unavailable(
            f"reference {name!r}: {there}; python -m eval.reference build {name} --images ... "
            f"--features {extractor} makes it in {references_folder()}"
        )
    reference = read_reference(reference_path(name, extractor), name)
    if reference.weights_sha256:  # imported statistics do not say
        again = f"python -m eval.reference build {name} --images ... --features {extractor}"
        if _is_shipped(name, extractor):
            again = "python -m experiments.build_reference"
        actual = weights_sha256(extractor, feature_weights)
        if reference.weights_sha256 != actual:
            raise UsageError(
                f"reference {name} was made with {extractor} weights "
                f"{reference.weights_sha256[:12]}, the weights here are {actual[:12]}: "
                f"build it again ({again})"
            )
    return reference


def read_reference(path: Path, name: str) -> Reference:
    """Read one reference file; `load_reference` checks it against the weights too.

    It stays in memory until the file changes.

    Raises:
        UsageError: missing, broken, or another file.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise UsageError(f"{path}: not a readable reference file ({one_line(error)})") from error
    return _read_reference(path, name, (stat.st_ino, stat.st_mtime_ns, stat.st_size))


@functools.lru_cache(maxsize=4)
def _read_reference(path: Path, name: str, identity: tuple[int, int, int]) -> Reference:
    try:
        with path.open("rb") as opened:  # once, so that the sha256 is that of what is read
            sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
            opened.seek(0)
            with np.load(opened, allow_pickle=False) as file:
                arrays = {key: file[key] for key in file.files}
        protocol = json.loads(str(arrays.get("protocol", "{}")))
        _check_content(arrays, protocol)
        for array in arrays.values():
            array.setflags(write=False)  # the result is shared by all callers
        return Reference(
            name=name,
            extractor=str(arrays["extractor"]),
            n=int(arrays["n"]),
            mean=arrays["mean"],
            cov=arrays["cov"],
            features=arrays["features"],
            sha256=sha256,
            weights_sha256=str(arrays["weights_sha256"]),
            description=str(arrays.get("description", "")),
            protocol=protocol,
        )
    except Exception as error:  # numpy raises whatever the broken bytes lead it to
        raise UsageError(f"{path}: not a readable reference file ({one_line(error)})") from error


def _check_content(arrays: Mapping[str, np.ndarray], protocol: object) -> None:
    """Raise a UsageError if this is no mean, covariance and features of one network."""
    mean, cov = check_features(arrays["mean"][None], "mean"), check_features(arrays["cov"], "cov")
    features = check_features(arrays["features"], minimum=0)
    if {cov.shape, (features.shape[1],) * 2} != {(mean.shape[1],) * 2}:
        raise UsageError("mean, covariance and features have different sizes")
    if int(arrays["n"]) < 0 or not isinstance(protocol, dict):
        raise UsageError(f"{arrays['n']} images, protocol {type(protocol).__name__}")
