"""The table of a tokenizer alone, which the pages of Table 1 and of reconstruction share."""

from __future__ import annotations

from reports.load import Run
from reports.tables import Column, Table

METRICS = ("rfid", "psnr", "ssim", "lpips", "codes_used", "perplexity")


def tokenizer_table(run: Run) -> Table | None:
    """Its row for each number of images that was measured; None where none was asked for."""
    cells = run.asked(part="tokenizer")
    if not cells:
        return None
    networks = list(dict.fromkeys(entry.cell["features"] for entry in cells))
    columns = [
        Column("images", "Held-out images", digits=0),
        *(run.column(metric, networks[0] if metric == "rfid" else "") for metric in METRICS),
    ]
    rows = [
        {
            "images": entry.cell["num_images"],
            **{metric: run.mean(metric, **entry.cell) for metric in METRICS},
        }
        for entry in cells
    ]
    return Table("tokenizer", columns, rows)
