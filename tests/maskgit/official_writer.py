"""Random weights of a preset's full size, as official files; for tests that need the real size."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import torch

from maskgit.checkpoints.flax import write_flax
from maskgit.model.config import TransformerConfig
from maskgit.model.tokenizer import Tokenizer
from maskgit.model.transformer import Transformer
from maskgit.presets import Preset, load_preset


def write_official_weights(preset: Preset, folder: Path, seed: int = 0) -> None:
    """Write `preset.official`'s files to `folder`: tokenizer and transformer, from a seed.

    The weights are normal, scaled so that signals keep their size through the layers; samples are
    noise. Normalisations keep scale 1 and bias 0. At the full size that is 0.9 GB on the disk.
    """
    shape = TransformerConfig(
        preset.num_codes, preset.num_classes, preset.num_tokens, **asdict(preset.transformer)
    )
    generator = torch.Generator().manual_seed(seed)
    for role in ("tokenizer", "transformer"):
        model: Tokenizer | Transformer
        with torch.device("meta"):  # the usual initialisation takes longer and is thrown away
            model = Tokenizer(preset.tokenizer) if role == "tokenizer" else Transformer(shape)
        model.to_empty(device="cpu")
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "norm" in name and name.endswith("weight"):
                    parameter.fill_(1.0)
                elif parameter.ndim == 1:
                    parameter.zero_()
                elif "embeddings" in name:
                    parameter.normal_(std=0.02, generator=generator)
                else:
                    fan_in = parameter[0].numel()
                    parameter.normal_(std=fan_in**-0.5, generator=generator)
        write_flax(folder / preset.official[role], model)


if __name__ == "__main__":
    write_official_weights(load_preset(sys.argv[1]), Path(sys.argv[2]))
