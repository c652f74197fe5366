"""Compare the numbers of two runs of the same command, made by two versions of the code.

    python -m tests.experiments.same_numbers BEFORE AFTER

BEFORE and AFTER are --out folders of an experiment, or of reproduce.py, or a file that --save wrote
of BEFORE. tests/golden/embedded_numbers.json is such a file: the metrics of these two commands, as
they were before the packages were rearranged, on an AMD EPYC (Zen 4) with two cores:

    python experiments/ablate_schedule.py --T 4,8,12 --seeds 0,1 --num-samples 100 --out A
    python experiments/reproduce.py --preset embedded --quick --out B

Cells are matched by their
experiment and the settings that both versions know by the same name; keys, ids, protocols and times
are left out. Prints counts, every metric that differs in any decimal, and cells without a partner.
Run both versions with the same OMP_NUM_THREADS: the last digits of KID depend on the number of
threads of BLAS. With --part, AFTER may hold some of the cells only. Exit code 0 if every number of
BEFORE is in AFTER, 1 if not.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

# Wall-clock times, which no two runs share.
TIMES = ("seconds", "gflops", "speedup")


def results(folder: Path) -> list[dict[str, Any]]:
    """Every result.json of a run, or of the runs in a folder, or those of a saved file."""
    if folder.is_file():
        saved: list[dict[str, Any]] = json.loads(folder.read_text(encoding="utf-8"))
        return saved
    paths = [*folder.glob("cells/*/result.json"), *folder.glob("*/cells/*/result.json")]
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(paths)]


def save(found: list[dict[str, Any]], path: Path) -> None:
    """Write what `compare` needs of some results, one line each."""
    kept = [
        {
            "cell": result["cell"],
            "metrics": {
                name: {part: metric[part] for part in ("value", "sd") if part in metric}
                for name, metric in result["metrics"].items()
            },
        }
        for result in found
    ]
    lines = sorted(json.dumps(result, sort_keys=True) for result in kept)
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def settings(cell: dict[str, Any], names: set[str]) -> str:
    """The cell's settings of these names, as text."""
    return json.dumps({name: cell[name] for name in sorted(names) if name in cell})


def compare(
    before: list[dict[str, Any]], after: list[dict[str, Any]], part: bool = False
) -> list[str]:
    """One line for each difference. part: whether cells may be missing from `after`."""
    differences: list[str] = []
    for experiment in sorted({result["cell"]["experiment"] for result in before}):
        old = [r for r in before if r["cell"]["experiment"] == experiment]
        new = [r for r in after if r["cell"]["experiment"] == experiment]
        names = {n for r in old for n in r["cell"]} & {n for r in new for n in r["cell"]}
        names -= {"preset"}  # its name before, what stands for its content since
        partners: dict[str, list[dict[str, Any]]] = {}
        for result in new:
            partners.setdefault(settings(result["cell"], names), []).append(result)
        equal = count = 0
        for result in old:
            text = settings(result["cell"], names)
            found = partners.get(text, [])
            if not found and part:
                continue
            if len(found) != 1:
                differences.append(f"{experiment}: {len(found)} partners of {text}")
                continue
            lines = list(unequal(result, found[0]))
            differences += [f"{experiment}: {text}: {line}" for line in lines]
            count += len(result["metrics"])
            equal += len(result["metrics"]) - len(lines)
        print(f"{experiment}: {len(old)} cells before, {len(new)} after, {equal} of {count} equal")
    return differences


def unequal(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The metrics of a cell that differ in their value or deviation, or are missing."""
    lines = []
    for name, metric in before["metrics"].items():
        if any(word in name for word in TIMES):
            continue
        found = after["metrics"].get(name)
        if found is None:
            lines.append(f"{name}: missing ({after['missing'].get(name)})")
            continue
        lines += [
            f"{name} {part}: {metric[part]!r}, now {found.get(part)!r}"
            for part in ("value", "sd")
            if part in metric and metric[part] != found.get(part)
        ]
    return lines


def main() -> int:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path, nargs="+")
    parser.add_argument("--save", action="store_true", help="write AFTER[0] from BEFORE, no more")
    parser.add_argument("--part", action="store_true", help="AFTER holds some of the cells")
    options = parser.parse_args()
    if options.save:
        save(results(options.before), options.after[0])
        return 0
    after = [result for folder in options.after for result in results(folder)]
    differences = compare(results(options.before), after, options.part)
    print("\n".join(differences) or "no differences")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
