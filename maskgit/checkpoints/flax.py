"""The official flax checkpoints, read and written with plain msgpack, without flax.

A file is one msgpack map whose key `params` holds a tree of arrays; an array is an extension of
type 1 around a packed (shape, dtype name, bytes), a numpy scalar one of type 3, and flax splits an
array above a gigabyte into a map of chunks. Other keys at the top (optimiser, step) are passed over
unread. All sizes come from the shapes, every array is used exactly once, and what does not fit is a
UsageError that names the array and both shapes.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import IO, Any

import msgpack
import numpy as np
import torch

from maskgit.checkpoints.layout import fill, official_arrays
from maskgit.common.errors import UsageError
from maskgit.common.files import atomic_file
from maskgit.model.config import TokenizerConfig, TransformerConfig
from maskgit.model.tokenizer import Tokenizer
from maskgit.model.transformer import Transformer

_NDARRAY, _COMPLEX, _SCALAR = 1, 2, 3  # flax.serialization's extension types
_CHUNKED = "__msgpack_chunked_array__"
_NORM_GROUPS = 32  # flax's default, which leaves no trace in the shapes


class Leaves:
    """The arrays below `params`, by names like "encoder/Conv_0/kernel".

    The file is read as a stream, so that at most `params` and one array more are in memory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                params = _read_params(file)
        except OSError as error:
            raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
        except (ValueError, TypeError, KeyError, RecursionError, msgpack.UnpackException) as error:
            early = isinstance(error, msgpack.OutOfData)
            reason = "it ends too early" if early else " ".join(str(error).split())
            raise UsageError(
                f"{path}: not a whole flax checkpoint in msgpack ({reason[:120]})"
            ) from None
        if not isinstance(params, dict):
            raise UsageError(f"{path}: not a flax checkpoint: it has no `params` at the top")
        self.arrays: dict[str, np.ndarray] = {}
        self._collect("", params)

    def _collect(self, prefix: str, tree: dict[Any, Any]) -> None:
        for key in list(tree):
            name, value = f"{prefix}{key}", tree.pop(key)
            if isinstance(value, dict):
                self._collect(f"{name}/", value)
            elif not isinstance(value, np.ndarray):
                raise UsageError(f"{self.path}: {name} is no array ({type(value).__name__})")
            elif not np.issubdtype(value.dtype, np.floating):
                raise UsageError(
                    f"{self.path}: {name} has type {value.dtype.name}, expected floating-point"
                )
            elif name in self.arrays:
                raise UsageError(f"{self.path}: {name} is there twice")
            else:
                self.arrays[name] = value

    def shape(self, name: str, dimensions: int) -> tuple[int, ...]:
        """Shape of an array that sizes are read from; it must have that many dimensions."""
        if name not in self.arrays:
            raise UsageError(f"{self.path}: {name} is missing")
        shape = self.arrays[name].shape
        if len(shape) != dimensions or 0 in shape:
            raise UsageError(
                f"{self.path}: {name} has shape {shape}, expected {dimensions} dimensions"
            )
        return shape

    def count(self, prefix: str) -> int:
        """How many groups of the form prefix0, prefix1, ... there are."""
        pattern = re.compile(re.escape(prefix) + r"(\d+)/")
        return len({match[1] for name in self.arrays if (match := pattern.match(name))})


def read_flax(
    path: Path, kind: str | None = None, num_codes: int | None = None
) -> Transformer | Tokenizer:
    """The model in an official file, on the CPU, in evaluation mode.

    kind: "tokenizer" or "transformer", what it must be; None takes both.
    num_codes: see `_transformer_config`.

    Raises:
        UsageError: the file cannot be read, is of the other kind, or holds no such model.
    """
    leaves = Leaves(path)
    model: Transformer | Tokenizer
    with torch.device("meta"):
        if kind != "transformer" and "Embed_0/word_embeddings/embedding" not in leaves.arrays:
            model = Tokenizer(_tokenizer_config(leaves))
        elif kind != "tokenizer" and "quantizer/codebook" not in leaves.arrays:
            model = Transformer(_transformer_config(leaves, num_codes))
        else:
            got = "transformer" if kind == "tokenizer" else "tokenizer"
            raise UsageError(f"{path}: a {got}, expected a {kind or 'single model'}")
    fill(model, official_arrays, leaves.arrays, path)
    return model.eval()


def _transformer_config(leaves: Leaves, num_codes: int | None) -> TransformerConfig:
    """The sizes of the transformer in a file.

    The file does not say where the vocabulary's codes end and its classes begin. Without
    `num_codes`, codes are the largest power of two that leaves room for a class and the mask: 1024
    of the official 2025.
    """
    vocab, width = leaves.shape("Embed_0/word_embeddings/embedding", 2)
    positions, _ = leaves.shape("Embed_0/position_embeddings/embedding", 2)
    attention = "TransformerLayer_0/Attention_0/self_attention"
    _, heads, head_width = leaves.shape(f"{attention}/query/kernel", 3)
    _, mlp = leaves.shape("TransformerLayer_0/Mlp_0/intermediate_output/kernel", 2)
    if vocab < 3 or positions < 2 or heads * head_width != width:
        raise UsageError(
            f"{leaves.path}: sizes that fit no transformer: vocabulary {vocab}, positions "
            f"{positions}, width {width}, heads {heads} of {head_width}"
        )
    if num_codes is None:
        num_codes = 2 ** ((vocab - 2).bit_length() - 1)
    if not 1 <= num_codes <= vocab - 2:
        raise UsageError(
            f"num_codes {num_codes}: expected 1 to {vocab - 2}, as {leaves.path} has a "
            f"vocabulary of {vocab} codes, classes and the mask"
        )
    return TransformerConfig(
        num_codes=num_codes,
        num_classes=vocab - 1 - num_codes,
        num_tokens=positions - 1,
        width=width,
        layers=leaves.count("TransformerLayer_"),
        heads=heads,
        mlp=mlp,
    )


