"""Editing, inpainting and outpainting: a known part of the tokens stays, the rest is decoded.

All of them are constraints on the mask that decoding starts from (paper, section 4.3). A mask is
given in pixels; a token is unknown when its cell touches the mask. What the user sees is a
composite of the decoded image and the input, so that what is far from the mask is kept bit by bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from maskgit.common.errors import UsageError
from maskgit.decoding import generate
from maskgit.model.tokenizer import Tokenizer
from maskgit.model.transformer import Transformer

DIRECTIONS = ("right", "left", "top", "bottom")
BLENDS = ("gaussian", "hard")
# The official notebook decodes a box from iteration 2 of 12, the rest of the image being known.
STEPS, START = 12, 2


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels, in the order of the official notebook: top, left, height, width."""

    top: int
    left: int
    height: int
    width: int

    def check(self, height: int, width: int, name: str = "--box") -> None:
        """Whether it lies in an image of that size.

        Raises:
            UsageError: it is empty or does not.
        """
        inside = min(self.top, self.left) >= 0 and min(self.height, self.width) >= 1
        if not (inside and self.top + self.height <= height and self.left + self.width <= width):
            raise UsageError(
                f"{name} {self.top},{self.left},{self.height},{self.width}: expected "
                f"TOP,LEFT,HEIGHT,WIDTH in pixels inside the image of {height}x{width}"
            )


@dataclass(frozen=True)
class Edit:
    """What `edit` returns, for B images of H x W pixels and h x w tokens."""

    images: Tensor  # (B, C, H, W) float32 in [0, 1], composited
    decoded: Tensor  # (B, C, H, W) float32 in [0, 1], the decoder's output alone
    tokens: Tensor  # (B, N) int64
    latent_mask: np.ndarray  # (h, w) bool, the tokens that were decoded
    weights: np.ndarray  # (H, W) float32 in [0, 1], the decoded image's share of the composite


def box_mask(box: Box, height: int, width: int) -> np.ndarray:
    """Pixel mask (H, W) bool that is True in the box. Raises UsageError if it lies outside."""
    box.check(height, width)
    mask = np.zeros((height, width), bool)
    mask[box.top : box.top + box.height, box.left : box.left + box.width] = True
    return mask


