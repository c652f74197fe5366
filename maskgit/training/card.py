"""Model cards: what a folder of weights says of where they come from."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from maskgit.checkpoints import weights_sha256
from maskgit.common.files import atomic_write
from maskgit.presets import Preset
from maskgit.training.loop import Trainer

UNITS = {
    "test_psnr": "dB, mean squared error over all pixels of the 10,000 test images",
    "codes_used": "codes that the test images use",
    "validation_nll": "nats a predicted token, at most 2,000 held-out images, averaged weights",
    "train_loss": "mean of the last logged steps, with label smoothing where the preset has it",
}


def make_card(
    preset: Preset, stage: str, trainer: Trainer, results: dict[str, float], **more: Any
) -> dict[str, Any]:
    """The card of a finished run; `write_card` adds the hash of the weights.

    more: further entries ("data", "command", "schedule", ...), or others in the place of ours.
    """
    cuda = torch.cuda.is_available()
    budget = asdict(trainer.optimisation)
    return {
        "stage": stage,
        "preset": preset.name,
        **more,
        "budget": budget,
        "images_seen": budget["steps"] * budget["batch_size"],
        "seconds": round(trainer.seconds),
        "seed": trainer.options.seed,
        "processes": trainer.stage.accelerator.num_processes,
        "precision": trainer.precision,
        "device": torch.cuda.get_device_name() if cuda else f"CPU, {platform.machine()}",
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "results": {k: round(v, 4) for k, v in results.items() if k in UNITS},
    }


def write_card(folder: Path, card: dict[str, Any]) -> None:
    """Write card.json and README.md into a folder of weights, with their sha256."""
    card = {**card, "sha256": weights_sha256(folder)}
    text = json.dumps(card, indent=2, sort_keys=True) + "\n"
    atomic_write(folder / "card.json", text.encode())
    rows = {
        "data": card["data"],
        "command": f"`{card['command']}`",
        "budget": ", ".join(f"{k} {v}" for k, v in card["budget"].items()),
        "images seen": card["images_seen"],
        "wall-clock": f"{card['seconds']} s on {card['device']}, {card['threads']} threads, "
        f"{card['precision']}, shared with other work",
        **{f"{k} ({UNITS[k]})": v for k, v in card["results"].items()},
        "sha256 of model.safetensors": f"`{card['sha256']}`",
        "trained with": ", ".join(f"{k} {v}" for k, v in card["versions"].items()),
    }
    lines = [f"# {folder.name}", "", "| | |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in rows.items()]
    atomic_write(folder / "README.md", ("\n".join(lines) + "\n").encode())
