"""Models on disk: our own folders, and the official flax files.

A folder holds config.json (kind and sizes), model.safetensors (float32, or float16 for half the
size; loaded as float32 either way) and mostly card.json (data, command, budget, losses). A path to
a file is taken for an official checkpoint, see maskgit.checkpoints.flax. The command line
`python -m maskgit.checkpoints fetch|inspect|convert` is in maskgit/checkpoints/__main__.py.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from maskgit.checkpoints.flax import read_flax
from maskgit.checkpoints.layout import fill
from maskgit.common.errors import UsageError, one_line
from maskgit.common.files import read_json, sha256_of, write_json
from maskgit.common.records import check_file
from maskgit.model.causal import Autoregressive
from maskgit.model.config import TokenizerConfig, TransformerConfig
from maskgit.model.tokenizer import Tokenizer
from maskgit.model.transformer import Transformer

FORMAT = 1
_KINDS = {
    "transformer": (Transformer, TransformerConfig),
    "tokenizer": (Tokenizer, TokenizerConfig),
    "autoregressive": (Autoregressive, TransformerConfig),
}
Model = Transformer | Tokenizer | Autoregressive


def load_transformer(path: str | Path, num_codes: int | None = None) -> Transformer:
    """A transformer in float32 on the CPU, in evaluation mode, from our folder or a flax file.

    num_codes: how many entries of the vocabulary are codes. A folder knows it, and a different
    number is an error; for a flax file see maskgit.checkpoints.flax.
    Raises UsageError, in one line, for a missing, damaged, foreign or mismatched file.
    """
    model = load_model(path, num_codes, "transformer")
    assert isinstance(model, Transformer)
    return model


def load_tokenizer(path: str | Path) -> Tokenizer:
    """A tokenizer in float32 on the CPU, in evaluation mode; otherwise as `load_transformer`."""
    model = load_model(path, kind="tokenizer")
    assert isinstance(model, Tokenizer)
    return model


def load_autoregressive(path: str | Path) -> Autoregressive:
    """An autoregressive transformer; otherwise as `load_transformer`. There is no official file."""
    model = load_model(path, kind="autoregressive")
    assert isinstance(model, Autoregressive)
    return model


def load_model(path: str | Path, num_codes: int | None = None, kind: str | None = None) -> Model:
    """Whatever model a folder or official file holds; otherwise as `load_transformer`.

    kind: what it must be, a name of config.json; None takes all.
    """
    path = Path(path)
    if path.is_file():
        if kind == "autoregressive":
            raise UsageError(
                f"{path}: a file, expected a folder written by `python -m maskgit.training "
                f"autoregressive`; there is no official autoregressive checkpoint"
            )
        check_file(path)
        return read_flax(path, kind, num_codes)
    model = _load_folder(path, kind)
    if isinstance(model, Transformer) and num_codes not in (None, model.config.num_codes):
        raise UsageError(
            f"num_codes {num_codes}: expected {model.config.num_codes}, the transformer in {path}"
        )
    return model


def model_kind(model: nn.Module) -> str:
    """ "transformer", "tokenizer" or "autoregressive": what config.json calls it."""
    return next(name for name, (cls, _) in _KINDS.items() if type(model) is cls)


def save_model(
    folder: str | Path,
    model: Model,
    *,
    half: bool = False,
    card: dict[str, Any] | None = None,
) -> None:
    """Write a model to a folder, replacing what is there only once everything is on the disk.

    half: store float16. card: what to say about the model, as JSON.
    """
    folder = Path(folder).absolute()
    config = {
        "format": FORMAT,
        "kind": model_kind(model),
        "config": dataclasses.asdict(model.config),
    }
    dtype = torch.float16 if half else torch.float32
    state = {
        name: tensor.detach().to("cpu", dtype).contiguous()
        for name, tensor in model.state_dict().items()
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        new.chmod(0o755)
        save_file(state, new / "model.safetensors")
        with (new / "model.safetensors").open("rb") as handle:
            os.fsync(handle.fileno())
        write_json(new / "config.json", config)
        if card is not None:
            write_json(new / "card.json", card)
        if folder.exists():
            # A folder with files in it cannot be replaced in one step; two renames are the least.
            old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
            folder.rename(old / "old")
            new.rename(folder)
            shutil.rmtree(old)
        else:
            new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


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


def _load_folder(path: Path, kind: str | None) -> Model:
    wanted = kind or "model"
    if not path.is_dir():
        raise UsageError(f"{path}: no such file or folder, expected the weights of a {wanted}")
    config_file, weights_file = path / "config.json", path / "model.safetensors"
    for file in (config_file, weights_file):
        if not file.is_file():
            raise UsageError(f"{file}: no such file, expected the folder of a {wanted}")
    stored = read_json(config_file)
    if stored.get("format") != FORMAT:
        raise UsageError(f"{config_file}: format {stored.get('format')!r}, expected {FORMAT}")
    expected = [kind] if kind else list(_KINDS)
    if stored.get("kind") not in expected:
        names = " or ".join(map(repr, expected))
        raise UsageError(f"{config_file}: kind {stored.get('kind')!r}, expected {names}")
    cls, config_class = _KINDS[stored["kind"]]
    try:
        # JSON has lists only; the configurations are hashable.
        sizes = {k: tuple(v) if isinstance(v, list) else v for k, v in stored["config"].items()}
        config = config_class(**sizes)
    except (KeyError, TypeError, AttributeError, UsageError) as error:
        reason = one_line(error)
        raise UsageError(f"{config_file}: not the sizes of a {stored['kind']} ({reason})") from None
    try:
        state = load_file(weights_file)
    except (SafetensorError, OSError) as error:
        raise UsageError(
            f"{weights_file}: not a whole safetensors file ({one_line(error)})"
        ) from None
    numbers = sum(tensor.numel() for tensor in state.values())
    if config.depth > len(state) or config.largest > numbers:
        raise UsageError(
            f"{config_file}: {config.depth} blocks and a size of {config.largest} are more than "
            f"the {len(state)} arrays with {numbers} numbers in {weights_file.name}"
        )
    with torch.device("meta"):  # no time for an initialisation that is then thrown away
        model = cls(config)
    fill(model, nn.Module.state_dict, state, weights_file)
    return model.eval()
