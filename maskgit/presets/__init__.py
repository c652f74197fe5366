"""Presets: named configurations, each a TOML file; `load_preset` reads one.

`embedded` runs on a laptop; `imagenet256`, `imagenet512` and `places2` are the paper's. Their files
in this folder say what they cost and give, and where each value comes from. docs/own-data.md is
about files of one's own.
"""

from maskgit.presets.files import NAMES, load_preset, preset_toml
from maskgit.presets.preset import PAPER_SCHEDULES, Preset

__all__ = ["NAMES", "PAPER_SCHEDULES", "Preset", "load_preset", "preset_toml"]
