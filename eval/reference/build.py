"""Make references: from images, in constant memory, or from statistics that others publish.

A reference is identified by a key: the sha256 of every image's bytes in order, what decodes them,
the extractor's protocol (its weights' sha256, its resizing) and code, and which features are kept.
Building again with the same key takes what is there; one changed pixel, weight or option is
another key. An interrupted build goes on where it was.
"""

from __future__ import annotations

import hashlib
import inspect
import itertools
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from eval.features.registry import Extractor, extractor_class
from eval.images.arrays import read_arrays, write_arrays
from eval.images.source import ImageSource, content_sha256, crop_words
from eval.metrics.fid import covariance_factor
from eval.metrics.statistics import Statistics
from eval.reference.files import (
    REFERENCES,
    Reference,
    built_path,
    read_reference,
    references_folder,
    write_reference,
)
from maskgit.common.errors import UsageError, one_line
from maskgit.common.files import sha256_of, write_json

SCHEMA = 2
SEED = 0  # of the choice of the features that are kept
BLOCK = 1024  # images whose features are added at once, whatever the batch size
CHECKPOINT_SECONDS = 60.0
KEEP = 50_000  # as many as the samples of the literature's tables
# Name -> (networks, what the numbers are, how the images were cut). The size is in their files'
# names: VIRTUAL_imagenet256_labeled.npz, ffhq_clean_trainval_256.npz.
PUBLISHERS = {
    "adm": (
        ("inception-v3-compat", "inception-tfgan"),
        "ADM's reference batch: TensorFlow Inception of 2015-12-05, pool_3, resized in the graph",
        "ADM's: halved by averages while twice too large, then bicubic, centre crop",
    ),
    "clean-fid": (
        ("inception-v3-clean", "inception-v3-compat"),
        "clean-fid's statistics: its file name says mode (clean, legacy), split and size",
        "as the published images of that size are",
    ),
}
PUBLISHED_SIZE = re.compile(r"(?<!\d)(32|64|128|256|512|1024)(?!\d)")
Progress = Callable[[str, int, int], None]


