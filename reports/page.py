"""A page: the report of one run, before it becomes Markdown and HTML.

An experiment's module in reports/pages computes a Page: verdicts, numbers beside the paper's, and
the values, tables and figures that its template in reports/templates prints. The template holds the
words. Writing the page puts `report.md`, `report.html`, `summary.json` and the files of its tables
and figures into one folder. An index of several pages reads the summaries only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2

from reports import escape, html, means
from reports.figures.style import Figure
from reports.load import Run
from reports.paper import paper_values
from reports.provenance import provenance
from reports.tables import Column, Table
from reports.verdicts import Verdict
from reports.verdicts.numbers import PaperNumber

FEW_SAMPLES = 10_000  # below, the bias of FID is worth a word


@dataclass(frozen=True)
class Page:
    """One experiment's report.

    experiment: names the template. values: what the template reads beside the run, the verdicts
    and the facts. numbers: of the paper beside ours, for the index. facts: plain data that
    summary.json has for other programs.
    """

    experiment: str
    run: Run | None = None
    verdicts: Sequence[Verdict] = ()
    numbers: Sequence[PaperNumber] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The heading, as plain text."""
        return " ".join(self._block("title"))

    @property
    def finding(self) -> list[str]:
        """What was found, in sentences of plain text: each is a line of the template's block."""
        return self._block("finding")

    @property
    def status(self) -> str:
        """How much of the run is there, as plain text."""
        return " ".join(self._block("status"))

    def write(self, folder: Path) -> Path:
        """Writes the page into an existing empty folder; returns the path of its report.md."""
        markdown, files = self.to_markdown(folder)
        texts = {
            "report.md": markdown,
            "report.html": html.page(self.title, html.body(markdown, folder, files)),
            "summary.json": json.dumps(self.summary(), indent=1, sort_keys=True, ensure_ascii=False)
            + "\n",
        }
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8", newline="\n")
        return folder / "report.md"

    def to_markdown(self, folder: Path) -> tuple[str, set[str]]:
        """The report's Markdown and the names of the files that its tables and figures wrote."""
        files: set[str] = set()

        def show(block: Table | Figure, caller: Callable[[], str] = str) -> escape.Own:
            caption = " ".join(caller().split())
            block.write(folder, caption)
            files.update(block.files)
            links = ", ".join(
                escape.link(name.rsplit(".", 1)[1].upper(), name) for name in block.files
            )
            if isinstance(block, Table):
                shown = block.to_markdown()
            else:
                shown = f"![{escape.markdown(block.alt)}]({block.files[0]})"
            return escape.Own(f"\n\n{shown}\n\n{caption} {links}".rstrip() + "\n\n")

        template = environment(escape.markdown).get_template(f"{self.experiment}.md.jinja")
        return unwrapped(template.render(self._context() | {"show": show})), files

    def summary(self) -> dict[str, Any]:
        """What an index page needs: finding, status, one row a verdict, and further facts."""
        return {
            "schema": 1,
            "experiment": self.experiment,
            "title": self.title,
            "finding": self.finding,
            "status": self.status,
            "verdicts": [verdict.summary() for verdict in self.verdicts],
            "facts": dict(self.facts),
            "rows": [number.summary() for number in self.numbers],
        }

    def _context(self) -> dict[str, Any]:
        names = ("run", "verdicts", "numbers", "facts")
        context = {name: getattr(self, name) for name in names} | dict(self.values)
        context["verdict_table"] = verdict_table(self.verdicts)
        context |= {"paper": paper_values(), "few_samples": FEW_SAMPLES}
        return context | (provenance(self.run) if self.run else {})

    def _block(self, name: str) -> list[str]:
        template = environment(str).get_template(f"{self.experiment}.md.jinja")
        text = "".join(template.blocks[name](template.new_context(self._context())))
        return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def environment(finalize: Callable[[Any], str]) -> jinja2.Environment:
    """The templates, and what they may use. finalize: turns each printed value into text."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(html.TEMPLATES),
        undefined=jinja2.StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    made.filters |= {
        "number": means.number,
        "percent": means.percent,
        "and_list": means.and_list,
        "sentence": means.sentence,
        "code": escape.code,
    }
    return made


def unwrapped(text: str) -> str:
    """Markdown with each paragraph and each item of a list on one line, and single empty lines."""
    paragraphs = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        joined = re.sub(r"\n(?!\||- |#)", " ", paragraph.strip())
        paragraphs.append(re.sub(r" {2,}", " ", joined) if joined[:1] != "|" else joined)
    return "\n\n".join(paragraphs) + "\n"


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    """One row a claim, with its verdict and what limits it."""
    heads = {"title": "Claim of the paper", "paper": "Paper", "ours": "Ours", "word": "Verdict"}
    columns = [Column(name, head, align="l") for name, head in heads.items()]
    rows = [
        {
            "title": verdict.title,
            "paper": verdict.paper,
            "ours": verdict.ours or None,
            "word": verdict_words(verdict.verdict, "; ".join(verdict.why)),
        }
        for verdict in verdicts
    ]
    return Table("", columns, rows)


def verdict_words(word: str, why: str) -> escape.Own:
    """The verdict in bold, with its reasons."""
    return escape.Own(f"**{word}**" + (f" ({escape.markdown(why)})" if why else ""))
