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

from markdown_it import MarkdownIt

LINKED = (".csv", ".tex", ".gif")  # links to other files (a figure's PNG and SVG) are left out

STYLE = """
:root { color-scheme: light dark; --ink: #222; --ground: #fff; --line: #ccc; --faint: #666;
  --band: #f4f4f4; --link: #0059a8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --ground: #181818; --line: #444;
  --faint: #aaa; --band: #242424; --link: #7cc0ff; } }
body { color: var(--ink); background: var(--ground); margin: 0 auto; padding: 1.5rem 1rem 4rem;
  max-width: 68rem; font: 16px/1.5 system-ui, sans-serif; }
h1, h2, h3 { line-height: 1.25; margin: 2em 0 .6em; } h1 { margin-top: .4em; }
a { color: var(--link); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; margin: 1rem 0;
  font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
td[style*="right"] { white-space: nowrap; } th { border-bottom-width: 2px; }
tbody tr:nth-child(even) { background: var(--band); }
code { font-size: .9em; background: var(--band); padding: .1em .25em; overflow-wrap: anywhere; }
img { display: block; max-width: 100%; height: auto; background: #fff; padding: 6px;
  border-radius: 4px; cursor: zoom-in; box-sizing: border-box; }
dialog { padding: 0; border: 0; max-width: 100vw; max-height: 100vh; background: #fff; }
dialog::backdrop { background: rgba(0, 0, 0, .8); }
dialog img { max-width: none; cursor: zoom-out; min-width: min(96vw, 60rem); }
nav { font-size: .9rem; color: var(--faint); }
hr { border: 0; border-top: 1px solid var(--line); margin: 4rem 0 2rem; }
"""
SCRIPT = """
const dialog = document.querySelector("dialog");
document.querySelectorAll("main img").forEach(image => image.addEventListener("click", () => {
  dialog.replaceChildren(image.cloneNode()); dialog.showModal(); }));
dialog.addEventListener("click", () => dialog.close());
"""


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
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n<hr>\n".join(parts)
        + f"\n</main>\n<dialog></dialog>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


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
