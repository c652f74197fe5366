"""One case of benchmarks/sampling.py, in a process of its own.

    python benchmarks/sampling_case.py '{"size": "embedded", "steps": 8, "images": 16}'

Prints one JSON object. Every round measures the machine's rates and then the work, so that a share
compares what ran at nearly the same time.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also without an install

from benchmarks.common import Row, fail, peak_mib, seconds_of
from maskgit.sampling.compiled import MODES as MODES

SIZES = ("embedded", "imagenet256", "imagenet512")
PRECISIONS = ("float32", "bfloat16")
BACKENDS = ("torch", "jax")
SAMPLERS = ("maskgit", "autoregressive")


@dataclass(frozen=True)
class Case:
    """What is timed. `classes`: "distinct" labels, or "one" for all images of a batch."""

    size: str = "embedded"
    steps: int = 12
    images: int = 128
    precision: str = "float32"
    mode: str = "eager"
    backend: str = "torch"
    sampler: str = "maskgit"
    pixels: bool = False
    classes: str = "distinct"
    device: str = "cpu"
    repeats: int = 3
    threads: int | None = None

    @property
    def name(self) -> str:
        """In a few words; cases that differ in what is computed have different ones."""
        words = [self.size, f"T={self.steps}", f"x{self.images}", self.precision]
        if self.sampler != "maskgit":
            words[1] = self.sampler
        words += [word for word in (self.backend, self.mode) if word not in ("torch", "eager")]
        words += ["pixels"] if self.pixels else []
        words += ["one class"] if self.classes == "one" else []
        words += [self.device] if self.device != "cpu" else []
        return " ".join(words)


def build_transformer(size: str, device: str, causal: bool = False) -> Any:
    """A network of a preset's sizes with random weights, without the slow start of truncation."""
    import torch

    from maskgit.model.causal import Autoregressive
    from maskgit.model.transformer import Transformer
    from maskgit.presets import get_preset
    from maskgit.training.stage2 import transformer_config

    config = transformer_config(get_preset(size))
    with torch.device("meta"):
        model = Autoregressive(config) if causal else Transformer(config)
    model.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("bias"):
                value.zero_()
            elif "norm" in name:
                value.fill_(1.0)
            else:
                value.normal_(std=0.02, generator=generator)
    return model.eval()


def build_tokenizer(size: str, device: str) -> Any:
    """A tokenizer of a preset's sizes with its random initial weights."""
    import torch

    from maskgit.model.tokenizer import Tokenizer
    from maskgit.presets import get_preset

    torch.manual_seed(0)
    return Tokenizer(get_preset(size).tokenizer).eval().to(device)


def labels_of(case: Case, num_classes: int) -> Any:
    """int64 (images,)."""
    import torch

    if case.classes == "one":
        return torch.zeros(case.images, dtype=torch.int64)
    # Spread over the classes, so that a batch smaller than their number has no class twice.
    return torch.arange(case.images) * 7 % num_classes


