"""The report of `experiments/failure_cases.py`: Figure 21 of the paper."""

from __future__ import annotations

from typing import Any

from reports.figures.pictures import Strip, Tile, picture_grid
from reports.figures.style import Figure
from reports.load import Run
from reports.means import DASH, Mean, number, percent
from reports.page import Page
from reports.paper import paper_values
from reports.tables import MEAN_SD, Column, Table
from reports.verdicts.editing import judge_boundary, judge_samples
from reports.verdicts.numbers import NOT_IN_RUN, without_paper

DIRECTIONS = ("right", "left", "top", "bottom")
COLUMNS = 10  # of the worst samples
MOST_CLASSES = 20  # listed; of more, those with the most failures


def make_page(run: Run) -> Page:
    """The page of one run; see `reports.build.build`."""
    ours, real = (run.mean("disagreement", part=part) for part in ("samples", "real"))
    found = {name: run.means(name, "direction") for name in ("ratio", "gradient", "real_gradient")}
    ratios = {d: found["ratio"].get(d, Mean.of([])) for d in DIRECTIONS}
    cells = run.pick(part="samples")
    why = cells[0].why_missing("disagreement") if cells else NOT_IN_RUN
    samples = run.count()
    of_samples = judge_samples(ours, real, samples, paper_values()["figure21_samples"], why)
    of_boundary = judge_boundary(ratios, paper_values()["figure21_boundary"])
    stored = [arrays for entry in cells if (arrays := entry.arrays("images"))]
    return Page(
        experiment="failure_cases",
        run=run,
        verdicts=[of_samples, of_boundary],
        numbers=[
            without_paper(
                "Figure 21, samples of another class than asked for, %",
                ours.scaled(100),
                of_samples,
                samples=samples,
                why=why,
                digits=1,
            ),
            *(
                without_paper(
                    f"Figure 21, boundary of outpainting {name}: change against real images",
                    ratio,
                    of_boundary,
                    samples=run.count("boundary_images"),
                )
                for name, ratio in ratios.items()
            ),
        ],
        facts={"disagreement": ours.mean if ours.n else None},
        values={
            "ours": ours,
            "real": real,
            "why": why,
            "psnr": run.mean("psnr", part="reconstruction"),
            "worst_psnr": run.mean("worst_psnr", part="reconstruction"),
            "ratios": {name: ratio for name, ratio in ratios.items() if ratio.n},
            "worst_samples": _worst_samples(run, stored[0]) if stored else None,
            "first_count": int(stored[0]["of_class"].sum()) if stored else 0,
            "classes": _classes(run, stored) if stored else None,
            "class_seeds": len(stored),
            "worst_reconstructions": _reconstructions(run),
            "percentiles": _percentiles(run),
            "boundary": _boundary(found) if found["ratio"] else None,
            "edges": _edges(run),
        },
    )


def _first(run: Run, needed: str, **settings: Any) -> dict[str, Any]:
    """The arrays of the first cell with these settings that has those needed."""
    cells = [entry.arrays(needed) for entry in run.pick(**settings)]
    return next(filter(None, cells), {})


# ---- samples ------------------------------------------------------------------------------------


def _worst_samples(run: Run, stored: dict[str, Any]) -> Figure:
    names = ("asked", "asked_probability", "predicted", "predicted_probability")
    told = zip(*(stored[name].tolist() for name in names), strict=True)
    words = [
        f"asked {run.class_name(asked)} {percent(own, 0)}\n"
        f"{run.class_name(said)} {percent(other, 0)}"
        for asked, own, said, other in told
    ]
    tiles = [Tile(image, words=w) for image, w in zip(stored["images"], words, strict=True)]
    strips = [Strip("", tiles[start : start + COLUMNS]) for start in range(0, len(tiles), COLUMNS)]
    alt = "The samples to which the classifier gives the least probability of the class asked for"
    return picture_grid("figure21", alt, strips, left=8, gap=20)


