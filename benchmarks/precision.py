"""What bfloat16 changes in the samples of the embedded benchmark: tokens and FID.

    python benchmarks/precision.py                       # 1000 samples, T = 12, cosine
    python benchmarks/precision.py --samples 2000 --T 8 --seeds 3

The same samples (seed, classes, noise) from the shipped weights in float32 and in bfloat16, where
the logits are float32 again before a token is drawn. Prints the share of equal tokens, FID of both
against the reference, and its difference beside its spread over the seeds; --out FILE.json writes a
result file, or adds to it. --device cuda does all of it on a GPU. The default precision everywhere
is float32.
"""

from __future__ import annotations

import copy
import json
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks import runner
from benchmarks.runner import Columns, Row
from maskgit.common.cli import exit_code
from maskgit.common.device import check_device

DECODED_AT_ONCE = 64  # images
COLUMNS: Columns = {
    "case": lambda row: row["name"],
    "equal tokens": lambda row: f"{100 * statistics.mean(row['equal_tokens']):.2f} %",
    "FID float32": lambda row: f"{statistics.mean(row['fid']['float32']):.3f}",
    "FID bfloat16": lambda row: f"{statistics.mean(row['fid']['bfloat16']):.3f}",
    "difference": lambda row: f"{row['fid_difference']:+.3f}",
    "spread over seeds, float32": lambda row: f"{row['fid_spread_float32']:.3f}",
}


@dataclass(frozen=True)
class Case:
    """What is measured."""

    samples: int = 1000
    steps: int = 12
    seeds: int = 3
    precision: str = "bfloat16"  # beside float32
    device: str = "cpu"

    @property
    def name(self) -> str:
        """A few words."""
        where = f", {self.device}" if self.device != "cpu" else ""
        return f"embedded cosine T={self.steps}, {self.samples} samples, {self.seeds} seeds{where}"


def measure(case: Case) -> Row:
    """Tokens and FID in both precisions."""
    import torch

    from eval.features.registry import get_extractor
    from eval.metrics.fid import frechet_distance
    from eval.metrics.statistics import Statistics
    from eval.reference.files import load_reference
    from maskgit.checkpoints import load_tokenizer, load_transformer, zoo_path
    from maskgit.decoding import generate
    from maskgit.presets import load_preset

    preset = load_preset("embedded")
    whole = load_transformer(zoo_path("transformer-cosine")).to(case.device)
    models = {"float32": whole, "bfloat16": copy.deepcopy(whole).to(torch.bfloat16)}
    tokenizer = load_tokenizer(zoo_path("tokenizer")).to(case.device)
    extractor = get_extractor(preset.features, device=case.device)
    real = load_reference(preset.reference, preset.features)
    ids = torch.arange(case.samples, device=case.device)

    def images(tokens: torch.Tensor) -> Iterator[Any]:
        for part in tokens.split(DECODED_AT_ONCE):
            decoded = tokenizer.decode(part.view(-1, *preset.grid)).clamp(0, 1).mul(255).round()
            yield decoded.permute(0, 2, 3, 1).to(torch.uint8).cpu().numpy()

    fid: dict[str, list[float]] = {name: [] for name in models}
    equal = []
    for seed in range(case.seeds):
        tokens = {}
        for name, model in models.items():
            tokens[name] = generate(
                model,
                ids % preset.num_classes,
                steps=case.steps,
                choice_temperature=preset.choice_temperature,
                seed=seed,
                sample_ids=ids,
            )
            found = Statistics.of(extractor.extract_batches(images(tokens[name])).features)
            fid[name].append(frechet_distance(real.mean, real.cov, found.mean, found.cov))
        equal.append((tokens["float32"] == tokens["bfloat16"]).float().mean().item())
    differences = [b - a for a, b in zip(*fid.values(), strict=True)]
    return {
        "name": case.name,
        "samples": case.samples,
        "steps": case.steps,
        "equal_tokens": [round(value, 5) for value in equal],
        "fid": {name: [round(value, 4) for value in values] for name, values in fid.items()},
        "fid_difference": round(statistics.mean(differences), 4),
        "fid_spread_float32": round(statistics.pstdev(fid["float32"]), 4),
    }


def main() -> int:
    """Parse the flags, measure in a fresh process, print."""
    parser = runner.Parser(__doc__)
    parser.add_argument("--samples", type=runner.at_least_one, default=1000)
    parser.add_argument("--T", type=runner.at_least_one, default=12, help="iterations")
    parser.add_argument("--seeds", type=runner.at_least_one, default=3)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1")
    parser.add_argument("--case", help="one case as a JSON object, in this process")
    parser.add_out()
    flags = parser.parse_args()
    if flags.case:
        print(json.dumps(measure(Case(**json.loads(flags.case)))))
        return 0
    device = str(check_device(flags.device))
    cases = [Case(flags.samples, flags.T, flags.seeds, device=device)]
    results = runner.Results("precision", device, flags.out)
    return runner.run_cases(__file__, cases, results, COLUMNS, lambda rows: [], device)


if __name__ == "__main__":
    sys.exit(exit_code(main))
