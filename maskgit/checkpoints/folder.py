"""Models on disk: our own folders, and the official flax files.

A folder holds config.json (kind and sizes), model.safetensors (float32, or float16 for half the
size; loaded as float32 either way) and mostly card.json (data, command, budget, losses). A path to
a file is taken for an official checkpoint, see maskgit.checkpoints.flax. The command line
`python -m maskgit.checkpoints fetch|inspect|convert` is in maskgit/checkpoints/__main__.py.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from maskgit.checkpoints.flax import Leaves, read_tokenizer, read_transformer
from maskgit.common.errors import UsageError
from maskgit.common.files import read_json, sha256_of
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
Model = TypeVar("Model", Transformer, Tokenizer, Autoregressive)


def load_transformer(path: str | Path, num_codes: int | None = None) -> Transformer:
    """A transformer in float32 on the CPU, in evaluation mode, from our folder or a flax file.

    num_codes: how many entries of the vocabulary are codes. A folder knows it, and a different
    number is an error; for a flax file see maskgit.checkpoints.flax.read_transformer.
    Raises UsageError, in one line, for a missing, damaged, foreign or mismatched file.
    """
    path = Path(path)
    if path.is_file():
        leaves = _official(path)
        if "quantizer/codebook" in leaves.arrays:
            raise UsageError(f"{path}: a tokenizer, expected a transformer")
        config, state = read_transformer(leaves, num_codes)
        return _assemble(Transformer, config, state, path)
    model = _load_folder(Transformer, path)
    if num_codes not in (None, model.config.num_codes):
        raise UsageError(
            f"num_codes {num_codes}: expected {model.config.num_codes}, the transformer in {path}"
        )
    return model


def load_tokenizer(path: str | Path) -> Tokenizer:
    """A tokenizer in float32 on the CPU, in evaluation mode; otherwise as `load_transformer`."""
    path = Path(path)
    if path.is_file():
        leaves = _official(path)
        if "Embed_0/word_embeddings/embedding" in leaves.arrays:
            raise UsageError(f"{path}: a transformer, expected a tokenizer")
        config, state = read_tokenizer(leaves)
        return _assemble(Tokenizer, config, state, path)
    return _load_folder(Tokenizer, path)


def load_autoregressive(path: str | Path) -> Autoregressive:
    """An autoregressive transformer in float32 on the CPU, in evaluation mode, from our folder.

    There is no official file of one. Raises UsageError as `load_transformer`.
    """
    path = Path(path)
    if path.is_file():
        raise UsageError(
            f"{path}: a file, expected a folder written by `python -m maskgit.training "
            f"autoregressive`; there is no official autoregressive checkpoint"
        )
    return _load_folder(Autoregressive, path)


def load_model(
    path: str | Path, num_codes: int | None = None
) -> Transformer | Tokenizer | Autoregressive:
    """Whatever model a folder or official file holds; otherwise as `load_transformer`."""
    path = Path(path)
    if path.is_file():
        leaves = _official(path)
        if "quantizer/codebook" in leaves.arrays:
            return _assemble(Tokenizer, *read_tokenizer(leaves), path)
        return _assemble(Transformer, *read_transformer(leaves, num_codes), path)
    kind = read_json(path / "config.json").get("kind")
    if kind == "tokenizer":
        return load_tokenizer(path)
    if kind == "autoregressive":
        return load_autoregressive(path)
    return load_transformer(path, num_codes)


def model_kind(model: nn.Module) -> str:
    """ "transformer", "tokenizer" or "autoregressive": what config.json calls it."""
    return next(name for name, (cls, _) in _KINDS.items() if type(model) is cls)


def save_model(
    folder: str | Path,
    model: Transformer | Tokenizer | Autoregressive,
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
        _write_json(new / "config.json", config)
        if card is not None:
            _write_json(new / "card.json", card)
        for file in new.iterdir():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
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


def _official(path: Path) -> Leaves:
    """The arrays of an official file, which must still be the one of its record if it has one."""
    check_file(path)
    return Leaves(path)


def _load_folder(cls: type[Model], path: Path) -> Model:
    kind = cls.__name__.lower()
    if not path.is_dir():
        raise UsageError(f"{path}: no such file or folder, expected the weights of a {kind}")
    config_file, weights_file = path / "config.json", path / "model.safetensors"
    for file in (config_file, weights_file):
        if not file.is_file():
            raise UsageError(f"{file}: no such file, expected the folder of a {kind}")
    stored = read_json(config_file)
    if stored.get("format") != FORMAT:
        raise UsageError(f"{config_file}: format {stored.get('format')!r}, expected {FORMAT}")
    if stored.get("kind") != kind:
        raise UsageError(f"{config_file}: kind {stored.get('kind')!r}, expected {kind!r}")
    try:
        # JSON has lists only; the configurations are hashable.
        sizes = {k: tuple(v) if isinstance(v, list) else v for k, v in stored["config"].items()}
        config = _KINDS[kind][1](**sizes)
    except (KeyError, TypeError, AttributeError, UsageError) as error:
        raise UsageError(f"{config_file}: not the sizes of a {kind} ({error})") from None
    try:
        state = load_file(weights_file)
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{weights_file}: not a whole safetensors file ({reason})") from None
    return _assemble(cls, config, state, weights_file)


def _assemble(cls: type[Model], config: Any, state: dict[str, Tensor], path: Path) -> Model:
    """The model with that state, which must have exactly its names and shapes."""
    with torch.device("meta"):  # no time for an initialisation that is then thrown away
        model = cls(config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for name, shape in expected.items():
        if name not in state:
            raise UsageError(f"{path}: {name} is missing, expected shape {shape}")
        if tuple(state[name].shape) != shape:
            raise UsageError(
                f"{path}: {name} has shape {tuple(state[name].shape)}, expected {shape}"
            )
        if not state[name].is_floating_point():
            raise UsageError(f"{path}: {name} has type {state[name].dtype}, expected numbers")
    for name in state.keys() - expected.keys():
        shape = tuple(state[name].shape)
        raise UsageError(f"{path}: {name} of shape {shape} has no place in the model")
    floats = {name: tensor.to(torch.float32) for name, tensor in state.items()}
    nn.Module.load_state_dict(model, floats, assign=True)
    return model.eval()


def _write_json(file: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")
