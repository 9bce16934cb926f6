"""Every command that a page tells people to type is one, with those options."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from spoolproof.cli.app import build

DOCS = Path(__file__).parents[2] / "docs"
LINE = re.compile(r"^spoolproof (?:alert|batch|dlq|review|reconcile|degradation) .*$", re.MULTILINE)
LINES = [
    line
    for page in ("alerts.md", "batches.md", "dead-letters.md", "review.md", "reconciliation.md", "degradation.md")
    for line in LINE.findall((DOCS / page).read_text())
]


@pytest.mark.parametrize("line", LINES)
def test_a_command_of_the_page_is_one(line: str) -> None:
    """At 3 a.m. people paste."""
    _, noun, verb, *arguments = shlex.split(line, comments=True)
    group = typer.main.get_command(build()).get_command(None, noun)  # type: ignore[attr-defined, arg-type]
    command = group.get_command(None, verb)

    command.make_context(verb, arguments)
