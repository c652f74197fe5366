"""The sizes of the networks. This module imports no torch, so presets answer at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from maskgit.common.errors import UsageError


def _check_sizes(kind: str, sizes: dict[str, object]) -> None:
    """Raise UsageError unless each is an integer of at least 1."""
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UsageError(f"{kind} {name} must be an integer >= 1, got {value!r}")


@dataclass(frozen=True)
class TokenizerConfig:
    """Sizes of the tokenizer; the defaults are the official ImageNet ones (f = 16)."""

    channels: int = 3
    filters: int = 128
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    blocks: int = 2
    num_codes: int = 1024
    code_dim: int = 256
    norm_groups: int = 32

    def __post_init__(self) -> None:
        sizes = dict(vars(self))
        if not isinstance(sizes.pop("multipliers"), tuple) or not self.multipliers:
            raise UsageError(f"tokenizer multipliers must be a list, got {self.multipliers!r}")
        _check_sizes("tokenizer", sizes)
        for multiplier in self.multipliers:
            _check_sizes("tokenizer", {"multipliers": multiplier})
            if self.filters * multiplier % self.norm_groups or self.filters % self.norm_groups:
                raise UsageError(
                    f"tokenizer norm_groups must divide the widths {self.filters} and "
                    f"{self.filters} x {multiplier}, got {self.norm_groups}"
                )

    @property
    def depth(self) -> int:
        """How many residual blocks there are in each direction, without the middle ones."""
        return self.blocks * len(self.multipliers)

    @property
    def largest(self) -> int:
        """The largest of the sizes."""
        return max(self.channels, self.filters, *self.multipliers, self.num_codes, self.code_dim)

    @property
    def downsampling(self) -> int:
        """Pixels a side that one code covers."""
        return 2 ** (len(self.multipliers) - 1)

    def check_images(self, shape: Sequence[int]) -> None:
        """Whether images of that shape can be encoded.

        Raises:
            UsageError: it is not (B, C, H, W) with the tokenizer's channels, or the downsampling
                does not divide a side.
        """
        step, channels = self.downsampling, self.channels
        if len(shape) != 4 or shape[1] != channels:
            raise UsageError(f"images of shape {tuple(shape)}: expected (B, {channels}, H, W)")
        if shape[2] % step or shape[3] % step:
            raise UsageError(
                f"images of {shape[2]}x{shape[3]} pixels: height and width must be multiples of "
                f"{step}"
            )

    def check_range(self, lowest: int, highest: int) -> None:
        """Whether code indices between these two can be decoded.

        Raises:
            UsageError: one lies outside the codebook.
        """
        if not 0 <= lowest <= highest < self.num_codes:
            raise UsageError(f"code indices {lowest}..{highest}: expected 0..{self.num_codes - 1}")


@dataclass(frozen=True)
class TransformerShape:
    """Sizes of a transformer that do not follow from the tokenizer and the data."""

    width: int = 768
    layers: int = 24
    heads: int = 16
    mlp: int = 3072
    dropout: float = 0.1


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of a Transformer. The defaults are the paper's (heads: as in the released weights)."""

    num_codes: int
    num_classes: int
    num_tokens: int  # N, positions of the grid; the sequence has one more, the class
    width: int = 768
    layers: int = 24
    heads: int = 16
    mlp: int = 3072
    dropout: float = 0.1

    def __post_init__(self) -> None:
        _check_sizes("transformer", {k: v for k, v in vars(self).items() if k != "dropout"})
        if self.width % self.heads:
            raise UsageError(
                f"transformer heads must divide the width {self.width}, got heads={self.heads}"
            )
        if isinstance(self.dropout, bool) or not isinstance(self.dropout, int | float):
            raise UsageError(f"transformer dropout must be a number, got {self.dropout!r}")
        if not 0.0 <= self.dropout < 1.0:
            raise UsageError(f"transformer dropout must be in [0, 1), got {self.dropout!r}")

    @property
    def depth(self) -> int:
        """How many layers there are."""
        return self.layers

    @property
    def largest(self) -> int:
        """The largest of the sizes."""
        return max(self.num_codes, self.num_classes, self.num_tokens, self.width, self.mlp)

    @property
    def vocab_size(self) -> int:
        """Codes, classes and the mask."""
        return self.num_codes + self.num_classes + 1

    @property
    def mask_id(self) -> int:
        """The token id of a masked position, the last of the vocabulary."""
        return self.vocab_size - 1