def prepare(case: Case) -> tuple[Callable[[], Any], dict[str, Any]]:
    """What is timed, from labels to tokens or pixels, and the counts of its work."""
    import torch

    from benchmarks.work import (
        Counted,
        autoregressive_flops,
        decoder_flops,
        full_flops,
        jax_flops,
    )
    from maskgit.presets import get_preset

    preset = get_preset(case.size)
    dtype = getattr(torch, case.precision)
    causal = case.sampler == "autoregressive"
    model = build_transformer(case.size, case.device, causal).to(dtype)
    labels = labels_of(case, model.config.num_classes).to(case.device)
    tokenizer: Any = build_tokenizer(case.size, case.device).to(dtype) if case.pixels else None
    pixels = case.images * decoder_flops(preset) if case.pixels else 0
    work: dict[str, Any] = {"full_flops": full_flops(model.config, case.images, case.steps)}

    if causal:
        from maskgit.sampling.autoregressive import MIN_ROWS, ROW_MULTIPLE, generate_autoregressive

        rows = max(MIN_ROWS, -(-case.images // ROW_MULTIPLE) * ROW_MULTIPLE)
        rows = case.images if case.device != "cpu" else rows
        work["flops"] = autoregressive_flops(model.config, case.images, rows)
        work["full_flops"] = autoregressive_flops(model.config, case.images, case.images)
        work["forwards"] = case.images * preset.num_tokens

        def sample() -> Any:
            return generate_autoregressive(model, labels, batch_size=case.images)
    elif case.backend == "jax":
        from maskgit.jax import decoding, transformer

        network, batch = transformer.from_torch(model), labels.numpy()
        work |= {"flops": jax_flops(model.config, case.images, case.steps)}
        work |= {"forwards": case.images * case.steps}

        def sample() -> Any:
            return decoding.generate(network, batch, steps=case.steps, batch_size=case.images)
    else:
        from maskgit.decoding import generate
        from maskgit.sampling.compiled import compile_for_sampling

        def sample() -> Any:
            return generate(model, labels, steps=case.steps, batch_size=case.images)

        with Counted(model) as counted:
            sample()
        work |= {"flops": counted.flops, "forwards": counted.forwards}
        # Counted before: programs of fixed shape do more, which their share does not gain by.
        compile_for_sampling(model, case.mode)

    def decode(tokens: Any) -> Any:
        if case.backend == "jax":
            return images_of_jax.decode(tokens.reshape(-1, *preset.grid))
        return tokenizer.decode(tokens.view(-1, *preset.grid))

    if case.pixels and case.backend == "jax":
        from maskgit.jax import tokenizer as jax_tokenizer

        images_of_jax = jax_tokenizer.from_torch(tokenizer)
    work["pixel_flops"] = pixels
    return (lambda: decode(sample())) if case.pixels else sample, work


def measure(case: Case) -> Row:
    """The row of a case."""
    import torch

    from benchmarks.rates import SECONDS, Rates, synchronise
    from maskgit.presets import get_preset

    if case.threads:
        torch.set_num_threads(case.threads)
    preset = get_preset(case.size)
    run, work = prepare(case)

    def once() -> None:
        run()
        synchronise(case.device)

    shape = preset.transformer
    length = case.images * (1 if case.sampler == "autoregressive" else 1 + preset.num_tokens)
    first = seconds_of(once)  # compiles, and warms caches
    peak = peak_mib()
    rows = max(64, min(length, 8192))
    dtype = getattr(torch, case.precision)
    rates = Rates(dtype, case.device, rows, shape.width, shape.mlp, SECONDS)
    found, busy = rates.beside(once, case.repeats)
    seconds, rate = statistics.median(found), rates.result()
    done, full = work["flops"] + work["pixel_flops"], work["full_flops"] + work["pixel_flops"]
    row: Row = {"name": case.name, **asdict(case)}
    row |= {
        "threads": torch.get_num_threads(),
        "seconds": [round(value, 4) for value in found],
        "first_call_seconds": round(first, 3),
        "processor_share": busy,
        "images_per_second": case.images / seconds,
        "tokens_per_second": case.images * preset.num_tokens / seconds,
        "forwards": work["forwards"],
        "ms_per_forward_and_image": 1e3 * seconds / work["forwards"],
        "gflop": done / 1e9,
        "gflop_full": full / 1e9,
        "gflops": done / seconds / 1e9,
        "share_of_matmul_rate": done / seconds / 1e9 / rate["matmul_gflops"],
        "share_counting_full_work": full / seconds / 1e9 / rate["matmul_gflops"],
        "peak_mib": round(peak, 1),
        "rates": rate,
    }
    if case.device != "cpu":
        row["peak_device_mib"] = round(torch.cuda.max_memory_allocated(case.device) / 2**20, 1)
    return {key: float(f"{v:.6g}") if isinstance(v, float) else v for key, v in row.items()}


def main() -> None:
    """Read the case, measure, print."""
    if len(sys.argv) != 2:
        fail("one argument: a case as a JSON object")
    print(json.dumps(measure(Case(**json.loads(sys.argv[1])))))


if __name__ == "__main__":
    main()