def build_reference(
    name: str | None,
    images: np.ndarray | ImageSource | str | Path,
    extractor: Extractor,
    labels: np.ndarray | None = None,
    *,
    keep_features: int = KEEP,
    batch_size: int = 256,
    description: str = "",
    progress: Progress | None = None,
) -> Reference:
    """Turn real images into a reference in the cache folder, or take the one that is there.

    Args:
        name: the name for `load_reference`; None keeps it under its content only.
        images: uint8 (n, H, W, C), a source, or whatever `ImageSource` reads.
        extractor: the network.
        labels: int (n,), of an array's images: then the kept features have the classes' shares.
        keep_features: how many images' features are kept for precision/recall and KID, drawn
            with a fixed seed.
        batch_size: images read at a time; changes no number.
        progress: called as (what, images done, images in all).

    Raises:
        UsageError: images that cannot be read or that change meanwhile, a name that is shipped or
            none, or a folder that cannot be written.
    """
    if keep_features < 0:
        raise UsageError(f"--keep-features {keep_features}: expected 0 or more")
    if name is not None and REFERENCES.get(name, ("", ""))[1] == extractor.name:
        raise UsageError(f"reference {name} on {extractor.name} is shipped, choose another name")
    path = None if name is None else built_path(name, extractor.name)
    source = images
    if not isinstance(source, ImageSource):
        source = ImageSource(source, labels=labels, any_size=extractor.resizes)
    report = progress or (lambda what, done, total: None)
    digests = source.digests(lambda done: report(f"hash {source.name}", done, len(source)))
    # Without a name nobody takes the first rows only: then KID's draws are other libraries'.
    in_order = name is None and keep_features >= len(source)
    protocol = reference_protocol(source, digests, extractor, keep_features, in_order)
    key = protocol_key(protocol)
    path = path or references_folder() / "by-content" / f"{key}.npz"
    shown = name or source.name
    if _stored_key(path) == key:
        try:
            return read_reference(path, shown)
        except UsageError as error:
            print(f"{one_line(error)}: building it again", file=sys.stderr)

    partial = references_folder() / "partial" / f"{key}.npz"
    rows = np.arange(len(source))
    if not in_order:
        rows = _kept_rows(source.labels, len(source), keep_features)
    build = _Build(extractor.dim, rows, partial)
    source.skipped.update(build.skipped)
    source.sizes.update(build.sizes)
    last = time.monotonic()
    try:
        for stop, features in _blocks(extractor, source, digests, batch_size, build.done):
            build.add(stop, features, source.skipped)
            report(f"{shown} on {extractor.name}", stop, len(source))
            if time.monotonic() - last > CHECKPOINT_SECONDS and stop < len(source):
                build.save(source)
                last = time.monotonic()
    except KeyboardInterrupt:
        build.save(source)
        raise
    if build.statistics.n < 2:
        raise UsageError(f"{shown}: a reference needs at least 2 images, got {build.statistics.n}")
    built = Reference(
        shown,
        extractor.name,
        build.statistics.n,
        build.statistics.mean,
        build.statistics.cov,
        build.kept_features(),
        "",
        extractor.weights_sha256,
        description or f"{build.statistics.n} images of {source.name}, built here",
        {
            **protocol,
            **source.describe(),
            "geometry": source.geometry(),
            "skipped_images": len(source.skipped),
        },
    )
    try:
        write_reference(path, built, key)
    except UsageError as error:
        if name is not None:
            raise
        print(f"{one_line(error)}: the reference is not kept", file=sys.stderr)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "reference.npz"
            write_reference(path, built, key)
            return read_reference(path, shown)
    card = {  # where the images were, which is no part of the reference's identity
        "images": None if source.where is None else str(source.where.resolve()),
        "num_images": len(source),
        "chosen_of": source.available,
        "crop": source.crop,
        "pad": source.pad,
        "skip_broken": source.skip_broken,
        "built": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    write_json(path.with_suffix(".json"), card)
    partial.unlink(missing_ok=True)
    return read_reference(path, shown)


def reference_protocol(
    source: ImageSource,
    digests: np.ndarray,
    extractor: Extractor,
    keep_features: int,
    in_order: bool,
) -> dict[str, Any]:
    """Everything a reference's numbers depend on (JSON-able); `protocol_key` hashes it."""
    labels = None if source.labels is None else hashlib.sha256(source.labels.tobytes()).hexdigest()
    return {
        "schema": SCHEMA,
        "content_sha256": content_sha256(digests),
        "images": len(source),
        "decoder": source.decoder,
        "crop": crop_words(source.crop),
        "pad": source.pad,
        "skip_broken": source.skip_broken,
        "labels_sha256": labels,
        "keep_features": min(keep_features, len(source)),
        "seed": SEED,
        "extractor": dict(extractor.protocol),
        "code_sha256": _code_sha256(type(extractor)),
        "order": "images" if in_order else "random",
    }


def check_protocol(reference: Reference, extractor: Extractor) -> None:
    """Raise a UsageError if a built reference's features were made by another protocol than the
    extractor has now (with another resizing or precision, say)."""
    made: dict[str, Any] = reference.protocol.get("extractor", {})
    now = json.loads(json.dumps(dict(extractor.protocol)))
    for key in sorted(set(made) & set(now) - {"weights", "weights_sha256"}):
        if made[key] != now[key]:
            raise UsageError(
                f"reference {reference.name} was made with {extractor.name}'s {key} "
                f"{made[key]!r}, now it is {now[key]!r}: build it again"
            )


def protocol_key(protocol: dict[str, Any]) -> str:
    """sha256 of a protocol, the identity of the reference it makes."""
    return hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()


def _code_sha256(extractor: type) -> str:
    """sha256 of the source files of an extractor's classes."""
    files = {inspect.getsourcefile(cls) for cls in extractor.__mro__ if cls is not object}
    digest = hashlib.sha256()
    for file in sorted(file for file in files if file is not None):
        digest.update(Path(file).read_bytes())
    return digest.hexdigest()


def _kept_rows(labels: np.ndarray | None, count: int, keep: int) -> np.ndarray:
    """The numbers of the images whose features are kept, in the order of the rows.

    The order is random. With labels every class is spread evenly over it, so that any first rows
    have the classes' shares (where classes are equally large, row i is of class i % classes).
    """
    order = np.random.default_rng(SEED).permutation(count)
    if labels is not None:
        _, classes, sizes = np.unique(labels[order], return_inverse=True, return_counts=True)
        rank = np.empty(count)
        for c in range(len(sizes)):
            rank[classes == c] = (np.arange(sizes[c]) + 0.5) / sizes[c]
        order = order[np.lexsort((classes, rank))]
    return order[:keep]


class _Build:
    """A build in progress: the statistics so far, and the features to keep, at their places."""

    def __init__(self, dim: int, rows: np.ndarray, partial: Path) -> None:
        self.partial = partial
        self.done = 0
        self.skipped: dict[int, str] = {}
        self.sizes: set[tuple[int, int]] = set()
        self.statistics = Statistics(dim)
        self.rows = rows
        self._place = {int(row): place for place, row in enumerate(rows)}
        self.kept = np.full((len(rows), dim), np.nan, np.float32)
        if partial.is_file():
            self._resume()

    def _resume(self) -> None:
        try:
            arrays = read_arrays(self.partial)
            statistics = Statistics.from_arrays(arrays)
            kept, done = arrays["kept"], int(arrays["done"])
            skipped = {int(i): why for i, why in json.loads(str(arrays["skipped"])).items()}
            sizes = {(int(width), int(height)) for width, height in arrays["sizes"]}
            if kept.shape != self.kept.shape or statistics.dim != self.statistics.dim:
                raise UsageError("of another shape")
        except (UsageError, KeyError, ValueError) as error:
            print(f"{self.partial}: starting again ({one_line(error)})", file=sys.stderr)
            return
        self.statistics, self.kept, self.done = statistics, kept, done
        self.skipped, self.sizes = skipped, sizes

    def add(self, stop: int, features: np.ndarray, skipped: Collection[int]) -> None:
        """Add the features of the images from `done` to `stop` that were not skipped."""
        used = [index for index in range(self.done, stop) if index not in skipped]
        if used:
            self.statistics.update(features)
            places = [(self._place[i], row) for row, i in enumerate(used) if i in self._place]
            if places:
                to, rows = np.array(places).T
                self.kept[to] = features[rows]
        self.done = stop

    def save(self, source: ImageSource) -> None:
        """Write the state, so that the same build can go on later."""
        extra = {
            "kept": self.kept,
            "done": np.array(self.done),
            "skipped": np.array(json.dumps(source.skipped)),
            "sizes": np.array(sorted(source.sizes)),
        }
        write_arrays(self.partial, {**self.statistics.arrays(), **extra})

    def kept_features(self) -> np.ndarray:
        """float32 (m, D), without the images that were skipped."""
        return self.kept[np.isfinite(self.kept).all(axis=1)]


def _blocks(
    extractor: Extractor, source: ImageSource, digests: np.ndarray, batch_size: int, start: int
) -> Iterator[tuple[int, np.ndarray]]:
    """(images read so far, features of those since the last) in blocks of BLOCK images."""
    for begin in range(start, len(source), BLOCK):
        stop = min(begin + BLOCK, len(source))
        batches = source.batches(batch_size, begin, stop, digests)
        first = next(batches, None)
        features = np.empty((0, extractor.dim), np.float32)
        if first is not None:
            features = extractor.extract_batches(itertools.chain([first], batches)).features
        yield stop, features


def _stored_key(path: Path) -> str | None:
    """The key in a reference file; None if the file is missing or damaged."""
    if not path.is_file():
        return None
    try:
        return str(read_arrays(path, ["key"])["key"])
    except UsageError:
        return None


def import_statistics(
    publisher: str,
    file: str | Path,
    name: str,
    extractor: str | None = None,
    n: int = 0,
    size: int | None = None,
) -> Reference:
    """Take mean and covariance that ADM or clean-fid publish as a reference.

    Such a reference has no features, so precision, recall and KID cannot be computed with it.

    Args:
        publisher: one of PUBLISHERS.
        file: npz with `mu` (D,) and `sigma` (D, D).
        name: the name for `load_reference`.
        extractor: the network they were made with; default: the publisher's first.
        n: number of images behind them, which the files do not state.
        size: pixels a side of these images; None reads it in the file's name, where it may be.

    Raises:
        UsageError: another file, or values that are no mean and covariance of that network.
    """
    if publisher not in PUBLISHERS:
        raise UsageError(f"import {publisher!r}: expected one of {', '.join(PUBLISHERS)}")
    accepted, note, crop = PUBLISHERS[publisher]
    extractor = extractor or accepted[0]
    if extractor not in accepted:
        raise UsageError(
            f"--features {extractor}: {publisher} publishes for {' or '.join(accepted)}"
        )
    target, file = built_path(name, extractor), Path(file)
    arrays = read_arrays(file)
    if "mu" not in arrays or "sigma" not in arrays:
        hint = ""
        if "arr_0" in arrays:
            hint = f"; it has images: python -m eval.reference build {name} --images {file}"
        raise UsageError(
            f"{file}: has {', '.join(arrays) or 'no arrays'}, expected mu and sigma{hint}"
        )
    mean, cov = arrays["mu"], arrays["sigma"]
    if mean.dtype.kind not in "fiu" or cov.dtype.kind not in "fiu":
        raise UsageError(f"{file}: mu {mean.dtype} and sigma {cov.dtype} are no numbers")
    mean, cov = mean.astype(np.float64), cov.astype(np.float64)
    dim = extractor_class(extractor).dim
    if mean.shape != (dim,) or cov.shape != (dim, dim) or not np.isfinite(mean).all():
        raise UsageError(
            f"{file}: mu {mean.shape} and sigma {cov.shape}, {extractor} has {dim} features"
        )
    try:
        covariance_factor(cov)
    except UsageError as error:
        raise UsageError(f"{file}: sigma is no covariance ({error})") from error
    if size is None and (told := PUBLISHED_SIZE.findall(file.stem)):
        size = int(told[-1])
    protocol = {
        "schema": SCHEMA,
        "geometry": {"crop": crop, "sizes": [] if size is None else [f"{size}x{size}"]},
        "imported": publisher,
        "note": note,
        "file": file.name,
        "content_sha256": sha256_of(file),
        "n_stated_by_user": n,
    }
    imported = Reference(
        name,
        extractor,
        n,
        mean,
        cov,
        np.empty((0, dim)),
        sha256="",
        weights_sha256="",
        description=f"imported from {publisher}'s {file.name}: {note}",
        protocol=protocol,
    )
    write_reference(target, imported, protocol_key({**protocol, "extractor": extractor}))
    return read_reference(target, name)
