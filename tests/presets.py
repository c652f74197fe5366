"""Presets of tests, found by their name as those that come with the package are."""

import shutil
from pathlib import Path

from maskgit.presets import files


def register(monkeypatch, folder, preset):
    """Let --preset NAME mean this preset in this process; its file lies in `folder`."""
    if Path(folder) / "presets" != files.FOLDER:
        shutil.copytree(files.FOLDER, Path(folder) / "presets")
        monkeypatch.setattr(files, "FOLDER", Path(folder) / "presets")
    (files.FOLDER / f"{preset.name}.toml").write_text(files.preset_toml(preset), encoding="utf-8")
    monkeypatch.setattr(files, "NAMES", tuple(sorted({*files.NAMES, preset.name})))
