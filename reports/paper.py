"""What the paper printed and how our numbers are held against it, declared before the runs."""

from __future__ import annotations

import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Any


@lru_cache(maxsize=1)
def paper_values() -> dict[str, Any]:
    """`reports/paper_values.toml`, parsed."""
    path = Path(__file__).with_name("paper_values.toml")
    return tomllib.loads(path.read_text(encoding="utf-8"))
