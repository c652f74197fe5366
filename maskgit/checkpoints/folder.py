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

from maskgit.checkpoints.contents import FORMAT, check_depth, not_whole, read_config
from maskgit.checkpoints.flax import read_flax
from maskgit.checkpoints.layout import fill
from maskgit.common.errors import UsageError
from maskgit.common.files import write_json
from maskgit.common.records import check_file
from maskgit.model.causal import Autoregressive
from maskgit.model.tokenizer import Tokenizer
from maskgit.model.transformer import Transformer

_CLASSES = {
    "transformer": Transformer,
    "tokenizer": Tokenizer,
    "autoregressive": Autoregressive,
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
    return next(name for name, cls in _CLASSES.items() if type(model) is cls)


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


def _load_folder(path: Path, kind: str | None) -> Model:
    found, config = read_config(path, kind)
    weights_file = path / "model.safetensors"
    try:
        state = load_file(weights_file)
    except (SafetensorError, OSError) as error:
        raise not_whole(weights_file, error) from None
    check_depth(config, [tensor.numel() for tensor in state.values()], path)
    with torch.device("meta"):  # no time for an initialisation that is then thrown away
        model = _CLASSES[found](config)
    fill(model, nn.Module.state_dict, state, weights_file)
    return model.eval()
