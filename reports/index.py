"""The index of several reports: a table of every row, and one HTML page that holds them all.

    python -m reports.index REPORT [REPORT ...] --out DIR

Reads the summary.json and report.md of each report folder; computes nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maskgit.common.cli import ArgumentParser, exit_code
from maskgit.common.errors import UsageError
from maskgit.common.files import output_file, read_json
from reports import escape, html
from reports.build import read_manifest
from reports.tables import Column, Table


def read_summary(folder: Path) -> dict[str, Any]:
    """summary.json of a report.

    Raises:
        UsageError: there is no report in the folder, or its summary cannot be read.
    """
    path = folder / "summary.json"
    if not path.is_file():
        raise UsageError(f"{folder}: no report (there is no summary.json)")
    return {"rows": [], **read_json(path)}


def to_markdown(title: str, entries: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """The index as Markdown. entries: (link to the report, its summary), in reading order."""
    from reports.page import environment, unwrapped, verdict_words

    claims = [
        {
            "report": escape.link(summary["title"], link),
            "title": verdict["title"],
            "paper": verdict["paper"],
            "ours": verdict["ours"] or None,
            "verdict": verdict_words(verdict["verdict"], "; ".join(verdict["why"])),
        }
        for link, summary in entries
        for verdict in summary["verdicts"]
    ]
    numbers = [
        row
        | {
            "what": escape.link(row["what"], link),
            "n": row["n"] or None,
            "seeds": row["seeds"] or None,
            "verdict": verdict_words(row["verdict"], row["why"]),
        }
        for link, summary in entries
        for row in summary["rows"]
    ]
    template = environment(escape.markdown).get_template("index.md.jinja")
    return unwrapped(
        template.render(
            title=title,
            claims=_table(CLAIMS, claims, "lllll"),
            numbers=_table(NUMBERS, numbers, "lrrrrrl") if numbers else "",
            reports=[
                (escape.link(s["title"], link), " ".join(s["finding"])) for link, s in entries
            ],
        )
    )


CLAIMS = {"report": "Report", "title": "Claim of the paper", "paper": "Paper", "ours": "Ours"}
CLAIMS |= {"verdict": "Verdict"}
NUMBERS = {"what": "Row", "paper": "Paper", "ours": "Ours, mean ± sd", "n": "Samples"}
NUMBERS |= {"seeds": "Seeds", "difference": "Difference", "verdict": "Verdict"}


def _table(heads: dict[str, str], rows: list[dict[str, Any]], align: str) -> escape.Own:
    columns = [
        Column(name, head, align=side)
        for (name, head), side in zip(heads.items(), align, strict=True)
    ]
    return escape.Own(Table("", columns, rows).to_markdown())


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
    anchors = [f"#{s['experiment']}-{html.anchor(s['title'])}" for s in summaries]
    inner = to_markdown(title, list(zip(anchors, summaries, strict=True)))
    parts = [html.body(inner, out, ())]
    for folder, summary in zip(folders, summaries, strict=True):
        text = (folder / "report.md").read_text(encoding="utf-8")
        files = read_manifest(folder)
        parts.append(html.body(text, folder, files, f"{summary['experiment']}-"))
    for name, text in (("index.html", html.page(title, *parts)), ("index.md", markdown)):
        with output_file(out / name, "--out") as file:
            file.write(text.encode())
    return out / "index.md"


def main(arguments: list[str] | None = None) -> int:
    """The command line; prints the path of index.md. Exit code 2 for what the user can correct."""
    parser = ArgumentParser(prog="python -m reports.index", description=__doc__)
    parser.add_argument("reports", type=Path, nargs="+", metavar="REPORT")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")

    def run() -> None:
        options = parser.parse_args(arguments)
        print(build_index(options.reports, options.out))

    return exit_code(run)


if __name__ == "__main__":
    sys.exit(main())
