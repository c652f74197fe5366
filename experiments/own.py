"""The preset of an experiment's options, with what one's own data leave open decided."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from eval.weights.files import weights_path
from experiments.engine.keys import digest
from maskgit.checkpoints.paths import model_path
from maskgit.common.errors import UsageError
from maskgit.presets import load_preset

if TYPE_CHECKING:
    from collections.abc import Sequence

    from experiments.engine.options import RunOptions
    from maskgit.presets import Preset

# Networks that know photos, the one that papers use first; the last comes from a package.
NETWORKS = ("inception-v3-compat", "dinov2-vit-l-14", "efficientnet-lite0")


def chosen_preset(options: RunOptions) -> Preset:
    """The preset of --preset for an experiment.

    Where it names no feature network, the first of NETWORKS whose weights are here; where it names
    no reference, that of its own training split. Its schedules are those that were trained.

    Raises:
        UsageError: as load_preset.
    """
    preset = with_measures(load_preset(options.preset))
    if preset.ships or options.preset == preset.name:
        return preset
    trained = tuple(name for name in preset.schedules if _is_there(preset, name, options))
    return replace(preset, schedules=trained or preset.schedules)


def with_measures(preset: Preset) -> Preset:
    """The preset with a feature network and a reference."""
    if not preset.features:
        preset = replace(preset, features=next(filter(_has_weights, NETWORKS), NETWORKS[-1]))
    if not preset.reference:
        # Not the preset's name, which stands in no key.
        data = digest([preset.content()["data"], preset.reference_split])[:16]
        preset = replace(preset, reference=f"own-{data}")
    return preset


def _has_weights(name: str) -> bool:
    try:
        weights_path(name)
    except UsageError:
        return False
    return True


def _is_there(preset: Preset, schedule: str, options: RunOptions) -> bool:
    try:
        model_path(preset, f"transformer-{schedule}", options.weights)
    except UsageError:
        return False
    return True


def usual_classes(options: Any, name: str, there: Sequence[int]) -> str:
    """The value of an option that names classes; by default those of its default that are there,
    or the first one that is."""
    text = getattr(options, name)
    if text != next(item.default for item in fields(options) if item.name == name):
        return text
    kept = [number for number in map(int, text.split(",")) if number in there]
    return ",".join(map(str, kept or sorted(there)[:1]))
