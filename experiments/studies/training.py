"""The networks of a preset trained one after the other: what experiments/train.py does."""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.engine.grid import parse_names
from experiments.engine.keys import digest
from experiments.engine.store.lease import Leases
from experiments.own import with_measures
from experiments.studies import references
from maskgit.common.device import available_cores
from maskgit.common.errors import Unavailable, UsageError
from maskgit.common.files import read_json, sha256_of, write_json
from maskgit.data.registry import open_split
from maskgit.presets import load_preset
from maskgit.training.settings import RunOptions

if TYPE_CHECKING:
    from maskgit.presets import Preset

STAGES = ("tokenizer", "tokens", "transformers", "autoregressive", "reference")


@dataclass(frozen=True)
class Options:
    """Train the networks that the experiments want."""

    preset: str = "embedded"
    """A name, or the path of a TOML file."""
    data: Path | None = None
    """Where the images are. Default: as the preset's data.path says."""
    out: Path | None = None
    """Folder of the finished networks. Default: runs/NAME/weights, where experiments look."""
    only: str = "all"
    """Of tokenizer, tokens, transformers, autoregressive, reference."""
    schedules: str = "all"
    """Mask schedules, such as cosine,linear. Default: the preset's."""
    max_steps: int | None = None
    """Optimiser steps of each training at most, for a first try."""
    skip_broken: bool = False
    """Leave out files that are no images, as skip_broken in the preset's [data] does."""
    workers: int = 0
    """Processes that decode images."""
    threads: int | None = None
    """CPU threads. Default: all cores."""
    seed: int = 0
    """Of the initialisation, the order and the crops."""
    dry_run: bool = False
    """Say what is to do and what it costs, and do nothing."""


@dataclass(frozen=True)
class _Stage:
    """A stage: the key of all that its outcome depends on, the files that say it is there."""

    name: str
    key: str
    made: tuple[Path, ...]
    work: Callable[[Path], None]  # called with a folder for checkpoints
    cost: str = ""


def run(options: Options) -> int:
    """Train what is not there.

    Raises:
        UsageError: a wrong request, images that do not fit, or another runner at work.
    """
    preset = _preset(options)
    names = parse_names(options.only, "--only", STAGES)
    schedules = parse_names(options.schedules, "--schedules", preset.schedules)
    out = options.out or preset.weights_folder
    # Augmented, as training sees them: crops and flips are among a stage's settings.
    splits = {
        split: open_split(preset, options.data, split, seed=options.seed, augment=True)
        for split in ("train", "val")
    }
    sizes = ", ".join(f"{len(source):,} {split}" for split, source in splits.items())
    print(f"{preset.name}: {sizes} images, {preset.num_tokens} tokens each", file=sys.stderr)
    data = [source.settings() for source in splits.values()]
    record = out / "training.json"
    if options.dry_run:
        for stage in _stages(preset, options, schedules, out, data, names):
            state = "done" if _is_done(stage, record) else "to do"
            print(f"{stage.name}: {state}{stage.cost}")
        return 0
    out.mkdir(parents=True, exist_ok=True)
    _set_threads(options.threads)
    with Leases().wait(out / "training.lease", patience=0.0):
        # One after the other, as a stage's key has the sha256 of the networks before it.
        for name in names:
            for stage in _stages(preset, options, schedules, out, data, [name]):
                _carry_out(stage, record, out)
    flags = f"--preset {shlex.quote(options.preset)}"
    flags += f" --weights {shlex.quote(str(options.out))}" if options.out else ""
    print(f"{out}\nnext: python experiments/ablate_schedule.py {flags}", file=sys.stderr)
    return 0


def _preset(options: Options) -> Preset:
    for name in ("max_steps", "threads"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} {value}: must be at least 1")
    if options.workers < 0:
        raise UsageError(f"--workers {options.workers}: must be 0 or more")
    preset = with_measures(load_preset(options.preset))
    if options.skip_broken:
        preset = replace(preset, skip_broken=True)
    if options.max_steps is None:
        return preset
    return replace(
        preset,
        **{
            field: replace(budget, steps=min(budget.steps, options.max_steps))
            for field in ("tokenizer_training", "transformer_training")
            for budget in (getattr(preset, field),)
        },
    )


