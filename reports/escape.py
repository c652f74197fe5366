"""The one place where text becomes harmless for the format that it is written into.

A run folder holds text that is not ours: names of classes, reasons of failures, cards of models.
The pages' code handles all text as plain; only the templates hold Markdown of our own. Every value
that a template or a table prints passes through `markdown` or `latex`, so that no link, picture,
tag or command can arise from it.
"""

from __future__ import annotations

import re

_MARKDOWN = re.compile(r"[\\`*\[\]<>&|~]|(?<![^\W_])_|_(?![^\W_])")
_LINE_START = re.compile(r"^(?:([-+#=]+)(?=\s|$)|(\d+)([.)])(?=\s|$))")
_LATEX = {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}"}
_LATEX |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
_LATEX |= {"±": r"$\pm$", "≤": r"$\leq$", "–": "--", "…": r"\ldots{}", "↑": r"$\uparrow$"}
_LATEX |= {"↓": r"$\downarrow$", "<": r"$<$", ">": r"$>$"}


class Own(str):
    """Markdown that the report wrote itself; it is not escaped again."""


def markdown(value: object) -> str:
    """One line of Markdown that shows the value as it is; `Own` Markdown passes unchanged."""
    if isinstance(value, Own):
        return value
    text = _MARKDOWN.sub(lambda found: f"\\{found[0]}", _line(value))
    return _LINE_START.sub(lambda m: f"\\{m[1]}" if m[1] else f"{m[2]}\\{m[3]}", text)


def code(text: str) -> Own:
    """The text as a code span, which nothing inside it can end."""
    line = _line(text)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return Own(f"{fence}{space}{line}{space}{fence}")


def link(text: str, target: str) -> Own:
    """A link of the report's own; a target with spaces or brackets is allowed."""
    return Own(f"[{markdown(text)}](<{target}>)" if re.search(r"[\s()]", target) else
               f"[{markdown(text)}]({target})")  # fmt: skip


def latex(value: object) -> str:
    """One line of LaTeX text that shows the value as it is."""
    return "".join(_LATEX.get(letter, letter) for letter in _line(value))


def _line(value: object) -> str:
    return re.sub(r"\s+", " ", str(value))
