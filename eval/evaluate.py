"""From two sets of images to numbers with their protocol: what `python -m eval` prints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from eval.errors import UsageError
from eval.features import Features, get_extractor
from eval.images import ImageSource
from eval.statistics import REFERENCES, Statistics, load_reference

METRICS = ("fid", "is", "kid", "precision-recall")
Progress = Callable[[str, int, int], None]


def parse_metrics(text: str) -> list[str]:
    """A list of metric names from `fid,is`.

    Raises:
        UsageError: an unknown name, or none.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    wrong = [name for name in names if name not in METRICS]
    if wrong or not names:
        what = wrong[0] if wrong else "nothing"
        raise UsageError(f"--metrics {text!r}: {what} is not one of {', '.join(METRICS)}")
    return list(dict.fromkeys(names))


def evaluate(
    images: str | Path,
    reference: str | Path | None,
    metrics: Sequence[str],
    features: str,
    *,
    num_images: int | None = None,
    batch_size: int = 256,
    splits: int = 10,
    k: int = 3,
    weights_dir: str | Path | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> dict:
    """Measure a set of images.

    Args:
        images: folder, npz or npy of the generated images.
        reference: the same for the real ones, or a name of `eval.statistics.REFERENCES`; only
            `is` needs none.
        metrics: names of METRICS.
        features: extractor's name.
        num_images: how many of `images` to use, drawn with a fixed seed; None for all.
        batch_size: images read at a time; changes no number.
        splits: of the Inception Score.
        k: neighbour of precision and recall.
        progress: called as (what, images done, images in all).

    Returns:
        {"metrics": {name: {"id", "value", "sd"?}}, "protocol": {...}}, ready for JSON.

    Raises:
        UsageError: whatever is wrong with the input, in one line.
    """
    wants_reference = any(name != "is" for name in metrics)
    if wants_reference and reference is None:
        raise UsageError(
            f"--reference is missing: give the real images, or one of {', '.join(REFERENCES)}"
        )
    extractor = get_extractor(features, weights_dir, device)

    def measure(where: str | Path, limit: int | None) -> Features:
        source = ImageSource(where, limit)
        done = 0

        def batches():
            nonlocal done
            for batch in source.batches(batch_size):
                yield batch
                done += len(batch)
                if progress is not None:
                    progress(str(where), done, len(source))

        return extractor.extract_batches(batches())

    protocol: dict[str, object] = {**extractor.protocol}
    if wants_reference and str(reference) in REFERENCES:  # first, in case it fails
        shipped = load_reference(str(reference), features, weights_dir)
        mean, cov, real = shipped.mean, shipped.cov, shipped.features
        protocol |= {"reference": shipped.name, "reference_n": shipped.n}
        protocol |= {"reference_sha256": shipped.sha256}
    elif wants_reference:
        if not Path(str(reference)).exists():
            raise UsageError(
                f"--reference {reference}: no such folder or file, "
                f"nor one of {', '.join(REFERENCES)}"
            )
        real = measure(str(reference), None).features
        statistics = Statistics.of(real)
        mean, cov = statistics.mean, statistics.cov
        protocol |= {"reference": Path(str(reference)).name, "reference_n": len(real)}
    fake, logits = measure(images, num_images)
    protocol |= {"n": len(fake)}

    results: dict[str, dict] = {}
    if "fid" in metrics:
        from eval import fid

        statistics = Statistics.of(fake)
        value = fid.frechet_distance(mean, cov, statistics.mean, statistics.cov)
        results["fid"] = {"id": fid.metric_id(features), "value": value}
    if "is" in metrics:
        from eval import inception_score

        value, sd = inception_score.inception_score(logits, splits)
        results["is"] = {"id": inception_score.metric_id(features), "value": value, "sd": sd}
        protocol |= {"is_splits": splits}
    if "kid" in metrics:
        from eval import kid

        size = min(kid.SUBSET_SIZE, len(real), len(fake))
        value, sd = kid.kernel_distance(real, fake, subset_size=size)
        results["kid"] = {"id": kid.metric_id(features), "value": value, "sd": sd}
        protocol |= {"kid_subset_size": size, "kid_reference_n": len(real)}
    if "precision-recall" in metrics:
        from eval import precision_recall

        pair = precision_recall.precision_recall(real, fake, k)
        for (name, metric), value in zip(
            precision_recall.metric_ids(features).items(), pair, strict=True
        ):
            results[name] = {"id": metric, "value": value}
        protocol |= {"precision_recall_k": k, "precision_recall_reference_n": len(real)}
    versions = {"numpy": np.__version__, "torch": _torch_version()}
    return {"metrics": results, "protocol": {**protocol, "versions": versions}}


def _torch_version() -> str:
    import torch

    return torch.__version__
