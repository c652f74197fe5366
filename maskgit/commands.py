"""What the commands of `python -m maskgit` do, without the command line."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskgit.checkpoints import load_tokenizer, load_transformer
from maskgit.checkpoints.paths import model_path
from maskgit.common.device import check_device
from maskgit.common.errors import UsageError
from maskgit.data.photos import load_photo, write_png
from maskgit.decoding import generate
from maskgit.model.tokenizer import Tokenizer
from maskgit.model.transformer import Transformer
from maskgit.presets import Preset, load_preset
from maskgit.sampling import editing
from maskgit.sampling.panorama import extend
from maskgit.schedules import validate


def run(options: Namespace) -> list[Path]:
    """Do what the command line asks; returns the files written.

    Raises:
        UsageError: anything that does not fit; nothing was written.
    """
    preset = load_preset(options.preset)
    validate(options.schedule)
    classes = parse_classes(options.classes, preset)
    if options.num < 1:
        raise UsageError(f"--num {options.num}: expected at least 1")
    if options.output.suffix.lower() != ".png" or options.output.is_dir():
        raise UsageError(f"--output {options.output}: expected the name of a PNG file")
    if getattr(options, "blend", "hard") not in editing.BLENDS:
        raise UsageError(f"--blend {options.blend}: expected one of {', '.join(editing.BLENDS)}")
    photo = load_photo(options.input, preset) if "input" in options else None
    task = _masks(options, preset, photo) if photo is not None else {}
    models = _models(options, preset)
    labels = torch.tensor(classes).repeat_interleave(options.num)
    temperature = options.choice_temperature
    temperature = preset.choice_temperature if temperature is None else temperature
    settings: dict[str, Any] = {
        "steps": options.steps,
        "schedule": options.schedule,
        "seed": options.seed,
        "choice_temperature": temperature,
    }
    images = _compute(options, preset, models, photo, task, labels, settings)
    pixels = images.clamp(0.0, 1.0).mul(255.0).round_().permute(0, 2, 3, 1)
    return _write(options, pixels.to(torch.uint8).cpu().numpy())


def parse_classes(text: str, preset: Preset) -> list[int]:
    """Class ids from names or numbers with commas between them, or `all`.

    Raises:
        UsageError: a class that the preset does not have.
    """
    if text == "all":
        return list(range(preset.num_classes))
    names = {name.lower(): number for number, name in enumerate(preset.class_names)}
    classes = []
    for word in (word.strip() for word in text.split(",")):
        number = int(word) if word.isascii() and word.isdigit() else names.get(word.lower(), -1)
        if not 0 <= number < preset.num_classes:
            some = ", ".join(preset.class_names[:10])
            more = " or their names" if preset.num_classes > 10 else f" or of {some}"
            raise UsageError(
                f"--class {text}: {word!r} is not one of 0..{preset.num_classes - 1}{more}"
            )
        classes.append(number)
    return classes


def _masks(options: Namespace, preset: Preset, photo: Any) -> dict[str, Any]:
    """Arguments of `editing.edit` that the command and its flags stand for."""
    side, cell = preset.image_size, preset.tokenizer.downsampling
    if options.command == "edit":
        box = photo.box(options.box)
        latent = editing.latent_box(box, (side, side), cell)
        if latent.all():
            raise UsageError(f"--box {options.box}: covers every token; expected a part")
        return {"latent": latent, "pixels": editing.box_mask(box, side, side)}
    if options.command == "inpaint" and options.mask is not None:
        pixels = photo.mask(options.mask)
    elif options.command == "inpaint" and options.box is not None:
        pixels = editing.box_mask(photo.box(options.box), side, side)
    elif options.command == "inpaint":
        pixels = editing.center_mask(side, side, options.share)
    elif options.command == "outpaint":
        pixels = editing.side_mask(options.direction, side, side, options.share)
    else:
        return {}
    return {"latent": editing.latent_mask(pixels, cell), "pixels": pixels, "hidden": True}


def _models(options: Namespace, preset: Preset) -> tuple[Transformer, Tokenizer]:
    device = check_device(options.device)
    transformer = load_transformer(
        model_path(preset, f"transformer-{options.schedule}", options.weights), preset.num_codes
    )
    tokenizer = load_tokenizer(model_path(preset, "tokenizer", options.weights))
    if transformer.config.num_tokens != preset.num_tokens:
        raise UsageError(
            f"the transformer has {transformer.config.num_tokens} tokens an image, --preset "
            f"{preset.name} {preset.num_tokens}"
        )
    return transformer.to(device), tokenizer.to(device)


@torch.inference_mode()
def _compute(
    options: Namespace,
    preset: Preset,
    models: tuple[Transformer, Tokenizer],
    photo: Any,
    task: dict[str, Any],
    labels: Tensor,
    settings: dict[str, Any],
) -> Tensor:
    transformer, tokenizer = models
    device = transformer.word_embeddings.weight.device
    labels = labels.to(device)
    if photo is None:
        tokens = generate(transformer, labels, **settings)
        return tokenizer.decode(tokens.view(-1, *preset.grid))
    images = photo.image.to(device).expand(len(labels), -1, -1, -1).contiguous()
    settings["start"] = options.start
    if options.command == "panorama":
        return extend(
            transformer,
            tokenizer,
            images,
            labels,
            options.width,
            overlap=options.overlap,
            **settings,
        ).images
    return editing.edit(
        transformer, tokenizer, images, labels, blend=options.blend, **task, **settings
    ).images


def _write(options: Namespace, images: np.ndarray) -> list[Path]:
    """One sheet with a class a row, or a file per image."""
    output: Path = options.output
    if len(images) == 1:
        return [write_png(images[0], output)]
    if options.separate:
        width = len(str(len(images) - 1))
        return [
            write_png(image, output.with_name(f"{output.stem}-{number:0{width}d}.png"))
            for number, image in enumerate(images)
        ]
    columns = options.num if options.num > 1 else len(images)
    rows = images.reshape(-1, columns, *images.shape[1:])
    padded = np.pad(rows, ((0, 0), (0, 0), (0, 2), (0, 2), (0, 0)), constant_values=255)
    sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in padded], axis=0)
    return [write_png(sheet[:-2, :-2], output)]
