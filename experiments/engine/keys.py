"""Names made from content: equal content, and nothing else, gives an equal key on every machine.

A key is the sha256 of canonical JSON: keys of objects sorted, no spaces, ASCII only, no NaN. Paths,
device, batch size and the number of workers never get into the content, so they never change a key.
"""

import hashlib
import json
from typing import Any

MISSING = "missing"  # stands for the sha256 of a file that is not on this machine
SCHEMA = 2  # of result.json and of keys: raising it makes every old result foreign


def canonical(value: Any) -> str:
    """The one JSON text of a value made of dict, list, str, int, float, bool and None.

    Raises:
        ValueError: a float that is not finite (JSON has no word for it).
        TypeError: anything that is not plain data, or an object key that is not a string.
    """
    _check(value)
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )


def _check(value: Any) -> None:
    # json would silently turn {1: ...} into {"1": ...}: two contents, one key.
    if isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str):
                raise TypeError(f"key {name!r} of an object is not a string")
            _check(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _check(item)
    elif value is not None and not isinstance(value, str | int | float | bool):
        raise TypeError(f"{type(value).__name__} is not plain data")


def digest(value: Any) -> str:
    """sha256 (64 hex digits) of the canonical JSON of a value."""
    return hashlib.sha256(canonical(value).encode("ascii")).hexdigest()


def cell_key(
    cell: dict[str, Any],
    *,
    weights: dict[str, str],
    sizes: dict[str, str],
    data: dict[str, str],
    metrics: dict[str, str],
    code: dict[str, str],
) -> str:
    """Key of a cell: the folder name of its result.

    Args:
        cell: the resolved configuration, with seed and number of samples.
        weights: name of a network -> sha256 of its file.
        sizes: name of a network -> digest of its configuration.
        data: name of reference statistics or held-out images -> sha256 of their file.
        metrics: name of a metric -> its id with version, such as `fid.fashion-resnet.v1`.
        code: part of the computation -> fingerprint of its sources (see `fingerprint.py`).
    """
    return digest(
        {
            "schema": SCHEMA,
            "cell": cell,
            "weights": weights,
            "sizes": sizes,
            "data": data,
            "metrics": metrics,
            "code": code,
        }
    )


def stage_key(stage: str, **content: Any) -> str:
    """Key of a staged intermediate (tokens, features, likelihood): exactly what determines it."""
    return digest({"schema": SCHEMA, "stage": stage, "content": content})
