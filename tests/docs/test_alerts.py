"""docs/alerts.md has a section for every rule, with its numbers and its words, in the order of the table."""

from __future__ import annotations

import re
from pathlib import Path

from spoolproof.alerts.rule import Rule
from spoolproof.alerts.rules import RULES

PAGE = (Path(__file__).parents[2] / "docs" / "alerts.md").read_text()
SECTION = re.compile(r"^### (\w+)\n(.*?)(?=^### |\Z)", re.MULTILINE | re.DOTALL)


def test_every_alert_has_its_section() -> None:
    """What a page at 3 a.m. is looked up in."""
    sections = SECTION.findall(PAGE)
    assert [rule.name for rule in RULES] == [name for name, _ in sections]
    for rule, (_, text) in zip(RULES, sections, strict=True):
        first, note, safe, do = [line for line in text.splitlines() if line]
        assert heading(rule) == first
        assert len(note) > 40
        assert f"- Safe meanwhile: {rule.safe}" == safe
        what, _, command = rule.remedy.rpartition(": ")
        assert f"- Do: {what}: `{command}`" == do


def heading(rule: Rule) -> str:
    labels = f" for each {', '.join(f'`{label}`' for label in rule.fact.labels)}" if rule.fact.labels else ""
    bound = f"{rule.bound} {number(rule.trigger)} for {duration(rule.for_seconds) or 'one look'}"
    end = f"ends at {number(rule.clears_at)}" + (f" after {duration(rule.keep_seconds)}" if rule.keep_seconds else "")
    return f"`{rule.severity}`{labels}: {bound}; {end}."


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:g}"


def duration(seconds: float) -> str:
    return "" if not seconds else f"{seconds:g} s" if seconds < 60 else f"{seconds / 60:g} min"
