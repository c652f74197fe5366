"""Measure a folder or array of images.

    python -m eval samples/ --reference fashion-mnist-train
    python -m eval a.npz --reference b/ --metrics fid,precision-recall --features
    efficientnet-lite0 --json

A table (or JSON with --json) goes to stdout, progress and the names of missing metrics to stderr.
The exit code is 2 for input that cannot be measured.
"""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import tyro

from eval.console import command_line, print_table, progress_bar
from eval.evaluate import Options, evaluate


def run(
    options: tyro.conf.OmitArgPrefixes[Options],
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Measure images against a reference: FID, Inception Score, KID, precision and recall, ...

    Args:
        as_json: print JSON instead of a table.
    """
    with progress_bar() as progress:
        result = evaluate(options, progress)
    if as_json:
        for name, why in result["missing"].items():
            print(f"missing: {name}: {why}", file=sys.stderr)
        print(json.dumps(result, indent=2))
    else:
        _print(result)


def _print(result: dict[str, Any]) -> None:
    rows = []
    for name, entry in result["metrics"].items():
        error = f"{entry['error']:.3g}" if "error" in entry else ""
        rows.append((name, f"{entry['value']:.6g}", error, entry.get("error_is", ""), entry["id"]))
    rows += [(name, "missing", "", "", "") for name in result["missing"]]
    print_table(("metric", "value", "+-", "which is", "id"), rows)
    print()
    for name, why in result["missing"].items():
        print(f"missing: {name}: {why}")
    for name, entry in result["metrics"].items():
        if "slope_interval" in entry:
            low, high = entry["slope_interval"]
            print(f"{name}: slope {entry['slope']:.6g}, 95 % interval {low:.6g} to {high:.6g}")
    _print_protocol(result["protocol"], "")


def _print_protocol(protocol: dict[str, Any], indent: str) -> None:
    for key, value in protocol.items():
        if key == "also":
            for other in value:
                print(f"{indent}also:")
                _print_protocol(other, indent + "  ")
        elif key == "notes":
            for note in value:
                print(f"{indent}note: {note}")
        else:
            print(f"{indent}{key}: {value}")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return command_line(run, arguments, "python -m eval", __doc__)


if __name__ == "__main__":
    sys.exit(main())
