"""A page: what every report consists of, before it becomes Markdown and HTML.

An experiment's builder returns a Page; writing it puts `report.md`, `report.html`, `summary.json`
and the files of its tables and figures into one folder. An index of several pages reads the
summaries only.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reports import html
from reports.figures.curves import Figure
from reports.rows import Row
from reports.tables import Table
from reports.verdicts.schedules import Verdict


@dataclass(frozen=True)
class Text:
    """A paragraph, or a list when `items` is given. Markdown inside a line is allowed."""

    text: str
    items: Sequence[str] = ()

    kind = "text"


@dataclass(frozen=True)
class Section:
    """A heading and its blocks, in reading order."""

    heading: str
    blocks: Sequence[Text | Table | Figure]


@dataclass(frozen=True)
class Page:
    """One experiment's report. `status` says in one line how much of it ran."""

    experiment: str
    title: str
    finding: Sequence[str]
    status: str
    verdicts: Sequence[Verdict]
    sections: Sequence[Section]
    facts: dict[str, Any] = field(default_factory=dict)
    rows: Sequence[Row] = ()  # numbers of the paper beside ours, for the index

    def write(self, folder: Path) -> Path:
        """Writes the page into an existing empty folder; returns the path of its report.md."""
        for section in self.sections:
            for block in section.blocks:
                if isinstance(block, Table | Figure):
                    block.write(folder)
        summary = json.dumps(self.summary(), indent=1, sort_keys=True, ensure_ascii=False)
        (folder / "summary.json").write_text(summary + "\n", encoding="utf-8", newline="\n")
        path = folder / "report.md"
        markdown = self.to_markdown()
        path.write_text(markdown, encoding="utf-8", newline="\n")
        page = html.page(self.title, html.body(markdown, folder))
        (folder / "report.html").write_text(page, encoding="utf-8", newline="\n")
        return path

    def to_markdown(self) -> str:
        import jinja2

        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            autoescape=False,
        )
        return environment.get_template("page.md.jinja").render(page=self)

    def verdict_table(self) -> Table:
        head = ["Claim of the paper", "Paper", "Ours", "Verdict"]
        rows = []
        for verdict in self.verdicts:
            why = f" ({'; '.join(verdict.why)})" if verdict.why else ""
            rows.append(
                [verdict.title, verdict.paper, verdict.ours or "–", f"**{verdict.verdict}**{why}"]
            )
        return Table("", "Verdicts", head, rows, align="llll")

    def summary(self) -> dict[str, Any]:
        """What an index page needs: finding, status, one row a verdict, and further facts."""
        rows = [
            {
                "claim": verdict.claim,
                "title": verdict.title,
                "paper": verdict.paper,
                "ours": verdict.ours,
                "verdict": verdict.verdict,
                "why": list(verdict.why),
            }
            for verdict in self.verdicts
        ]
        return {
            "schema": 1,
            "experiment": self.experiment,
            "title": self.title,
            "finding": list(self.finding),
            "status": self.status,
            "verdicts": rows,
            "facts": self.facts,
            "rows": [row.summary() for row in self.rows],
        }
