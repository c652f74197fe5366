"""Which file or folder holds a preset's model: own training, official files, the zoo."""

from __future__ import annotations

from pathlib import Path

from maskgit.common.errors import UsageError
from maskgit.common.files import cache_folder
from maskgit.common.records import check_size
from maskgit.presets import NAMES, Preset

ZOO = Path(__file__).parents[1] / "zoo"
OFFICIAL_URL = "https://storage.googleapis.com/maskgit-public/checkpoints"


def zoo_path(name: str) -> Path:
    """Folder of a model shipped with the package, such as "tokenizer" or "transformer-cosine"."""
    names = sorted(folder.parent.name for folder in ZOO.glob("*/config.json"))
    if name not in names:
        raise UsageError(
            f"model {name}: expected one of {', '.join(names) or '(the zoo is empty)'}"
        )
    return ZOO / name


def checkpoints_folder() -> Path:
    """Where `python -m maskgit.checkpoints fetch` puts the official files."""
    return cache_folder() / "checkpoints"


def model_path(preset: Preset, name: str, weights: Path | None = None) -> Path:
    """The folder or official file of one of a preset's models; nothing of it is read.

    name: "tokenizer", "transformer-SCHEDULE" or "autoregressive".
    weights: the folder to look in; None is the zoo for a preset whose weights ship, for the others
        where they were trained, and if nothing was, the folder of fetched files. There, in this
        order: NAME; for a transformer also `transformer`, one for all schedules; the official
        file, whose transformer likewise serves every schedule.

    Raises:
        UsageError: nothing is there, or an official file whose size is not the recorded one; the
            line says where it looked and how to get the weights.
    """
    role = name.partition("-")[0]
    if weights is None and preset.ships:
        return zoo_path(name)
    folder = checkpoints_folder() if weights is None else Path(weights)
    if weights is None and (not preset.official or preset.weights_folder.is_dir()):
        folder = preset.weights_folder
    if weights is not None and not folder.is_dir():
        raise UsageError(f"--weights {weights}: no such folder; {_how_to_get(preset, name, role)}")
    candidates = [name]
    if name != role:
        candidates.append(role)
    for candidate in candidates:
        if (folder / candidate).is_dir():
            return folder / candidate
    official = preset.official.get(role)
    if official is not None:
        candidates.append(official)
        if (folder / official).is_file():
            check_size(folder / official)
            return folder / official
    where = f"--weights {weights}" if weights is not None else f"--preset {preset.name}"
    raise UsageError(
        f"{where}: {folder} has no {' and no '.join(candidates)}; {_how_to_get(preset, name, role)}"
    )


def _how_to_get(preset: Preset, name: str, role: str) -> str:
    """What a user can do about weights that are not there."""
    if preset.name not in NAMES:
        return "`python experiments/train.py --preset FILE.toml` trains it"
    train = f"train it with `python -m maskgit.training {role} --preset {preset.name}`"
    if role not in preset.official:
        return train
    return f"`python -m maskgit.checkpoints fetch --preset {preset.name}` fetches it, or {train}"
