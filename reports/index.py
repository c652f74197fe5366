"""The index of several reports: a table of every row, and one HTML page that holds them all.

    python -m reports.index REPORT [REPORT ...] --out DIR

Reads the summary.json and report.md of each report folder; computes nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maskgit.common.errors import UsageError
from reports import html
from reports.tables import DASH, Table

INTRODUCTION = (
    "Every table and figure of the paper that was run, and what became of its claims. A verdict is "
    "one of: reproduced, trend reproduced, not reproduced, not comparable (why), not run (why). "
    "The rules and tolerances stand in `reports/paper_values.toml`, set before the runs."
)


def read_summary(folder: Path) -> dict[str, Any]:
    """summary.json of a report.

    Raises:
        UsageError: there is no report in the folder, or its summary cannot be read.
    """
    path = folder / "summary.json"
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        return {**summary, "rows": summary.get("rows", [])}
    except FileNotFoundError:
        raise UsageError(f"{folder}: no report (there is no summary.json)") from None
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UsageError(f"{path}: not readable ({error})") from None


def to_markdown(title: str, entries: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """The index as Markdown. entries: (link to the report, its summary), in reading order."""
    lines = [f"# {title}", "", INTRODUCTION, "", "## Claims", ""]
    claims = [
        [
            f"[{summary['title']}]({link})",
            verdict["title"],
            verdict["paper"],
            verdict["ours"] or DASH,
            _verdict(verdict["verdict"], "; ".join(verdict["why"])),
        ]
        for link, summary in entries
        for verdict in summary["verdicts"]
    ]
    head = ["Report", "Claim of the paper", "Paper", "Ours", "Verdict"]
    lines += [Table("", "", head, claims, align="lllll").to_markdown(), ""]
    rows = [
        [
            f"[{row['what']}]({link})",
            row["paper"],
            row["ours"],
            str(row["n"] or DASH),
            str(row["seeds"] or DASH),
            row["difference"],
            _verdict(row["verdict"], row["why"]),
        ]
        for link, summary in entries
        for row in summary["rows"]
    ]
    head = ["Row", "Paper", "Ours, mean ± sd", "Samples", "Seeds", "Difference", "Verdict"]
    if rows:
        lines += ["## Numbers", "", Table("", "", head, rows, align="lrrrrrl").to_markdown(), ""]
    lines += ["## Reports", ""]
    for link, summary in entries:
        lines.append(f"- [{summary['title']}]({link}): {' '.join(summary['finding'])}")
    return "\n".join(lines) + "\n"


def _verdict(word: str, why: str) -> str:
    return f"**{word}**" + (f" ({why})" if why else "")


def build_index(folders: Sequence[Path], out: Path, title: str = "MaskGIT, reproduced") -> Path:
    """Write index.md and index.html (with every report in it) into `out`; returns index.md.

    Raises:
        UsageError: a folder without a report, or `out` cannot be written.
    """
    summaries = [read_summary(folder) for folder in folders]
    links = [Path(os.path.relpath(folder, out)).as_posix() for folder in folders]
    markdown = to_markdown(
        title, [(f"{link}/report.md", s) for link, s in zip(links, summaries, strict=True)]
    )
    inner = to_markdown(
        title, [(f"#{s['experiment']}-{html.anchor(s['title'])}", s) for s in summaries]
    )
    parts = [html.body(inner, out)]
    for folder, summary in zip(folders, summaries, strict=True):
        text = (folder / "report.md").read_text(encoding="utf-8")
        parts.append(html.body(text, folder, f"{summary['experiment']}-"))
    try:
        out.mkdir(parents=True, exist_ok=True)
        _write(out / "index.html", html.page(title, *parts))
        _write(out / "index.md", markdown)
    except OSError as error:
        raise UsageError(f"--out {out}: cannot be written ({error.strerror})") from None
    return out / "index.md"


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8", newline="\n")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def main(arguments: list[str] | None = None) -> int:
    """The command line; prints the path of index.md. Exit code 2 for what the user can correct."""
    parser = argparse.ArgumentParser(prog="python -m reports.index", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("reports", type=Path, nargs="+", metavar="REPORT")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    options = parser.parse_args(arguments)
    try:
        print(build_index(options.reports, options.out))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
