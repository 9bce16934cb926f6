"""RELIABILITY.md names a test for every loss window, and each of them is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_loss_window_names_tests_that_exist() -> None:
    """A row whose test was renamed promises something that nobody checks any more."""
    section = (ROOT / "RELIABILITY.md").read_text().partition("## Loss windows")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| L")]
    named = [re.findall(r"`(\S+?)::(\w+)`", row) for row in rows]

    assert [] == [row for row, tests in zip(rows, named, strict=True) if not tests]
    missing = [
        f"{file}::{name}"
        for tests in named
        for file, name in tests
        if not (ROOT / file).exists() or f"def {name}(" not in (ROOT / file).read_text()
    ]
    assert [] == missing
    ids = {int(number) for row in rows for number in re.findall(r"L(\d+)", row.split("|")[1])}
    assert set(range(1, 31)) == ids | {11}, "L10–L12 is one row"
