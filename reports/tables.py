"""Tables: one object, written as Markdown, CSV and LaTeX; fixed number formats everywhere."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

DASH = "–"
_LATEX = {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}"}
_LATEX |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
_LATEX |= {"±": r"$\pm$", "≤": r"$\leq$", "–": "--", "…": r"\ldots{}", "↑": r"$\uparrow$"}
_LATEX |= {"↓": r"$\downarrow$", "<": r"$<$", ">": r"$>$"}


@dataclass(frozen=True)
class Table:
    """A table as a person reads it (`head`, `rows`: strings) and as a program does (`data`).

    `align` has one letter a column, l or r. `data` is (names, rows) for the CSV, with full
    precision; without it the CSV holds the strings. `name` is the stem of the files beside the
    report; an empty name writes none.
    """

    name: str
    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    align: str = ""
    data: tuple[Sequence[str], Sequence[Sequence[object]]] | None = None
    latex: bool = True
    files: list[str] = field(default_factory=list)

    kind = "table"

    def columns(self) -> str:
        return self.align or "l" + "r" * (len(self.head) - 1)

    def to_markdown(self) -> str:
        """A GitHub table, padded so that it also reads in an editor."""
        cells = [[_markdown(text) for text in row] for row in (self.head, *self.rows)]
        widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(self.head))]
        right = [letter == "r" for letter in self.columns()]

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
        names, rows = self.data or (self.head, self.rows)
        return csv_text(names, rows)

    def to_latex(self) -> str:
        """A plain `tabular`, for \\input in a paper; needs no package."""
        body = [" & ".join(map(_latex, row)) + r" \\" for row in (self.head, *self.rows)]
        body.insert(1, r"\hline")
        inner = "\n".join(["\\hline", *body, "\\hline"])
        return (
            f"% {self.caption}\n\\begin{{tabular}}{{{self.columns()}}}\n{inner}\n\\end{{tabular}}\n"
        )

    def write(self, folder: Path) -> None:
        """Writes NAME.csv and NAME.tex into `folder` and notes their names in `files`."""
        self.files.clear()
        if not self.name:
            return
        outputs = {"csv": self.to_csv()} | ({"tex": self.to_latex()} if self.latex else {})
        for ending, text in outputs.items():
            (folder / f"{self.name}.{ending}").write_text(text, encoding="utf-8", newline="\n")
            self.files.append(f"{self.name}.{ending}")


def csv_text(names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """CSV with line feeds. Numbers have six decimals at most; NaN and None are empty fields."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([[plain(value) for value in row] for row in rows])
    return out.getvalue()


def plain(value: object) -> str:
    """A CSV field: six decimals for floats, nothing for NaN or None."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return f"{value:.6f}" if isinstance(value, float) else str(value)


def number(value: float, digits: int) -> str:
    """Fixed decimals; a dash for NaN; never "-0.00"."""
    if not math.isfinite(value):
        return DASH
    return f"{round(value, digits) + 0.0:.{digits}f}"


def mean_sd(mean: float, sd: float, digits: int) -> str:
    """`3.90 ± 0.05`, or the mean alone where there is no sd (n = 1)."""
    if not math.isfinite(mean) or not math.isfinite(sd):
        return number(mean, digits)
    return f"{number(mean, digits)} ± {number(sd, digits)}"


def ranges(values: Iterable[int], among: Sequence[int]) -> str:
    """Values of T as runs of neighbours in `among`: 8, 9, 10, 12 of 4..60 is "8-10, 12"."""
    place = {value: i for i, value in enumerate(sorted(among))}
    runs: list[list[int]] = []
    for value in sorted(values):
        if runs and place[value] == place[runs[-1][-1]] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def and_list(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def _markdown(text: str) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")


def _latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in str(text))
