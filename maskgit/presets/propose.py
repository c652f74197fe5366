"""What `presets new` proposes: sizes by the images, budgets by their number and by the time.

The time of a step is measured here, forward and backward of networks of the proposed sizes; the
optimiser and validation come on top. A user with a GPU raises the widths and steps; the comments
say which ones.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from maskgit.common.errors import UsageError
from maskgit.common.image_sets import Files
from maskgit.data.images import class_names_of, opened, pixels_of
from maskgit.model.config import TokenizerConfig, TransformerConfig
from maskgit.model.tokenizer import Tokenizer
from maskgit.model.transformer import Transformer

LOOKED_AT = 64  # images, at even distances
SIDES = (32, 64, 96, 128, 192, 256)
TRANSFORMERS = 8  # seven schedules and the baseline
TOKENIZER_SHARE = 0.4  # of the time
BATCH = 32


def propose(
    data: str,
    asked: tuple[int | None, int | None],
    unconditional: bool,
    seconds: float,
    skip_broken: bool,
) -> tuple[str, list[str]]:
    """(text of the preset's file, lines on what was found and what it will cost).

    Raises:
        UsageError: no images there, or sizes that no tokenizer takes.
    """
    where = data if ":" in data.split("/")[0] else str(Path(data).expanduser().absolute())
    sets = opened(where)
    items = sets["all"] if "all" in sets else sets["train"]
    names = None if unconditional else class_names_of(items)
    shapes, count = _shapes(items, skip_broken), len(items)
    channels = 3 if any(shape[2] == 3 for shape in shapes) else 1
    short = int(median(min(shape[:2]) for shape in shapes))
    side = asked[0] or next((s for s in reversed(SIDES) if s <= short + s // 8), SIDES[0])
    width = asked[1] or side
    halvings = _halvings(side, width)
    step = 2**halvings
    tokens = (side // step) * (width // step)
    codes = int(2 ** np.clip(round(np.log2(max(count, 1) * tokens / 500)), 7, 10))
    small = count < 20_000
    shape = {"width": 128 if small else 256, "layers": 4, "heads": 4, "mlp": 512 if small else 1024}
    tokenizer = {
        "channels": channels,
        "filters": 32,
        "multipliers": [1, *[2] * halvings],
        "blocks": 1,
        "num_codes": codes,
        "code_dim": 32,
        "norm_groups": 8,
    }
    classes = len(names) if names else 1
    first, second = _seconds(tokenizer, shape, classes, (side, width), tokens)
    passes = 200 * count // BATCH + 200  # more of few images is learnt by heart
    steps = [
        int(np.clip(seconds * share / cost, 20, passes))
        for share, cost in (
            (TOKENIZER_SHARE, first),
            ((1 - TOKENIZER_SHARE) / TRANSFORMERS, second),
        )
    ]
    name = json.dumps(where, ensure_ascii=False)
    listed = [json.dumps(word, ensure_ascii=False) for word in names or []]
    lines = [
        f"# {count:,} images of {short} pixels on the shorter side (median of {len(shapes)}).",
        'base = "embedded"',
        "",
        "[data]",
        f"path = {name}",
        f"image_size = {side}" + (f"\nimage_width = {width}" if width != side else ""),
        f"num_classes = {classes}",
        *([f"class_names = [{', '.join(listed)}]"] if listed else ["conditional = false"]),
        f"train_images = {count}",
        'crop = "random-resized"  # other parts of an image in every epoch',
        "crop_scale = [0.8, 1.0]",
        f"flip = false  # true if a mirrored image is as good{_broken(skip_broken)}",
        "",
        f"[tokenizer]  # {step}x{step} pixels a token: {tokens} tokens",
        *_lines(tokenizer, {"num_codes": "by the number of images", "filters": "128 on a GPU"}),
        "",
        "[tokenizer_training]",
        f"steps = {steps[0]}  # {first:.3g} s each here",
        f"batch_size = {BATCH}",
        f"warmup_steps = {min(100, steps[0] // 5)}",
        "",
        "[transformer]",
        *_lines(shape, {"width": "768 in the paper", "layers": "24 in the paper"}),
        f"dropout = {0.1 if small else 0.0}",
        "",
        "[transformer_training]",
        f"steps = {steps[1]}  # {second:.3g} s each here, for each of {TRANSFORMERS} networks",
        f"batch_size = {BATCH}",
        f"warmup_steps = {min(100, steps[1] // 5)}",
        "",
        "[evaluation]",
        f"num_samples = {max(classes, 100 // classes * classes)}  # for a first look",
        f"table_samples = {max(classes, 1000 // classes * classes)}",
    ]
    kinds = "files" if isinstance(items, Files) else "array"
    words = [
        f"{count:,} images ({kinds}), {classes} classes" + (" (unconditional)" * (not listed)),
        f"{side}x{width} pixels, {tokens} tokens, {codes} codes",
        f"about {first * steps[0] / 60:.0f} min for the tokenizer, "
        f"{second * steps[1] * TRANSFORMERS / 60:.0f} min for {TRANSFORMERS} transformers here, "
        "without the optimiser and validation",
    ]
    return "\n".join(lines) + "\n", words


def _shapes(items: Any, skip_broken: bool) -> list[tuple[int, ...]]:
    """Height, width and channels of some images."""
    found = []
    for row in np.linspace(0, len(items) - 1, min(len(items), LOOKED_AT)).astype(int):
        try:
            found.append(pixels_of(items, int(row)).shape)
        except UsageError:
            if not skip_broken:
                raise
    if not found:
        raise UsageError(f"{items.where}: none of {LOOKED_AT} images could be read")
    return found


def _halvings(height: int, width: int) -> int:
    """So many that 64 to 255 tokens are left, where the sides allow it.

    Raises:
        UsageError: the sides cannot be halved so often.
    """
    halvings = 1
    while (height >> halvings) * (width >> halvings) >= 4 * 64:
        halvings += 1
    if height % 2**halvings or width % 2**halvings:
        raise UsageError(
            f"--size {height}, --width {width}: expected multiples of {2**halvings}, so that "
            "there are fewer than 256 tokens"
        )
    return halvings


def _lines(values: dict[str, Any], why: dict[str, str]) -> list[str]:
    return [
        f"{k} = {json.dumps(v)}" + (f"  # {why[k]}" if k in why else "") for k, v in values.items()
    ]


def _broken(skip: bool) -> str:
    return "\nskip_broken = true" if skip else ""


def _seconds(
    tokenizer: dict[str, Any],
    shape: dict[str, int],
    classes: int,
    size: tuple[int, int],
    tokens: int,
) -> tuple[float, float]:
    """Seconds of a training step of both networks on this machine, measured on small batches."""
    codes = {**tokenizer, "multipliers": tuple(tokenizer["multipliers"])}
    first, few = Tokenizer(TokenizerConfig(**codes)), 4
    images = torch.rand(few, tokenizer["channels"], *size)
    sizes = TransformerConfig(tokenizer["num_codes"], classes, tokens, **shape)
    second = Transformer(sizes)
    ids = torch.zeros(few, 1 + tokens, dtype=torch.int64)
    encode = _timed(lambda: first.decoder(first.encoder(images)).sum().backward())
    return encode * BATCH / few, _timed(lambda: second(ids).sum().backward()) * BATCH / few


def _timed(work: Any) -> float:
    work()
    began = time.monotonic()
    for _ in range(2):
        work()
    return (time.monotonic() - began) / 2
