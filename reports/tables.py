"""A table is its columns and rows of values, written as Markdown, CSV and LaTeX by one class."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reports import escape
from reports.means import DASH, Mean, number

MEAN_SD = ("", "_sd")  # what the CSV has of a mean: columns NAME and NAME_sd
PAPER_DIGITS = 2  # of a plain number in a column of means: it is the paper's


@dataclass(frozen=True)
class Column:
    """One column of a table, as a person reads it and as a program does.

    name: the key of its values in the rows and its name in the CSV. head: what is printed above
    it; a column without a head stands in the CSV only. digits: decimals of printed numbers. text:
    prints a value that is not None, in place of `digits`. parts: endings of the CSV's columns for
    the mean, the sd and the number of values of a `Mean`. in_csv: whether the CSV has it.
    """

    name: str
    head: str = ""
    digits: int = 2
    text: Callable[[Any], str] | None = None
    align: str = "r"
    parts: Sequence[str] = ()
    in_csv: bool = True

    def printed(self, value: Any) -> str:
        """A dash for what is not there, text as it is, numbers with fixed decimals."""
        if value is None or (isinstance(value, Mean) and not value.n):
            return DASH
        if self.text and not isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mean):
            return value.words(self.digits)
        if isinstance(value, str):
            return value
        digits = PAPER_DIGITS if self.parts else self.digits
        return number(value, digits) if isinstance(value, float) else str(value)

    def fields(self, value: Any) -> list[object]:
        """The value for the CSV: one field, or one a part."""
        if not self.parts:
            return [value.mean if isinstance(value, Mean) else value]
        if isinstance(value, Mean):
            return list((value.mean, value.sd, value.n)[: len(self.parts)])
        return [value, *[None] * (len(self.parts) - 1)]


@dataclass(frozen=True)
class Table:
    """A table of `columns` and of `rows`, which map a column's name to a value.

    A value is a Mean, a number, a text, or None. name: the stem of the files NAME.csv and NAME.tex
    beside the report; an empty name writes none. detail: the table that the CSV holds instead,
    where more is known than is printed.
    """

    name: str
    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]
    latex: bool = True
    detail: Table | None = None
    files: list[str] = field(default_factory=list)

    def _shown(self) -> tuple[list[Column], list[list[Any]]]:
        columns = [column for column in self.columns if column.head]
        rows = [[column.printed(row.get(column.name)) for column in columns] for row in self.rows]
        return columns, [[column.head for column in columns], *rows]

    def to_markdown(self) -> str:
        """A GitHub table, padded so that it also reads in an editor."""
        columns, rows = self._shown()
        cells = [[escape.markdown(text) for text in row] for row in rows]
        widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(columns))]
        right = [column.align == "r" for column in columns]

        def line(row: Sequence[str]) -> str:
            padded = (
                text.rjust(width) if to_right else text.ljust(width)
                for text, width, to_right in zip(row, widths, right, strict=True)
            )
            return "| " + " | ".join(padded) + " |"

        rules = [
            "-" * (width - 1) + ":" if to_right else "-" * width
            for width, to_right in zip(widths, right, strict=True)
        ]
        return "\n".join([line(cells[0]), line(rules), *map(line, cells[1:])])

    def to_csv(self) -> str:
        """Every column with its values in full precision."""
        if self.detail:
            return self.detail.to_csv()
        columns = [column for column in self.columns if column.in_csv]
        names = [f"{column.name}{part}" for column in columns for part in column.parts or [""]]
        rows = [
            [entry for column in columns for entry in column.fields(row.get(column.name))]
            for row in self.rows
        ]
        return csv_text(names, rows)

    def to_latex(self, caption: str = "") -> str:
        """A plain `tabular`, for \\input in a paper; needs no package."""
        columns, rows = self._shown()
        body = [" & ".join(map(escape.latex, row)) + r" \\" for row in rows]
        body.insert(1, r"\hline")
        inner = "\n".join(["\\hline", *body, "\\hline"])
        head = f"% {' '.join(caption.split())}\n" if caption else ""
        letters = "".join(column.align for column in columns)
        return f"{head}\\begin{{tabular}}{{{letters}}}\n{inner}\n\\end{{tabular}}\n"

    def write(self, folder: Path, caption: str = "") -> None:
        """Writes NAME.csv and NAME.tex into `folder` and notes their names in `files`."""
        self.files.clear()
        if not self.name:
            return
        outputs = {"csv": self.to_csv()} | ({"tex": self.to_latex(caption)} if self.latex else {})
        for ending, text in outputs.items():
            (folder / f"{self.name}.{ending}").write_text(text, encoding="utf-8", newline="\n")
            self.files.append(f"{self.name}.{ending}")


def text_table(name: str, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """A table of words, left-aligned; its CSV has the printed heads as names."""
    columns = [Column(title, title, align="l") for title in head]
    return Table(name, columns, [dict(zip(head, row, strict=True)) for row in rows], latex=False)


def csv_text(names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """CSV with line feeds. Numbers have six decimals at most; NaN and None are empty fields."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([[_field(value) for value in row] for row in rows])
    return out.getvalue()


def _field(value: object) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return f"{value:.6f}" if isinstance(value, float) else str(value)