def _classes(run: Run, stored: list[dict[str, Any]]) -> Table:
    real = _first(run, "wrong_of_class", part="real")
    psnr = _first(run, "psnr_of_class", part="reconstruction")
    of_class = sum(found["of_class"] for found in stored)
    wrong = sum(found["wrong_of_class"] for found in stored)
    classes = sorted(range(len(of_class)), key=lambda c: (-int(wrong[c]), c))[:MOST_CLASSES]
    if len(of_class) <= MOST_CLASSES:
        classes.sort()
    rows = []
    for c in classes:
        row = {"class": c, "name": run.class_name(c)}
        row |= {"wrong": int(wrong[c]), "samples": int(of_class[c])}
        if real:
            row |= {"wrong_real": int(real["wrong_of_class"][c]), "real": int(real["of_class"][c])}
        row["psnr"] = float(psnr["psnr_of_class"][c]) if psnr else None
        row["share"] = _share(row, "wrong", "samples")
        row["share_real"] = _share(row, "wrong_real", "real")
        rows.append(row)
    columns = [
        Column("name", "Class", align="l", in_csv=False),
        *map(Column, ("class", "wrong", "samples", "wrong_real", "real")),
        Column("share", "Samples of another class", in_csv=False),
        Column("share_real", "Real images", in_csv=False),
        Column("psnr", "PSNR, dB", digits=1),
    ]
    return Table("classes", columns, rows)


def _share(row: dict[str, Any], part: str, whole: str) -> str:
    if not row.get(whole):
        return DASH
    return f"{row[part]} of {row[whole]} ({percent(row[part] / row[whole])})"


# ---- reconstructions ----------------------------------------------------------------------------


def _reconstructions(run: Run) -> Figure | None:
    stored = _first(run, "reconstructions", part="reconstruction")
    if not stored:
        return None
    labels, values = stored["labels"].tolist(), stored["psnr"].tolist()
    words = [f"{run.class_name(c)}\n{number(v, 1)} dB" for c, v in zip(labels, values, strict=True)]
    shown = zip(stored["reconstructions"], words, strict=True)
    strips = [
        Strip("original", [Tile(image) for image in stored["originals"]]),
        Strip("reconstruction", [Tile(image, words=w) for image, w in shown]),
    ]
    alt = "The held-out images with the worst reconstructions, above their reconstructions"
    return picture_grid("worst_reconstructions", alt, strips, left=140)


def _percentiles(run: Run) -> list[float]:
    """PSNR of all held-out images: minimum, 5%, median, 95%, maximum."""
    stored = _first(run, "percentiles", part="reconstruction")
    return stored["percentiles"].tolist() if stored else []


# ---- boundary -----------------------------------------------------------------------------------


def _boundary(found: dict[str, dict[str, Mean]]) -> Table:
    columns = [
        Column("direction", "Outpainted", align="l"),
        Column("gradient", "Outpainted images", parts=MEAN_SD),
        Column("real", "Real images", text=lambda value: number(value.mean)),
        Column("ratio", "Ratio", parts=MEAN_SD),
        Column("n", "n"),
    ]
    rows = [
        {
            "direction": name,
            "gradient": found["gradient"].get(name),
            "real": found["real_gradient"].get(name),
            "ratio": found["ratio"][name],
            "n": found["ratio"][name].n,
        }
        for name in DIRECTIONS
        if name in found["ratio"]
    ]
    return Table("boundary", columns, rows)


def _edges(run: Run) -> Figure | None:
    heads: list[str] = []
    rows: dict[str, list[Tile | None]] = {"real": [], "known": [], "outpainted": []}
    for name in run.values_of("direction"):
        stored = _first(run, "gains", part="boundary", direction=name)
        if not stored:
            continue
        gains = stored["gains"].tolist()
        for image, original, gain in zip(stored["images"], stored["inputs"], gains, strict=True):
            heads.append(name)
            rows["real"].append(Tile(original))
            rows["known"].append(Tile(original, hidden=stored["mask"]))
            rows["outpainted"].append(Tile(image, words=f"+{number(gain, 0)} grey levels"))
    if not heads:
        return None
    strips = [Strip(name, tiles) for name, tiles in rows.items()]
    alt = "Outpainted images with the largest change across the boundary, below the real ones"
    return picture_grid("worst_boundaries", alt, strips, heads, left=110)
