"""TensorFlow-GAN's metrics, an optional second opinion (extra `tfgan`).

tensorflow-gan 2.1.0 builds its training classes on tf.estimator when it is imported, and
TensorFlow 2.16 removed that. Its metrics need none of it, so placeholders are put there before the
import: classes whose missing attributes are such classes again, which can be bases and defaults but
do nothing.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from types import ModuleType
from typing import Any

from maskgit.common.errors import Unavailable

PACKAGES = ("tensorflow", "tf_keras", "tensorflow_gan")
INSTALL = "pip install 'maskgit-bench[tfgan]'"


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
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise Unavailable(f"TF-GAN: {', '.join(missing)} not installed ({INSTALL})")
    # Both are read at the import: Keras 2, which TF-GAN was written for, and quiet start-up.
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import tensorflow as tf

            for module in (tf, tf.compat.v1):
                if not hasattr(module, "estimator"):
                    module.estimator = _Placeholder("estimator", (), {})
            import tensorflow_gan

            tf.get_logger().setLevel("ERROR")  # deprecations inside TF-GAN
    except Exception as error:  # whatever versions that do not fit lead to
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:160]
        raise Unavailable(f"TF-GAN: does not import ({reason}); {INSTALL}") from error
    return tensorflow_gan