def _tokenizer_config(leaves: Leaves) -> TokenizerConfig:
    """The sizes of the tokenizer in a file."""
    num_codes, code_dim = leaves.shape("quantizer/codebook", 2)
    *_, channels, filters = leaves.shape("encoder/Conv_0/kernel", 4)
    # The decoder's convolutions: the first, one after each upsampling, the output.
    levels = leaves.count("decoder/Conv_") - 1
    blocks, rest = divmod(leaves.count("encoder/ResBlock_"), max(levels, 0) + 1)
    if levels < 1 or blocks < 1 or rest:
        raise UsageError(
            f"{leaves.path}: {leaves.count('decoder/Conv_')} decoder convolutions and "
            f"{leaves.count('encoder/ResBlock_')} encoder blocks fit no tokenizer"
        )
    widths = [
        leaves.shape(f"encoder/ResBlock_{level * blocks}/Conv_0/kernel", 4)[3]
        for level in range(levels)
    ]
    if any(width % filters for width in widths):
        raise UsageError(
            f"{leaves.path}: encoder widths {widths} are no multiples of the first, {filters}"
        )
    if any(width % _NORM_GROUPS for width in [filters, *widths]):
        raise UsageError(
            f"{leaves.path}: widths {[filters, *widths]}: expected multiples of {_NORM_GROUPS}, "
            f"the number of groups that flax's GroupNorm has"
        )
    return TokenizerConfig(
        channels=channels,
        filters=filters,
        multipliers=tuple(width // filters for width in widths),
        blocks=blocks,
        num_codes=num_codes,
        code_dim=code_dim,
        norm_groups=_NORM_GROUPS,
    )


def write_flax(path: str | Path, model: Transformer | Tokenizer) -> None:
    """Write a model as an official checkpoint, float32, whole or not at all.

    The official code and `maskgit.checkpoints` read it. The format has no place for the number of
    codes of a transformer and for dropout.

    Raises:
        UsageError: a tokenizer whose GroupNorm has not the 32 groups that the format implies.
    """
    path = Path(path)
    if isinstance(model, Tokenizer) and model.config.norm_groups != _NORM_GROUPS:
        raise UsageError(
            f"{path}: the official format implies {_NORM_GROUPS} groups in each GroupNorm, this "
            f"tokenizer has {model.config.norm_groups}"
        )
    tree: dict[str, Any] = {}
    for name, array in official_arrays(model).items():
        *groups, leaf = name.split("/")
        place = tree
        for group in groups:
            place = place.setdefault(group, {})
        place[leaf] = array
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        _write_tree(file, {"params": tree})


def _read_params(file: IO[bytes]) -> Any:
    """What stands under `params`; None without such a key. The file must be one map and no more."""
    unpacker = msgpack.Unpacker(
        file,
        read_size=1 << 20,
        max_buffer_size=0,  # as large as msgpack allows
        ext_hook=_extension,
        object_pairs_hook=_tree,
        strict_map_key=False,
    )
    params = None
    for _ in range(unpacker.read_map_header()):
        if unpacker.unpack() == "params":
            if params is not None:
                raise ValueError("two `params`")
            params = unpacker.unpack()
        else:
            unpacker.skip()
    size = os.fstat(file.fileno()).st_size
    if unpacker.tell() != size:
        raise ValueError(f"{size - unpacker.tell()} bytes follow its end")
    return params


def _tree(pairs: list[tuple[Any, Any]]) -> Any:
    """A map; one of chunks becomes the array that flax split."""
    tree = dict(pairs)
    if len(tree) != len(pairs):
        raise ValueError("a map with the same key twice")
    if _CHUNKED not in tree:
        return tree
    shape, chunks = (
        [tree[part][str(i)] for i in range(len(tree[part]))] for part in ("shape", "chunks")
    )
    return np.concatenate(chunks).reshape(shape)


def _extension(code: int, data: bytes) -> Any:
    if code == _COMPLEX:
        return complex(*msgpack.unpackb(data))
    if code not in (_NDARRAY, _SCALAR):
        raise ValueError(f"extension type {code}, expected {_NDARRAY}, an array")
    shape, dtype, content = msgpack.unpackb(data)
    if dtype == "bfloat16":  # numpy has none: the upper half of a float32
        upper = np.frombuffer(content, "<u2").astype("<u4")
        return (upper << 16).view("<f4").reshape(shape)
    if not re.fullmatch(r"(float|u?int|complex)\d+|bool", str(dtype)):
        raise ValueError(f"an array of type {dtype!r}")
    return np.frombuffer(content, np.dtype(dtype).newbyteorder("<")).reshape(shape)


def _write_tree(file: IO[bytes], tree: dict[str, Any]) -> None:
    """Pack a tree array by array, its names in order, as the official files."""
    packer = msgpack.Packer()
    file.write(packer.pack_map_header(len(tree)))
    for key, value in sorted(tree.items()):
        file.write(packer.pack(key))
        if isinstance(value, dict):
            _write_tree(file, value)
            continue
        content = value.to("cpu", torch.float32).numpy().astype("<f4", copy=False).tobytes()
        array = msgpack.packb((tuple(value.shape), "float32", content))
        file.write(packer.pack(msgpack.ExtType(_NDARRAY, array)))
