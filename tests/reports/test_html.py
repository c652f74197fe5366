"""The HTML of reports: nothing beside the file is needed; the index holds every row."""

import base64
import json
import re

import pytest

from maskgit.common.errors import UsageError
from reports import html
from reports.index import build_index, main
from reports.means import Mean
from reports.verdicts.numbers import PaperNumber

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
TEXT = """# Title <script>

| a | b |
| - | -: |
| x | **1** |

![a *figure*](f.png)

Caption. [PNG](f.png), [SVG](f.svg), [CSV](t.csv), [elsewhere](https://example.org/x)
"""
FILES = ("f.png", "f.svg", "t.csv", "gone.png")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "f.png").write_bytes(PIXEL)
    (tmp_path / "f.svg").write_text("<svg/>")
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    return tmp_path


def test_everything_is_in_the_file(folder):
    page = html.page("T & t", html.body(TEXT, folder, FILES))
    assert f'src="data:image/png;base64,{base64.b64encode(PIXEL).decode()}"' in page
    targets = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert [t for t in targets if not t.startswith("data:")] == ["https://example.org/x"]
    csv = next(t for t in targets if t.startswith("data:text/csv"))
    assert base64.b64decode(csv.partition(",")[2]) == b"a,b\n1,2\n"
    assert "<td><strong>1</strong></td>" in page.replace(' style="text-align:right"', "")
    assert "<title>T &amp; t</title>" in page


def test_text_is_never_markup(folder):
    body = html.body(TEXT, folder, FILES)
    assert "<script>" not in body
    assert "&lt;script&gt;" in body


def test_headings_have_the_anchors_that_github_gives(folder):
    assert html.anchor("Figure 8: schedules, and FID against T") == (
        "figure-8-schedules-and-fid-against-t"
    )
    assert '<h1 id="x-title-script">' in html.body(TEXT, folder, FILES, "x-")


def test_a_picture_that_is_not_there_stays_a_link(folder):
    assert 'src="gone.png"' in html.body("![x](gone.png)", folder, FILES)


def report(folder, name, **row):
    folder.mkdir()
    values = {"paper": 6.18, "ours": Mean(1.5, 0.25, 3), "n": 100}
    values |= {"verdict": "not comparable", "why": "another data set"} | row
    summary = {
        "experiment": name,
        "title": f"About {name}",
        "finding": ["It did."],
        "verdicts": [
            {"title": "It does", "paper": "so", "ours": "", "verdict": "not run", "why": ["why"]}
        ],
        "rows": [PaperNumber(what=f"{name}: FID", **values).summary()],
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "report.md").write_text(f"# About {name}\n\nText of {name}.\n")
    return folder


def test_the_index_has_every_row_and_every_report(tmp_path):
    folders = [report(tmp_path / name, name) for name in ("one", "two")]
    index = build_index(folders, tmp_path / "index").read_text()
    assert "[one: FID](../one/report.md)" in index
    assert re.search(r"\| +6.18 \|", index)
    assert "1.50 ± 0.25" in index
    assert "**not comparable** (another data set)" in index
    assert "**not run** (why)" in index
    page = (tmp_path / "index" / "index.html").read_text()
    assert "Text of two." in page
    for target in re.findall(r'href="#([^"]+)"', page):
        assert f'id="{target}"' in page
    assert build_index(folders, tmp_path / "again").read_text() == index


@pytest.mark.parametrize(
    ("row", "difference"),
    [
        ({"compared": True, "ours": Mean(6.0, 0.1, 3)}, "-0.18"),
        ({"compared": True, "ours": Mean(float("nan"), float("nan"), 0)}, "–"),
        ({"ours": Mean(6.0, 0.1, 3)}, "–"),
    ],
)
def test_a_difference_only_between_numbers_of_one_kind(tmp_path, row, difference):
    folder = report(tmp_path / "x", "x", **row)
    assert json.loads((folder / "summary.json").read_text())["rows"][0]["difference"] == difference


def test_a_folder_without_a_report_is_named(tmp_path, capsys):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "summary.json").write_text("[")
    for folder in (tmp_path / "none", tmp_path / "bad"):
        assert main([str(folder), "--out", str(tmp_path / "out")]) == 2
        said = capsys.readouterr().err
        assert str(folder) in said
        assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="cannot be written"):
        build_index([report(tmp_path / "y", "y")], tmp_path / "bad" / "summary.json")
