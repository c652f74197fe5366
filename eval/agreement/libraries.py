"""The field's libraries, called on features and logits that are in memory; no weights needed.

Each function imports its library when it is called. No number of this suite is computed with
them: they are what its numbers are compared with.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import warnings
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from maskgit.common.errors import Unavailable

TFGAN_PACKAGES = ("tensorflow", "tf_keras", "tensorflow_gan")
TFGAN_INSTALL = "pip install 'maskgit-bench[tfgan]'"
# Library -> (module, distribution, how to get it).
LIBRARIES = {
    "torch-fidelity": ("torch_fidelity", "torch-fidelity", "pip install torch-fidelity"),
    "clean-fid": ("cleanfid", "clean-fid", "pip install clean-fid"),
    "TF-GAN": ("tensorflow_gan", "tensorflow-gan", TFGAN_INSTALL),
    "scikit-learn": ("sklearn", "scikit-learn", "pip install scikit-learn"),
}


def version(library: str) -> str:
    """The version of a library that is installed.

    Raises:
        Unavailable: not installed; the message says how to install it.
    """
    module, distribution, install = LIBRARIES[library]
    if importlib.util.find_spec(module) is None:
        raise Unavailable(f"not installed ({install})")
    return importlib.metadata.version(distribution)


def torch_fidelity_fid(real: np.ndarray, generated: np.ndarray) -> float:
    import torch
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    sides = [fid_features_to_statistics(torch.from_numpy(x)) for x in (generated, real)]
    return fid_statistics_to_metric(*sides, verbose=False)["frechet_inception_distance"]


def torch_fidelity_inception_score(logits: np.ndarray) -> float:
    """10 splits, shuffled with seed 2020."""
    import torch
    from torch_fidelity.metric_isc import isc_features_to_metric

    return isc_features_to_metric(torch.from_numpy(logits))["inception_score_mean"]


def torch_fidelity_kid(real: np.ndarray, generated: np.ndarray, size: int) -> float:
    """100 subsets, seed 2020."""
    import torch
    from torch_fidelity.metric_kid import kid_features_to_metric

    features = torch.from_numpy(generated), torch.from_numpy(real)
    result = kid_features_to_metric(*features, kid_subset_size=size, rng_seed=2020, verbose=False)
    return result["kernel_inception_distance_mean"]


def torch_fidelity_precision_recall(
    real: np.ndarray, generated: np.ndarray, k: int
) -> tuple[float, float]:
    import torch
    from torch_fidelity.metric_prc import calculate_precision_recall_part

    features = torch.from_numpy(generated), torch.from_numpy(real)
    return calculate_precision_recall_part(*features, neighborhood=k)


def clean_fid_fid(real: np.ndarray, generated: np.ndarray) -> float:
    from cleanfid.fid import fid_from_feats

    with clean_fid_with_any_scipy():
        return float(fid_from_feats(generated, real))


def clean_fid_kid(real: np.ndarray, generated: np.ndarray, size: int) -> float:
    """100 subsets of draws of its own (numpy's global generator, seeded here and put back)."""
    from cleanfid.fid import kernel_distance

    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    try:
        return kernel_distance(generated, real, num_subsets=100, max_subset_size=size)
    finally:
        np.random.set_state(state)  # noqa: NPY002


@contextlib.contextmanager
def clean_fid_with_any_scipy() -> Iterator[None]:
    """clean-fid calls scipy.linalg.sqrtm(disp=False) and takes two results; scipy 1.18 drops both.

    Inside, clean-fid sees a sqrtm that answers as it did.
    """
    import cleanfid.fid
    from scipy import linalg

    def sqrtm(matrix: np.ndarray, disp: bool = True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # singular where a feature is dead: clean-fid copes
            root = linalg.sqrtm(matrix)
        return root if disp else (root, 0.0)

    before = cleanfid.fid.linalg
    cleanfid.fid.linalg = SimpleNamespace(sqrtm=sqrtm)
    try:
        yield
    finally:
        cleanfid.fid.linalg = before


# tensorflow-gan 2.1.0 builds its training classes on tf.estimator when it is imported, and
# TensorFlow 2.16 removed that. Its metrics need none of it, so placeholders are put there before
# the import: classes whose missing attributes are such classes again, which can be bases and
# defaults but do nothing.


class _Placeholder(type):
    """Metaclass of classes that have any attribute: another placeholder."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        attribute = _Placeholder(name, (), {})
        setattr(cls, name, attribute)
        return attribute


def import_tfgan() -> ModuleType:
    """The module tensorflow_gan; `import_tfgan().eval` has the metrics.

    Raises:
        Unavailable: a package of the extra is missing or does not import.
    """
    missing = [name for name in TFGAN_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise Unavailable(f"TF-GAN: {', '.join(missing)} not installed ({TFGAN_INSTALL})")
    # Both are read at the import: Keras 2, which TF-GAN was written for, and quiet start-up.
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import tensorflow as tf

            # Where TensorFlow was imported before (tensorboard does), `tf.compat.v1` is a stand-in
            # until this import, and TF-GAN reads the module itself.
            v1: Any = importlib.import_module("tensorflow.compat.v1")
            for module in (tf, v1):
                if not hasattr(module, "estimator"):
                    module.estimator = _Placeholder("estimator", (), {})
            import tensorflow_gan

            tf.get_logger().setLevel("ERROR")  # deprecations inside TF-GAN
    except Exception as error:  # whatever versions that do not fit lead to
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:160]
        raise Unavailable(f"TF-GAN: does not import ({reason}); {TFGAN_INSTALL}") from error
    return tensorflow_gan


def tfgan_fid(real: np.ndarray, generated: np.ndarray) -> float:
    metric = import_tfgan().eval.frechet_classifier_distance_from_activations
    return float(metric(*_tensors(real, generated)))


def tfgan_inception_score(logits: np.ndarray) -> float:
    """One split."""
    return float(import_tfgan().eval.classifier_score_from_logits(*_tensors(logits)))


def tfgan_kid(real: np.ndarray, generated: np.ndarray, size: int) -> float:
    """Disjoint blocks of at most `size` images, in order."""
    metric = import_tfgan().eval.kernel_classifier_distance_and_std_from_activations
    return float(metric(*_tensors(real, generated), max_block_size=size)[0])


def _tensors(*arrays: np.ndarray) -> list:
    import tensorflow as tf

    return [tf.constant(array.astype(np.float64)) for array in arrays]


def sklearn_precision_recall(
    real: np.ndarray, generated: np.ndarray, k: int
) -> tuple[float, float]:
    """The definition, with scikit-learn's exact search for the radii and the balls."""
    from sklearn.metrics import pairwise_distances
    from sklearn.neighbors import NearestNeighbors

    def share(points: np.ndarray, manifold: np.ndarray) -> float:
        search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(manifold)
        radii = search.kneighbors()[0][:, -1]  # without arguments a point is not its own neighbour
        return float((pairwise_distances(points, manifold) <= radii).any(axis=1).mean())

    real, generated = real.astype(np.float64), generated.astype(np.float64)
    return share(generated, real), share(real, generated)


def prdc_by_definition(
    real: np.ndarray, generated: np.ndarray, k: int
) -> tuple[float, float, float, float]:
    """Precision, recall, density and coverage (Naeem et al. 2020, section 3) from all distances,
    the rims left out of the balls as in the authors' package prdc."""
    real, generated = real.astype(np.float64), generated.astype(np.float64)

    def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.stack([np.sqrt(np.square(b - row).sum(axis=1)) for row in a])

    # Column 0 of the sorted distances is the point itself.
    radii_real = np.sort(distances(real, real), axis=1)[:, k]
    radii_generated = np.sort(distances(generated, generated), axis=1)[:, k]
    across = distances(real, generated)
    in_real, in_generated = across < radii_real[:, None], across < radii_generated
    density = in_real.sum(axis=0).mean() / k
    coverage = in_real.any(axis=1).mean()
    precision, recall = in_real.any(axis=0).mean(), in_generated.any(axis=1).mean()
    return float(precision), float(recall), float(density), float(coverage)


def clean_fid_resized(image: np.ndarray, mode: str, size: int) -> np.ndarray:
    """uint8 (H, W, 3) -> float32 (size, size, 3) in 0..255; mode clean or legacy_pytorch."""
    from cleanfid.resize import make_resizer

    kinds = {"clean": ("PIL", "bicubic"), "legacy_pytorch": ("PyTorch", "bilinear")}
    library, kind = kinds[mode]
    return make_resizer(library, False, kind, (size, size))(image)


def torch_fidelity_resized(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 (H, W, 3) -> float32 (size, size, 3) in 0..255, as its Inception resizes."""
    import torch
    from torch_fidelity.interpolate_compat_tensorflow import (
        interpolate_bilinear_2d_like_tensorflow1x,
    )

    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    resized = interpolate_bilinear_2d_like_tensorflow1x(
        tensor, size=(size, size), align_corners=False
    )
    return resized[0].permute(1, 2, 0).numpy()
