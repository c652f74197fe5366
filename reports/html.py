"""Reports as one HTML file each: no server, no network, nothing beside it is needed.

The Markdown is the source; markdown-it turns it into HTML, pictures and tables' files are put in as
data. A picture opens large on a click. Light and dark follow the reader's system; the figures keep
their white ground on both.
"""

from __future__ import annotations

import base64
import html
import mimetypes
import re
from collections.abc import Collection
from pathlib import Path

import jinja2
from markdown_it import MarkdownIt

TEMPLATES = Path(__file__).parent / "templates"

LINKED = (".csv", ".tex", ".gif")  # links to other files (a figure's PNG and SVG) are left out


def body(markdown: str, folder: Path, files: Collection[str], prefix: str = "") -> str:
    """The HTML of a report's Markdown.

    folder: of the report. files: names of the files in it that the report wrote; only these are
    put into the page. prefix: put before the anchors of headings, so that several reports fit on
    one page.
    """
    renderer = MarkdownIt("commonmark", {"html": False}).enable("table")
    text = renderer.render(markdown)
    text = text.replace("<table>", '<div class="wide"><table>')
    text = text.replace("</table>", "</table></div>")
    text = re.sub(r'<img src="([^"]+)"', lambda m: f'<img src="{_data(folder, m[1], files)}"', text)
    text = re.sub(r'<a href="([^"]+)">(.*?)</a>', lambda m: _link(folder, m[1], m[2], files), text)
    text = re.sub(r"(?<=\. )(?:, )+|(?:, )+(?=, |</p>)", "", text)  # of links left out
    return re.sub(
        r"<h([1-3])>(.*?)</h\1>",
        lambda m: f'<h{m[1]} id="{prefix}{anchor(m[2])}">{m[2]}</h{m[1]}>',
        text,
    )


def page(title: str, *parts: str) -> str:
    """A whole HTML page of bodies, with a rule between them."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True)
    return environment.get_template("page.html.jinja").render(title=title, parts=parts) + "\n"


def anchor(heading: str) -> str:
    """The id of a heading, as GitHub makes it."""
    plain = html.unescape(re.sub(r"<[^>]+>", "", heading)).lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


# What is not a file of the report stays a name, so that nothing else is ever read.
def _data(folder: Path, name: str, files: Collection[str]) -> str:
    path = folder / name
    if name not in files or path.name != name or path.is_symlink() or not path.is_file():
        return html.escape(name)
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _link(folder: Path, target: str, text: str, files: Collection[str]) -> str:
    if ":" in target or target.startswith("#") or target.endswith((".md", ".html")):
        return f'<a href="{target}">{text}</a>'
    data = _data(folder, target, files) if target.endswith(LINKED) else ""
    return f'<a href="{data}" download="{target}">{text}</a>' if data.startswith("data:") else ""
