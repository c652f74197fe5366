"""The networks of a grid: which file each is, that it fits the preset, and what it hashes to."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.engine.keys import digest
from maskgit import checkpoints
from maskgit.checkpoints.contents import read_card, read_sizes, weights_sha256
from maskgit.checkpoints.paths import model_path
from maskgit.common.errors import UsageError
from maskgit.model.config import TokenizerConfig

if TYPE_CHECKING:
    from maskgit.presets import Preset

# Official files do not say it; maskgit_class_cond_config.py of google-research/maskgit does.
OFFICIAL_SCHEDULE = "cosine"


@dataclass(frozen=True)
class Network:
    """One network on disk.

    Attributes:
        role: tokenizer, transformer or the kind of another sampler: `maskgit.checkpoints` has a
            function load_ROLE.
        path: our folder, or an official flax file.
        sha256: of its weights.
        sizes: its configuration, plain data. The number of heads, say, changes every number and
            cannot be seen in the weights of our own files.
        card: the model card; an official file has none, so what is known of it stands there.
        parameters: how many it has.
    """

    role: str
    path: Path
    sha256: str
    sizes: dict[str, Any]
    card: dict[str, Any]
    parameters: int

    @property
    def identity(self) -> list[str]:
        """What stands for the network in a key."""
        return [self.sha256, digest(self.sizes)]

    def load(self) -> None:
        """Load it and let it go again.

        Raises:
            UsageError: it is damaged, or its values are not finite.
        """
        codes = self.sizes["num_codes"] if self.role == "transformer" else None
        _load(self.role, self.path, codes, _state(self.path))

    def check(self, model: Any) -> None:
        """Whether a model that was just loaded is the one whose hashes stand in the keys.

        Raises:
            UsageError: its files were replaced after the run began.
        """
        sizes = digest(asdict(model.config))
        if [weights_sha256(self.path), sizes] != self.identity:
            raise UsageError(
                f"{self.path}: the weights were replaced while the run went on; start it again"
            )


def find_networks(preset: Preset, names: Iterable[str], weights: Path | None) -> dict[str, Network]:
    """Find networks and read their sizes; `Network.load` then shows whether they are whole.

    names: "tokenizer", and what `samplers.Sampler.network` returns.

    A file that serves several schedules is hashed once. An official file says its sizes only once
    it is loaded.

    Raises:
        UsageError: one is missing, has no sizes, or does not fit the preset.
    """
    return {
        name: _look_at(preset, name.partition("-")[0], model_path(preset, name, weights))
        for name in names
    }


def _look_at(preset: Preset, role: str, path: Path) -> Network:
    if path.is_dir():
        config, count = read_sizes(path, role)
    else:  # an official file of a transformer does not know its codes
        codes = preset.num_codes if role == "transformer" else None
        config, count = _load(role, path, codes, _state(path))
    if isinstance(config, TokenizerConfig):
        pairs = [
            ("codes", config.num_codes, preset.num_codes),
            ("channels", config.channels, preset.channels),
            ("pixels per token", config.downsampling, preset.tokenizer.downsampling),
        ]
    else:
        pairs = [
            ("codes", config.num_codes, preset.num_codes),
            ("classes", config.num_classes, preset.num_classes),
            ("tokens", config.num_tokens, preset.num_tokens),
        ]
    for what, got, expected in pairs:
        if got != expected:
            raise UsageError(f"{path}: {got} {what}, --preset {preset.name} has {expected}")
    sizes = asdict(config)
    card = read_card(path) if path.is_dir() else _official_card(preset, role, path, sizes)
    return Network(role, path, weights_sha256(path), sizes, card, count)


@lru_cache(maxsize=64)
def _load(role: str, path: Path, codes: int | None, state: object) -> tuple[Any, int]:
    """(configuration, number of parameters) of a network that was loaded and let go again.

    state: of its files, so that one that was replaced is read anew; a large one is read once for
    all the grids of a process.
    """
    load = getattr(checkpoints, f"load_{role}")
    model = load(path) if codes is None else load(path, num_codes=codes)
    config, count = model.config, sum(parameter.numel() for parameter in model.parameters())
    del model
    trim_memory()
    return config, count


def trim_memory() -> None:
    """Hand freed memory back to the system, where the C library can: glibc keeps what it got."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _state(path: Path) -> tuple[tuple[int, int, int], ...]:
    """Size, time and inode of a model's files."""
    files = [path] if path.is_file() else [path / "config.json", path / "model.safetensors"]
    found = [file.stat() for file in files if file.is_file()]
    return tuple((stat.st_size, stat.st_mtime_ns, stat.st_ino) for stat in found)


def _official_card(preset: Preset, role: str, path: Path, sizes: dict[str, Any]) -> dict[str, Any]:
    card = {"format": "official flax file", "name": path.name, "sizes": sizes}
    if role == "transformer" and path.name == preset.official.get(role):
        card["schedule"] = OFFICIAL_SCHEDULE
    return card


def shared_words(networks: Mapping[str, Network]) -> str:
    """In plain words, which transformers serve several schedules; empty if none does.

    networks: schedule -> the transformer that decodes it.
    """
    users: dict[str, list[str]] = {}
    for schedule, network in networks.items():
        users.setdefault(network.sha256, []).append(schedule)
    parts = []
    for schedules in users.values():
        if len(schedules) > 1:
            network = networks[schedules[0]]
            trained = network.card.get("schedule")
            how = f"trained with the {trained} schedule" if trained else "training schedule unknown"
            every = len(schedules) == len(networks)
            whom = "every schedule" if every else ", ".join(schedules)
            parts.append(f"one transformer, {how}, decoded with {whom}")
    return "; ".join(parts)
