"""What bfloat16 changes in the samples of the embedded benchmark: tokens and FID.

    python benchmarks/precision.py                       # 1000 samples, T = 12, cosine
    python benchmarks/precision.py --samples 2000 --T 8 --seeds 3

The same samples (seed, classes, noise) from the shipped weights in float32 and in bfloat16, where
the logits are float32 again before a token is drawn. Prints the share of equal tokens, FID of both
against the reference, and its difference beside its spread over the seeds; --out FILE.json writes a
result file, or adds to it. The default precision everywhere is float32.
"""

from __future__ import annotations

import copy
import json
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks import runner
from benchmarks.runner import Row
from maskgit.common.cli import exit_code
from maskgit.common.errors import RunError, UsageError


def measure(samples: int, steps: int, seeds: int) -> Row:
    """Tokens and FID in both precisions."""
    import numpy as np
    import torch

    from experiments.engine.grid import sampler_cells
    from experiments.sampler.compute import SamplerComputer
    from experiments.sampler.measuring import measure as metrics_of
    from experiments.sampler.request import make_task, resolve
    from experiments.sampler.sampling import sample_tokens

    cells = sampler_cells(
        "benchmark",
        "embedded",
        schedules=["cosine"],
        steps=[steps],
        seeds=range(seeds),
        num_samples=samples,
    )
    request = resolve(cells, ["fid"])
    fid: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    equal = []
    with tempfile.TemporaryDirectory() as folder:
        computer = SamplerComputer(request, Path(folder))
        computer.start(0, 1)
        for cell in cells:
            plain = make_task(request, cell).cell
            whole = computer.sampler(plain)
            half = copy.deepcopy(whole).to(torch.bfloat16)
            tokens = [sample_tokens(model, plain) for model in (whole, half)]
            equal.append(float(np.mean(tokens[0] == tokens[1])))
            name = plain["features"]
            extractor, real = computer.extractor(name), computer.real(name)
            for values, grid in zip(fid.values(), tokens, strict=True):
                features = extractor.extract_batches(computer.decode(grid, "torch"))
                values.append(metrics_of(["fid"], name, features, real)[0]["fid"]["value"])
    differences = [b - a for a, b in zip(*fid.values(), strict=True)]
    return {
        "name": f"embedded cosine T={steps}, {samples} samples, {seeds} seeds",
        "samples": samples,
        "steps": steps,
        "equal_tokens": [round(value, 5) for value in equal],
        "fid": {name: [round(value, 4) for value in values] for name, values in fid.items()},
        "fid_difference": round(statistics.mean(differences), 4),
        "fid_spread_float32": round(statistics.pstdev(fid["float32"]), 4),
    }


def lines(row: Row) -> list[tuple[str, str]]:
    """The numbers of a row, each with its name."""
    equal = statistics.mean(row["equal_tokens"])
    fid = {name: statistics.mean(values) for name, values in row["fid"].items()}
    return [
        (f"{row['name']}: equal tokens", f"{100 * equal:.2f} %"),
        ("FID float32", f"{fid['float32']:.3f}"),
        ("FID bfloat16", f"{fid['bfloat16']:.3f}"),
        ("FID difference", f"{row['fid_difference']:+.3f}"),
        ("spread of FID over seeds, float32", f"{row['fid_spread_float32']:.3f}"),
    ]


def main() -> int:
    """Parse the flags, measure in a fresh process, print."""
    parser = runner.Parser(__doc__)
    parser.add_argument("--samples", type=runner.at_least_one, default=1000)
    parser.add_argument("--T", type=runner.at_least_one, default=12, help="iterations")
    parser.add_argument("--seeds", type=runner.at_least_one, default=3)
    parser.add_argument("--here", action="store_true", help="in this process; prints JSON")
    parser.add_out()
    flags = parser.parse_args()
    if flags.here:
        print(json.dumps(measure(flags.samples, flags.T, flags.seeds)))
        return 0
    words = [f"--samples={flags.samples}", f"--T={flags.T}", f"--seeds={flags.seeds}", "--here"]
    try:
        environment = runner.bfloat16_environment("cpu")
        row = runner.in_fresh_process([__file__, *words], environment=environment)
    except RunError as error:
        raise UsageError(str(error)) from None
    row["environment"] = dict(environment)
    runner.Results("precision", "cpu", flags.out).add(row)
    print(runner.text_table([("what", "measured"), *lines(row)]))
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
