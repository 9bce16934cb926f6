"""Every event there is: it can be made, told and written."""

from __future__ import annotations

import json
import logging
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import spoolproof
from spoolproof.telemetry.events import CATALOGUE, Event, emit, listening
from spoolproof.telemetry.logging import JsonLine, Lines, OneLine

ROOT = Path(spoolproof.__file__).parent
MODULES = sorted(
    ".".join(("spoolproof", *file.relative_to(ROOT).with_suffix("").parts))
    for file in ROOT.rglob("events.py")
    if file.parent.name not in ("telemetry", "policies") and "_examples" not in file.parts
)
for module in MODULES:
    import_module(module)

EVENTS = [event for event in CATALOGUE.values() if event.__module__ in MODULES]
SAMPLES: dict[object, Any] = {str: "a\nb", int: 3, float: 1.25, bool: True, str | None: None}
IN_EVERY_LINE = {"at", "level", "event", "logger", "service", "process", "message", "traceback", "suppressed", "is_cut"}


def made(kind: type[Event]) -> Event:
    hints = {name: hint for name, hint in get_type_hints(kind).items() if name in kind.__annotations__}
    return kind(**{name: SAMPLES[hint] for name, hint in hints.items()})


def test_every_folder_that_tells_has_its_events() -> None:
    """A catalogue that is not imported is empty, and so is what is made from it."""
    assert len(EVENTS) > 60
    assert {"spoolproof.consumer.events", "spoolproof.brokers.rabbitmq.events"} <= set(MODULES)


@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.name)
def test_an_event_can_be_made_and_its_line_written(kind: type[Event], caplog: pytest.LogCaptureFixture) -> None:
    """It happens at night, once a year; a line that cannot be formatted is a line that is missing then."""
    caplog.set_level(logging.DEBUG)
    event = made(kind)
    heard: list[Event] = []

    with listening(heard.append):
        emit(event)

    (record,) = caplog.records
    assert ([event], kind.level) == (heard, record.levelno)
    assert record.getMessage().startswith(kind.name)
    assert 1 == len(OneLine().format(record).splitlines())
    found = json.loads(JsonLine(Lines(None)).format(record))  # type: ignore[arg-type]
    assert {"event": kind.name, **vars(event)}.items() <= found.items()


@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.name)
def test_an_event_says_what_it_means_and_hides_no_field_of_the_line(kind: type[Event]) -> None:
    """The reference is made from this; a field called `level` would stand where the level belongs."""
    assert kind.__doc__
    assert kind.__doc__.rstrip().endswith((".", "`"))
    assert not set(kind.__annotations__) & (IN_EVERY_LINE - {"service"})
    assert all(part.isidentifier() for part in kind.name.split("."))