def center_mask(height: int, width: int, share: float = 0.5) -> np.ndarray:
    """The centre of `share` of the height and of the width: the paper's 50% x 50% inpainting."""
    rows, columns = (_part(share, side, "--share") for side in (height, width))
    return box_mask(Box((height - rows) // 2, (width - columns) // 2, rows, columns), height, width)


def side_mask(direction: str, height: int, width: int, share: float = 0.5) -> np.ndarray:
    """The part to outpaint: `share` of the image at its right, left, top or bottom.

    Raises:
        UsageError: another direction, or a share outside (0, 1).
    """
    if direction not in DIRECTIONS:
        raise UsageError(f"--direction {direction}: expected one of {', '.join(DIRECTIONS)}")
    mask = np.zeros((height, width), bool)
    size = _part(share, width if direction in ("right", "left") else height, "--share")
    if direction == "right":
        mask[:, width - size :] = True
    elif direction == "left":
        mask[:, :size] = True
    elif direction == "top":
        mask[:size] = True
    else:
        mask[height - size :] = True
    return mask


def latent_box(box: Box, size: tuple[int, int], downsampling: int) -> np.ndarray:
    """The official notebook's latent mask (h, w) of a box: rounded down, and grown by a cell.

    size: (H, W) of the image in pixels. As officially (inference.py,
    create_latent_mask_and_input_tokens_for_image_editing), top and height are divided separately,
    so a box off the cells' grid may end a cell earlier than one would think.
    """
    box.check(*size)
    cells = size[0] // downsampling, size[1] // downsampling
    mask = np.zeros(cells, bool)
    bottom = box.height // downsampling + box.top // downsampling + 1
    right = box.left // downsampling + box.width // downsampling + 1
    mask[
        max(0, box.top // downsampling - 1) : min(cells[0], bottom),
        max(0, box.left // downsampling - 1) : min(cells[1], right),
    ] = True
    return mask


def latent_mask(mask: np.ndarray, downsampling: int) -> np.ndarray:
    """Pixel mask (H, W) bool -> latent mask (h, w) bool: every cell that the mask touches.

    Raises:
        UsageError: H or W is no multiple of the cell, or nothing or everything is masked.
    """
    height, width = mask.shape
    if height % downsampling or width % downsampling:
        raise UsageError(
            f"image of {height}x{width}: both must be multiples of {downsampling}, the pixels of a "
            "token"
        )
    cells = mask.reshape(height // downsampling, downsampling, width // downsampling, downsampling)
    latent: np.ndarray = np.asarray(cells.any(axis=(1, 3)))
    if not latent.any() or latent.all():
        what = "nothing" if not latent.any() else "every token"
        raise UsageError(f"mask: covers {what}; expected a part of the image")
    return latent


def hide(images: Tensor, mask: np.ndarray) -> Tensor:
    """Images (B, C, H, W) with the masked pixels at the mean of each image's known pixels.

    The tokenizer sees beyond a cell's edge: without this, the tokens around a hole would tell what
    was in it.
    """
    hidden = torch.from_numpy(mask).to(images.device)
    known = (~hidden).to(images.dtype)
    mean = (images * known).sum(dim=(2, 3), keepdim=True) / known.sum()
    return torch.where(hidden, mean, images)


def blend_weights(
    latent: np.ndarray, size: tuple[int, int], radius: float | None = None
) -> np.ndarray:
    """The share (H, W) float32 of the decoded image: the latent mask, enlarged and blurred.

    size: (H, W). radius: of the Gaussian, in pixels; by default the official H // 16 - 1
    (inference.py, composite_outputs), which at 32 pixels is 1. As there, 8 bits deep.
    """
    height, width = size
    shown = Image.fromarray((latent * 255).astype(np.uint8)).resize((width, height))
    blurred = shown.filter(
        ImageFilter.GaussianBlur(max(0, height // 16 - 1) if radius is None else radius)
    )
    return np.asarray(blurred, np.float32) / np.float32(255)


def composite(images: Tensor, decoded: Tensor, weights: np.ndarray) -> Tensor:
    """Weighted mean of both, (B, C, H, W); where the weight is 0 the input's very bits."""
    share = torch.from_numpy(weights).to(images.device, images.dtype)
    return torch.where(share == 0, images, decoded * share + (1 - share) * images)


@torch.inference_mode()
def edit(
    transformer: Transformer,
    tokenizer: Tokenizer,
    images: Tensor,
    labels: Tensor,
    latent: np.ndarray,
    *,
    pixels: np.ndarray | None = None,
    hidden: bool = False,
    blend: str = "gaussian",
    steps: int = STEPS,
    start: int = START,
    **settings: Any,
) -> Edit:
    """Decode the masked tokens of images again, as class `labels`, and composite.

    images: (B, C, H, W) float32 in [0, 1]; labels: (B,) class ids.
    latent: (h, w) bool, from `latent_box` or `latent_mask`: which tokens to decode.
    pixels: (H, W) bool, the user's mask; by default all pixels of the masked tokens. With
        blend="hard" every pixel outside is kept, with "gaussian" those beyond the blur.
    hidden: the masked pixels are unknown (inpainting, outpainting): they are hidden from the
        tokenizer, and none of them is in the composite. Otherwise (an edit, as in the official
        notebook) the tokenizer sees the whole image.
    steps, start: iterations, and the one to begin with. settings: further ones of `generate`.

    Raises:
        UsageError: a mask or an argument that does not fit.
    """
    if blend not in BLENDS:
        raise UsageError(f"--blend {blend}: expected one of {', '.join(BLENDS)}")
    cell = tokenizer.config.downsampling
    height, width = images.shape[2:]
    if latent.shape != (height // cell, width // cell):
        raise UsageError(
            f"latent mask of {latent.shape}: expected {(height // cell, width // cell)}"
        )
    if pixels is None:
        pixels = latent.repeat(cell, 0).repeat(cell, 1)
    seen = hide(images, pixels) if hidden else images
    codes = tokenizer.encode(seen).flatten(1)
    unknown = torch.from_numpy(latent.reshape(-1)).to(codes.device)
    tokens = generate(
        transformer,
        labels,
        steps=steps,
        start=start,
        tokens=codes.masked_fill(unknown, transformer.config.mask_id),
        **settings,
    )
    decoded = tokenizer.decode(tokens.view(len(tokens), *latent.shape)).clamp(0.0, 1.0)
    weights = pixels.astype(np.float32)
    if blend == "gaussian":
        blurred = blend_weights(latent, (height, width))
        # What is hidden must not shine through the blur.
        weights = np.maximum(blurred, weights) if hidden else blurred
    return Edit(composite(images, decoded, weights), decoded, tokens, latent, weights)


def _part(share: float, side: int, name: str) -> int:
    size = round(share * side) if 0 < share < 1 else 0
    if not 1 <= size < side:
        raise UsageError(f"{name} {share}: expected a share of the side, above 0 and below 1")
    return size
