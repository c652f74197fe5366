"""What a folder with a model says of it, read without loading the model: sizes, hash, card."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maskgit.common.errors import UsageError, one_line
from maskgit.common.files import read_json, sha256_of
from maskgit.model.config import TokenizerConfig, TransformerConfig

FORMAT = 1
_KINDS = {
    "transformer": TransformerConfig,
    "tokenizer": TokenizerConfig,
    "autoregressive": TransformerConfig,
}
Config = TransformerConfig | TokenizerConfig


def read_sizes(path: Path, kind: str | None = None) -> tuple[Config, int]:
    """(configuration, number of parameters) of the model in a folder, from the files' heads.

    kind: as for `read_config`.

    Raises:
        UsageError: a file is missing, is no such file, or the two do not fit each other.
    """
    from safetensors import SafetensorError, safe_open

    _, config = read_config(path, kind)
    file = path / "model.safetensors"
    try:
        with safe_open(file, "numpy") as arrays:
            sizes = [math.prod(arrays.get_slice(name).get_shape()) for name in arrays.keys()]  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise not_whole(file, error) from None
    check_depth(config, sizes, path)
    return config, sum(sizes)


def read_config(path: Path, kind: str | None = None) -> tuple[str, Config]:
    """(kind, configuration) of the model in a folder.

    kind: what it must be, a name of config.json; None takes all.

    Raises:
        UsageError: a file is missing, or config.json does not hold the sizes of such a model.
    """
    wanted = kind or "model"
    if not path.is_dir():
        raise UsageError(f"{path}: no such file or folder, expected the weights of a {wanted}")
    config_file = path / "config.json"
    for file in (config_file, path / "model.safetensors"):
        if not file.is_file():
            raise UsageError(f"{file}: no such file, expected the folder of a {wanted}")
    stored = read_json(config_file)
    if stored.get("format") != FORMAT:
        raise UsageError(f"{config_file}: format {stored.get('format')!r}, expected {FORMAT}")
    expected = [kind] if kind else list(_KINDS)
    if stored.get("kind") not in expected:
        names = " or ".join(map(repr, expected))
        raise UsageError(f"{config_file}: kind {stored.get('kind')!r}, expected {names}")
    try:
        # JSON has lists only; the configurations are hashable.
        sizes = {k: tuple(v) if isinstance(v, list) else v for k, v in stored["config"].items()}
        return stored["kind"], _KINDS[stored["kind"]](**sizes)
    except (KeyError, TypeError, AttributeError, UsageError) as error:
        reason = one_line(error)
        raise UsageError(f"{config_file}: not the sizes of a {stored['kind']} ({reason})") from None


def check_depth(config: Config, sizes: Sequence[int], path: Path) -> None:
    """Whether the arrays' sizes leave room for a configuration, before anything is allocated.

    Raises:
        UsageError: there are fewer arrays than blocks, or fewer numbers than one size.
    """
    if config.depth > len(sizes) or config.largest > sum(sizes):
        raise UsageError(
            f"{path / 'config.json'}: {config.depth} blocks and a size of {config.largest} are "
            f"more than the {len(sizes)} arrays with {sum(sizes)} numbers in model.safetensors"
        )


def not_whole(file: Path, error: Exception) -> UsageError:
    """The error of a file of weights that cannot be read."""
    return UsageError(f"{file}: not a whole safetensors file ({one_line(error)})")


def weights_sha256(path: str | Path) -> str:
    """sha256, in hexadecimal, of the weights' file: model.safetensors of a folder, or the file."""
    path = Path(path)
    file = path if path.is_file() else path / "model.safetensors"
    if not file.is_file():
        raise UsageError(f"{file}: no such file")
    return sha256_of(file)


def read_card(path: str | Path) -> dict[str, Any]:
    """The model card of a folder; empty for a model without one, as an official file is."""
    file = Path(path) / "card.json"
    return read_json(file) if file.is_file() else {}
