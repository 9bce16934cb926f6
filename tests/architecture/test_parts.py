"""A part is added by its own files and one line in each of two lists; nothing else of the package is touched."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .grown import LINES, TOY, expected, files_of_the_toy, grow, try_out


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_part_is_its_own_files_and_two_lines(tmp_path: Path, kind: str) -> None:
    """What comes next is written beside what there is. A port on three stores with a table, a loop under a lease, a
    health issue, an event, a metric, settings, a command and a facet: whatever needs more makes this fail."""
    url = "memory://" if kind == "memory" else f"sqlite:///{tmp_path / 'store.db'}"

    said = try_out(grow(tmp_path / "grown"), url)

    assert expected(has_command=kind != "memory") == said


def test_the_description_of_the_steps_names_every_file() -> None:
    """Who adds a part goes by ARCHITECTURE.md; a step that is missing there is found out the hard way."""
    text = (Path(__file__).parents[2] / "ARCHITECTURE.md").read_text()
    steps = text[text.index("## Adding a part") :].partition("\n## ")[0].replace("NNNN", "next")

    named = {path for quoted in re.findall(r"`([^`]+)`", steps) for path in _expanded(quoted)}

    assert {str(file.relative_to(TOY)) for file in files_of_the_toy()} <= named
    assert set(LINES) <= named


def _expanded(path: str) -> list[str]:
    """Return the paths that one with `{a,b}` in it stands for."""
    found = re.search(r"{([^}]*)}", path)
    return [path.replace(found[0], one) for one in found[1].split(",")] if found else [path]
