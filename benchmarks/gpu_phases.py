"""The phases of benchmarks/gpu_run.py: the commands of each, and its seconds."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.runner import ROOT
from maskgit.checkpoints import zoo_path
from maskgit.common.idx import read_idx
from maskgit.data.fashion_mnist import find_files
from maskgit.presets import load_preset

SCHEDULES = load_preset("embedded").schedules
# Optimiser steps on a GPU; the shipped networks had 2,400 and 1,200 on two cores. A training that
# is stopped exports nothing, so 15 ms are allowed for a step of the seven transformers.
STEPS = {"tokenizer": 4000, "transformers": 12000, "autoregressive": 2400}
DRY_IMAGES = 96
# Packages and whether they can be imported, in the process that everything else runs in.
CHECK = """
import importlib, sys
from maskgit.common.versions import version_of
missing = []
for name, module in (
    ("maskgit-bench", "maskgit"), ("torch", "torch"), ("torchvision", "torchvision"),
    ("numpy", "numpy"), ("accelerate", "accelerate"), ("triton", "triton"), ("jax", "jax"),
    ("tyro", "tyro"), ("docstring-parser", "docstring_parser"), ("typeguard", "typeguard"),
    ("submitit", "submitit"), ("torch-fidelity", "torch_fidelity"), ("clean-fid", "cleanfid"),
    ("lpips", "lpips"), ("pytest", "pytest"), ("hypothesis", "hypothesis"),
):
    try:
        importlib.import_module(module)
        print(name, version_of(name), flush=True)
    except Exception as error:
        missing.append(name)
        print(f"{name} missing: {type(error).__name__}: {error}")
import torch
if torch.cuda.is_available():
    print(torch.cuda.get_device_name(), "CUDA", torch.version.cuda)
needed = {"tyro", "docstring-parser", "typeguard", "torchvision", "accelerate", "pytest"}
if needed & set(missing):
    sys.exit("missing: " + ", ".join(sorted(needed & set(missing))))
import experiments.sampler.worker, maskgit.training.commands, eval.evaluate
print("missing:", ", ".join(missing) or "nothing")
"""
Command = list[str]  # words after `python`


@dataclass(frozen=True)
class Plan:
    """Where the phases read and write, and whether they are tiny."""

    out: Path
    work: Path
    data: Path | None
    dry: bool

    @property
    def device(self) -> str:
        """The torch device of all phases."""
        return "cpu" if self.dry else "cuda"

    @property
    def weights(self) -> Path:
        """The folder of the trained networks."""
        return self.work / "weights"


@dataclass(frozen=True)
class Phase:
    """limit: seconds. commands: made when the phase begins, as they depend on the ones before."""

    limit: float
    commands: Callable[[Plan], Iterable[Command]]


# What they run


def check(plan: Plan) -> list[Command]:
    """Versions, and whether the packages of training and sampling can be imported."""
    return [["-c", CHECK]]


def tests(plan: Plan) -> list[Command]:
    """The tests marked gpu; only their files are collected."""
    marked = [path for path in (ROOT / "tests").rglob("test_*.py") if "mark.gpu" in _text(path)]
    files = sorted(str(path.relative_to(ROOT)) for path in marked)
    return [["-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu", *files]]


def sampling(plan: Plan) -> list[Command]:
    """The most wanted cases first, as the limit may cut the last ones."""
    script = ["benchmarks/sampling.py", "--out", str(plan.out / "sampling.json")]
    if plan.dry:
        return [_words(script, "--T 2 --images 2 --repeats 1 --threads 1 --baseline")]
    script += _words([], "--device cuda --sizes imagenet256 --T 8 --repeats 3")
    return [
        _words(script, "--images 256 --precision bfloat16 --mode eager,graphs"),
        _words(script, "--images 1 --precision bfloat16 --mode eager,graphs --baseline"),
        _words(script, "--images 256 --precision bfloat16 --mode graphs,eager --only-baseline"),
        _words(script, "--images 256 --precision float32 --mode eager"),
        _words(script, "--images 1,256 --precision bfloat16 --mode compiled"),
        _words(script, "--images 1 --precision float32 --mode eager,graphs,compiled --baseline"),
        _words(script, "--images 256 --precision float32 --mode graphs,compiled --baseline"),
    ]


def training(plan: Plan) -> list[Command]:
    """Steps of imagenet256 and of the embedded benchmark."""
    script = ["benchmarks/training.py", "--out", str(plan.out / "training.json")]
    if plan.dry:
        return [_words(script, "--stages transformer --batch 4 --repeats 1 --threads 1")]
    script += ["--device", "cuda", "--precision", "bfloat16"]
    return [
        _words(script, "--sizes imagenet256 --stages transformer --mode eager,compiled"),
        _words(script, "--sizes embedded --mode eager"),
        _words(script, "--sizes embedded --stages transformer,autoregressive --mode compiled"),
    ]


def tokenizer(plan: Plan) -> list[Command]:
    """Stage 1."""
    return [_trainer(plan, "tokenizer", plan.weights / "tokenizer")]


def tokens(plan: Plan) -> list[Command]:
    """The code indices of both splits; with the shipped tokenizer if none was trained."""
    found = plan.weights / "tokenizer"
    if not found.is_dir():
        print("no tokenizer was trained: the shipped one encodes", flush=True)
        shutil.copytree(zoo_path("tokenizer"), found)
    return [
        [
            *("-m", "maskgit.training", "tokenize", "--split", split, *_data(plan)),
            *("--tokenizer", str(found), "--out", str(_tokens(plan, split))),
        ]
        for split in ("train", "val")
    ]


def transformers(plan: Plan) -> list[Command]:
    """The transformers of all schedules, in one training."""
    return [[*_trainer(plan, "transformers", plan.weights), *_on_tokens(plan)]]


def autoregressive(plan: Plan) -> list[Command]:
    """The baseline."""
    command = _trainer(plan, "autoregressive", plan.weights / "autoregressive")
    return [[*command, *_on_tokens(plan)]]


def validation(plan: Plan) -> list[Command]:
    """The trained networks measured: samples beside the baseline's, and reconstructions."""
    table = _words(_study(plan, "class_conditional"), "--cas-samples 0")
    pictures = _study(plan, "reconstruction")
    if plan.dry:
        return [_words(pictures, "--ratios 0.5 --masks 1 --samples 1 --num-samples 8 --T 2")]
    return [_words(table, "--num-samples 2000"), pictures]


