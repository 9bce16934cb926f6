"""docs/telemetry.md says what is told and counted: all of the catalogue, and nothing else.

`python tests/docs/test_telemetry.py` writes it anew.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from importlib import import_module
from inspect import cleandoc
from itertools import groupby
from pathlib import Path

import spoolproof
from spoolproof.telemetry.events import CATALOGUE, Event
from spoolproof.telemetry.metrics import METRICS, PREFIX, Metric

PAGE = Path(__file__).parents[2] / "docs" / "telemetry.md"
MARK = "<!-- what follows is written by tests/docs/test_telemetry.py -->\n"


def test_the_reference_is_what_the_code_declares() -> None:
    """Dashboards and alerts are built from this page; a name that is not there is one that nobody finds."""
    head, _, written = PAGE.read_text().partition(MARK)

    assert "".join(reference()) == written, "run python tests/docs/test_telemetry.py"
    assert "spoolproof_outbox_rows" in head


def reference() -> Iterator[str]:
    root = Path(spoolproof.__file__).parent
    modules = [file for file in root.rglob("*.py") if file.name == "events.py" or "ports" in file.parts]
    names = {".".join(("spoolproof", *file.relative_to(root).with_suffix("").parts)) for file in modules}
    for name in sorted(names):
        import_module(name)
    events = sorted((one for one in CATALOGUE.values() if one.__module__ in names), key=lambda one: one.name)
    counted = {one.counter: one for one in events if one.counter is not None}
    yield "\n## Metrics\n| Metric | Kind | Labels | |\n|---|---|---|---|\n"
    for metric in sorted(METRICS.values(), key=lambda one: one.name):
        yield f"| `{PREFIX}{metric.name}` | {metric.kind} | {_codes(metric.labels)} | {_meaning(metric, counted)} |\n"
    yield "\n## Events\n"
    for logger, group in groupby(events, key=lambda one: one.logger.name):
        yield f"\n### {logger.removeprefix('spoolproof.')}\n| Event | Level | Line | |\n|---|---|---|---|\n"
        for event in group:
            level = logging.getLevelName(event.level).lower()
            yield f"| `{event.name}` | {level} | `{event.line or ' '}` | {_sentence(event)}{_folded(event)} |\n"


def _codes(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _meaning(metric: Metric, counted: dict[Metric, type[Event]]) -> str:
    return f"Counts the event `{counted[metric].name}`." if metric in counted else metric.help


def _sentence(event: type[Event]) -> str:
    return " ".join(cleandoc(event.__doc__ or "").split()).replace("|", "\\|")


def _folded(event: type[Event]) -> str:
    return f" One line a minute for each {_codes(event.folds)}." if event.folds else ""


if __name__ == "__main__":
    head = PAGE.read_text().partition(MARK)[0]
    PAGE.write_text(head + MARK + "".join(reference()))
