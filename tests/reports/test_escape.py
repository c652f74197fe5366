"""Text that is not the report's own stays text, and no file from outside gets into a page."""

from __future__ import annotations

import base64
import json
import re
import shutil
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from reports import escape, html
from reports.build import build
from reports.index import build_index
from tests.reports.study_run import editing_run
from tests.reports.synthetic_run import checksum, write_run

SECRET = "the name of this machine"
TEXTS = [
    "![p](../secret.txt)",
    "[p](../secret.txt)",
    "<img src=../secret.txt>",
    "<https://example.org/x>",
    "a\n\n# b\n\n![p](../secret.txt)",
    "`` ` ![p](../secret.txt)",
    "\\![p](../secret.txt)",
    "| a | ![p](../secret.txt)",
    "*a* **b** _c_ __d__ ~~e~~",
    "&lt;b&gt; &amp;",
    "- a",
    "1. a",
    "# a",
    "=====",
    "\\input{/etc/hostname} $x$ 5% #1",
]


def hostile(value: object, text: str) -> object:
    """The value with `text` behind every word that a run may bring from outside."""
    if isinstance(value, dict):
        return {name: hostile(item, text) for name, item in value.items()}
    if isinstance(value, list):
        return [hostile(item, text) for item in value]
    return f"{value} {text}" if isinstance(value, str) else value


def spoil(run: Path, text: str) -> None:
    """Put `text` into class names, cards, settings, the command, reasons, versions and errors."""
    grid = json.loads((run / "grid.json").read_text())
    for field in ("protocol", "models", "preset", "command"):
        grid[field] = hostile(grid.get(field, ""), text)
    (run / "grid.json").write_text(json.dumps(grid))
    paths = sorted(run.glob("cells/*/result.json"))
    for path in paths[1:]:
        result = json.loads(path.read_text())
        result["missing"] = {"kid": text}
        result["metrics"].pop("kid", None)
        result["protocol"] = hostile(result["protocol"], text)
        result["checksum"] = checksum(result)
        path.write_text(json.dumps(result))
    paths[0].unlink()
    (paths[0].parent / "failure.json").write_text(json.dumps({"error": text}))


@pytest.mark.parametrize("text", TEXTS)
def test_markdown_shows_the_text_and_nothing_else(text: str):
    shown = (
        MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(escape.markdown(text))
    )
    assert re.fullmatch(r"<p>[^<]*</p>\n", shown), shown
    plain = shown[3:-5].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    assert plain.replace("&quot;", '"') == " ".join(text.split())


@pytest.mark.parametrize("text", [*TEXTS, "``", "`a", "a`", "a ``` b"])
def test_nothing_inside_ends_a_code_span(text: str):
    shown = MarkdownIt("commonmark").render(f"before {escape.code(text)} after")
    assert re.fullmatch(r"<p>before <code>[^<]*</code> after</p>\n", shown), shown


@pytest.mark.parametrize("experiment", ["ablate_schedule", "editing"])
def test_no_text_of_a_run_becomes_a_picture_a_link_or_a_tag(tmp_path: Path, experiment: str):
    (tmp_path / "secret.txt").write_text(SECRET)
    if experiment == "editing":
        run = editing_run(tmp_path / "run")
    else:
        run = write_run(tmp_path / "run", ["cosine"], steps=[4, 8], seeds=[0, 1])
    spoil(run, f"{TEXTS[0]} {TEXTS[1]} <script>x</script> ` $\\foo$ | \\input{{x}}")
    folder = build(run, tmp_path / "report").parent
    page = (folder / "report.html").read_text()
    assert base64.b64encode(SECRET.encode()).decode() not in page
    assert "../secret.txt" in page  # as text
    targets = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert targets
    assert all(target.startswith("data:") for target in targets)
    pictures = [path for path in folder.iterdir() if path.suffix in (".png", ".gif")]
    assert page.count("<img ") == len(pictures)
    assert page.count("<script>") == 1
    for path in folder.glob("*.tex"):
        lines = [line for line in path.read_text().splitlines() if not line.startswith("%")]
        assert not any(re.search(r"\\(input|foo)", line) for line in lines)
    assert "../secret.txt" not in (folder / "SHA256SUMS").read_text()
    index = build_index([folder], tmp_path / "index").parent / "index.html"
    assert base64.b64encode(SECRET.encode()).decode() not in index.read_text()


def test_only_files_that_the_report_wrote_are_embedded(tmp_path: Path):
    folder = tmp_path / "report"
    folder.mkdir()
    (tmp_path / "secret.txt").write_text(SECRET)
    (folder / "other.csv").write_text(SECRET)
    (folder / "link.csv").symlink_to(tmp_path / "secret.txt")
    text = "![a](../secret.txt) ![a](other.csv) [a](other.csv) ![a](link.csv) [a](link.csv)"
    shown = html.body(text, folder, {"link.csv", "../secret.txt"})
    assert "base64" not in shown
    assert "base64" in html.body(text, folder, {"other.csv"})


def test_the_index_embeds_nothing_that_a_received_report_points_to(tmp_path: Path):
    (tmp_path / "secret.txt").write_text(SECRET)
    run = write_run(tmp_path / "run", ["cosine"], steps=[4], seeds=[0], samples=False)
    folder = build(run, tmp_path / "a" / "report").parent
    shutil.copy(tmp_path / "secret.txt", tmp_path / "a")
    with (folder / "report.md").open("a") as file:
        file.write("\n![p](../secret.txt)\n")
    (folder / "SHA256SUMS").write_text(f"{'0' * 64}  ../secret.txt\n")
    index = build_index([folder], tmp_path / "index").parent / "index.html"
    assert base64.b64encode(SECRET.encode()).decode() not in index.read_text()