def _stages(
    preset: Preset,
    options: Options,
    schedules: list[str],
    out: Path,
    data: list[dict[str, Any]],
    names: list[str],
) -> list[_Stage]:
    content = preset.content()
    tokenizer, tokens = out / "tokenizer", out / "tokens"
    base = [options.seed, data, preset.num_classes, preset.conditional]
    crops = list(preset.crop_size)
    first = [content[name] for name in ("tokenizer", "tokenizer_loss", "tokenizer_training")]
    second = [content[name] for name in ("transformer", "transformer_training")]
    codes = _sha256(tokenizer / "model.safetensors")
    typed = shlex.join(["python", "experiments/train.py", *sys.argv[1:]])
    seen = {
        "tokenizer": _images(preset.tokenizer_training),
        "transformers": f"{_images(preset.transformer_training)} for each of {len(schedules)}",
        "autoregressive": _images(preset.transformer_training),
    }

    def checkpoints(run_dir: Path) -> RunOptions:
        return RunOptions(run_dir, seed=options.seed, workers=options.workers)

    def inputs() -> Any:
        from maskgit.training.commands import TokenData

        return TokenData(tokens, tokenizer, options.data)

    def train_tokenizer(run_dir: Path) -> None:
        from maskgit.training.commands import train_tokenizer

        train_tokenizer(preset, checkpoints(run_dir), options.data, tokenizer, typed)

    def make_tokens(run_dir: Path) -> None:
        from maskgit.training.tokenize import TokenizeOptions, tokenize

        shutil.rmtree(tokens, ignore_errors=True)  # of another tokenizer, or of other images
        how = TokenizeOptions(seed=options.seed, workers=options.workers, processes=1)
        tokenize(preset, options.data, tokenizer, tokens, how)

    def train_transformer(schedule: str) -> Callable[[Path], None]:
        def work(run_dir: Path) -> None:
            from maskgit.training.commands import train_transformer

            train_transformer(
                preset, checkpoints(run_dir), inputs(), schedule, out / f"transformer-{schedule}",
                preset.min_mask_ratio, typed,
            )  # fmt: skip

        return work

    def train_baseline(run_dir: Path) -> None:
        from maskgit.training.commands import train_autoregressive

        train_autoregressive(preset, checkpoints(run_dir), inputs(), out / "autoregressive", typed)

    def make_reference(run_dir: Path) -> None:
        try:
            print(
                references.build(preset, options.data, preset.features, None, None, "auto"),
                file=sys.stderr,
            )
        except Unavailable as error:
            print(f"no reference: {error}", file=sys.stderr)

    stages = []
    if "tokenizer" in names:
        made = (tokenizer / "model.safetensors",)
        stages.append(_Stage("tokenizer", digest([*base, crops, first]), made, train_tokenizer))
    if "tokens" in names:
        key = digest([*base, codes])
        stages.append(_Stage("tokens", key, (tokens / "index.json",), make_tokens))
    if "transformers" in names:
        for schedule in schedules:
            network = out / f"transformer-{schedule}" / "model.safetensors"
            key = digest([*base, second, codes, schedule])
            work = train_transformer(schedule)
            stages.append(_Stage(f"transformer-{schedule}", key, (network,), work))
    if "autoregressive" in names:
        made = (out / "autoregressive" / "model.safetensors",)
        stages.append(
            _Stage("autoregressive", digest([*base, second, codes]), made, train_baseline)
        )
    if "reference" in names:
        stages.append(_Stage("reference", "", (), make_reference))
    return [replace(stage, cost=seen.get(stage.name.partition("-")[0], "")) for stage in stages]


def _images(budget: Any) -> str:
    return f", {budget.steps:,} steps of {budget.batch_size} images"


def _is_done(stage: _Stage, record: Path) -> bool:
    if not stage.made or not all(path.is_file() for path in stage.made):
        return False
    return _recorded(record).get(stage.name) == [stage.key, *map(_sha256, stage.made)]


def _recorded(record: Path) -> dict[str, Any]:
    try:
        return read_json(record)
    except UsageError:
        return {}


def _carry_out(stage: _Stage, record: Path, out: Path) -> None:
    if _is_done(stage, record):
        print(f"{stage.name}: done before", file=sys.stderr)
        return
    began = time.monotonic()
    print(f"{stage.name} ...", file=sys.stderr, flush=True)
    stage.work(out / "training" / f"{stage.name}-{stage.key[:8]}")
    if stage.made:
        entry = [stage.key, *map(_sha256, stage.made)]
        write_json(record, {**_recorded(record), stage.name: entry})
    print(f"{stage.name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def _sha256(path: Path) -> str:
    return sha256_of(path) if path.is_file() else ""


def _set_threads(threads: int | None) -> None:
    import torch

    torch.set_num_threads(threads or available_cores())
