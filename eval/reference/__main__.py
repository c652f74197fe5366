"""`python -m eval.reference`: prepare references once, list them, check them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from eval.console import command_line, progress_bar
from eval.features.registry import get_extractor
from eval.images.source import ImageSource, parse_crop
from eval.reference.build import KEEP, build_reference, import_statistics
from eval.reference.files import (
    Reference,
    built_path,
    read_reference,
    reference_extractors,
    reference_names,
    reference_path,
)
from eval.reference.verify import verify_reference
from maskgit.common.device import resolve_device
from maskgit.common.errors import Unavailable, UsageError

DESCRIPTION = """References: real images turned into mean, covariance and some features, once.

A preset's own: python -m experiments.build_reference --preset NAME --data FOLDER.
They lie in references/ below $MASKGIT_BENCH_CACHE or ~/.cache/maskgit-bench.
"""


def build(
    name: tyro.conf.Positional[str],
    images: str,
    features: str,
    num_images: int | None = None,
    keep_features: int = KEEP,
    crop: Literal["none", "center"] = "none",
    size: int | None = None,
    pad: int | None = None,
    skip_broken: bool = False,
    batch_size: int = 256,
    feature_weights: str | None = None,
    device: str = "auto",
    description: str = "",
) -> None:
    """Turn images into a reference, unless it exists and is up to date.

    Args:
        name: the name for python -m eval --reference.
        images: folder (nested ones too), .zip, .npz, .npy or IDX file.
        features: feature network, as python -m eval.weights list shows them.
        num_images: use so many of the images, drawn with a fixed seed.
        keep_features: features kept for precision, recall and KID: as many as there will be
            samples.
        crop: center scales the shorter side to --size (bilinear, antialiased) and cuts out the
            central square, as a model's training images are; none takes whole images.
        size: pixels a side, with --crop center.
        pad: put every image in the middle of a black square of this size.
        skip_broken: leave out files that are no usable images, and say so.
        batch_size: images read at a time; bounds memory, changes no number.
        feature_weights: folder with the network's weights.
        device: torch device; auto takes a GPU if there is one.
        description: one line on the images, kept with the reference.
    """
    path = built_path(name, features)
    before = path.stat().st_mtime_ns if path.is_file() else None
    extractor = get_extractor(features, feature_weights, resolve_device(device))
    source = ImageSource(
        images,
        num_images,
        skip_broken=skip_broken,
        crop=parse_crop(crop, size),
        pad=pad,
        any_size=extractor.resizes,
    )
    with progress_bar() as progress:
        reference = build_reference(
            name,
            source,
            extractor,
            keep_features=keep_features,
            batch_size=batch_size,
            description=description,
            progress=progress,
        )
    for note in reference.protocol.get("notes", []):
        print(note, file=sys.stderr)
    same = path.stat().st_mtime_ns == before
    print(f"{'up to date' if same else 'built'}: {_line(reference)}\n{path}")


def import_(
    publisher: tyro.conf.Positional[Literal["adm", "clean-fid"]],
    file: tyro.conf.Positional[Path],
    name: str,
    features: str | None = None,
    num_images: int = 0,
    size: int | None = None,
) -> None:
    """Take the mean and covariance that ADM or clean-fid publish (an npz with mu and sigma).

    Args:
        publisher: who made the file.
        file: the npz.
        name: the name for python -m eval --reference.
        features: network it was made with; default: inception-v3-compat for adm,
            inception-v3-clean for clean-fid.
        num_images: number of images behind it, which the file does not say.
        size: pixels a side of these images. Default: what the file's name says.
    """
    reference = import_statistics(publisher, file, name, features, num_images, size)
    print(f"imported: {_line(reference)}\n{built_path(name, reference.extractor)}")


def list_(as_json: Annotated[bool, tyro.conf.arg(name="json")] = False) -> None:
    """List the references on this machine, shipped and built.

    Args:
        as_json: print JSON.
    """
    rows = [
        _row(name, extractor)
        for name in reference_names()
        for extractor in reference_extractors(name)
    ]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        print(row.get("broken") or f"{row['line']}  {row['description']}".rstrip())


def verify(
    name: tyro.conf.Positional[str],
    features: str | None = None,
    images: str | None = None,
    feature_weights: str | None = None,
) -> None:
    """Check a reference: file, numbers, weights and, where they still are, its images.

    Args:
        name: of the reference.
        features: one network only; default all there are.
        images: where the images are now; default: where they were.
        feature_weights: folder with the network's weights.
    """
    extractors = [features] if features is not None else reference_extractors(name)
    if not extractors:
        raise Unavailable(f"reference {name!r}: there is none of this name here")
    for extractor in extractors:
        for line in verify_reference(name, extractor, images, feature_weights):
            print(f"{name} on {extractor}: {line}")


def _row(name: str, extractor: str) -> dict[str, object]:
    try:
        reference = read_reference(reference_path(name, extractor), name)
    except UsageError as error:
        return {"name": name, "features": extractor, "broken": str(error)}
    return {
        "name": name,
        "features": extractor,
        "n": reference.n,
        "kept_features": len(reference.features),
        "sha256": reference.sha256,
        "description": reference.description,
        "line": _line(reference),
    }


def _line(reference: Reference) -> str:
    n = f"{reference.n} images" if reference.n else "number of images unknown"
    kept = f"{len(reference.features)} features kept" if len(reference.features) else "no features"
    parts = [n, *filter(None, [reference.geometry]), kept, f"sha256 {reference.sha256[:12]}"]
    return f"{reference.name} on {reference.extractor}: {', '.join(parts)}"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    commands = {"build": build, "import": import_, "list": list_, "verify": verify}
    return command_line(
        commands,
        arguments,
        "python -m eval.reference",
        DESCRIPTION,
        "interrupted: the same command goes on from there",
    )


if __name__ == "__main__":
    sys.exit(main())