def ablation(plan: Plan) -> list[Command]:
    """The grid of schedules and T until the deadline; another call with its --work goes on."""
    script = _study(plan, "ablate_schedule")
    if plan.dry:
        return [_words(script, "--T 2 --num-samples 20 --metrics fid --schedules cosine,linear")]
    return [_words(script, "--T 4,6,8,10,12,16,24,32,60 --seeds 0,1,2 --num-samples 1000")]


PHASES = {
    "check": Phase(60, check),
    "tests": Phase(90, tests),
    "sampling": Phase(150, sampling),
    "training": Phase(100, training),
    "tokenizer": Phase(120, tokenizer),
    "tokens": Phase(40, tokens),
    "transformers": Phase(200, transformers),
    "autoregressive": Phase(60, autoregressive),
    "validation": Phase(60, validation),
    "ablation": Phase(600, ablation),
}
GROUPS = {
    "measure": list(PHASES)[:4],
    "train": ["check", *list(PHASES)[4:]],
    "all": list(PHASES),
}


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _words(command: Command, more: str) -> Command:
    return [*command, *more.split()]


def _data(plan: Plan) -> Command:
    return [] if plan.data is None else ["--data", str(plan.data)]


def _tokens(plan: Plan, split: str) -> Path:
    return plan.work / "tokens" / f"{split}.npz"


def _trainer(plan: Plan, kind: str, out: Path) -> Command:
    steps = ["--steps", "2", "--batch-size", "4"]
    if not plan.dry:
        steps = ["--steps", str(STEPS[kind]), "--validate-every", str(STEPS[kind])]
    paths = ["--runs", str(plan.work / "training"), "--out", str(out)]
    return ["-m", "maskgit.training", kind, *_data(plan), *paths, *steps]


def _on_tokens(plan: Plan) -> Command:
    files = ["--tokens", str(_tokens(plan, "train")), "--val-tokens", str(_tokens(plan, "val"))]
    return [*files, "--tokenizer", str(plan.weights / "tokenizer")]


def _study(plan: Plan, name: str) -> Command:
    """An experiment with the trained weights if they are all there, else with the shipped ones."""
    there = {path.parent.name for path in plan.weights.glob("*/card.json")}
    needed = {"tokenizer", "autoregressive", *(f"transformer-{name}" for name in SCHEDULES)}
    if missing := sorted(needed - there):
        print(f"{name}: the shipped weights; not trained: {', '.join(missing)}", flush=True)
    weights = [] if missing else ["--weights", str(plan.weights)]
    out = ["--out", str(plan.work / "grids" / name), "--device", plan.device]
    return [f"experiments/{name}.py", *weights, *out]


def dry_data(folder: Path) -> Path:
    """A few of the shipped test images in the files of both splits."""
    folder.mkdir(parents=True, exist_ok=True)
    for source, dims in zip(find_files("test"), (3, 1), strict=True):
        values = read_idx(source, dims)[:DRY_IMAGES]
        head = bytes([0, 0, 8, dims]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
        for prefix in ("train", "t10k"):
            name = source.name.removesuffix(".gz").replace("t10k", prefix)
            (folder / name).write_bytes(head + values.tobytes())
    return folder
