"""What a line of `spoolproof run` looks like, to a program and to a person."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from spoolproof import limits
from spoolproof.lifecycle.events import LeaseLost, LoopFailed, ServiceStarted
from spoolproof.telemetry.events import emit
from spoolproof.telemetry.folding import Folded
from spoolproof.telemetry.logging import Lines, OneLine, log_to_stderr
from spoolproof.telemetry.settings import LogSettings, early_log_settings
from spoolproof.testing.clock import ManualClock


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, with nothing on it but what the test puts there."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    root.handlers = []
    yield root
    root.handlers, root.level = handlers, level


def lines_on(stream: io.StringIO, root: logging.Logger, **settings: Any) -> Lines:
    lines = Lines(stream)
    root.addHandler(lines)
    lines.use(LogSettings(**settings))
    lines.service, lines.process = "shop", lambda: "0190"
    return lines


def record(message: str, level: int = logging.WARNING, **more: object) -> logging.LogRecord:
    made = logging.LogRecord("spoolproof.store", level, __file__, 1, message, (), None)
    made.created = 1_767_225_600.25
    vars(made).update(more)
    return made


def test_a_line_is_one_line_whatever_an_error_says() -> None:
    """PostgreSQL's errors have several; what follows a newline would pass for a line of its own, with any content."""
    assert "2026-01-01T00:00:00.250Z WARNING spoolproof.store failed: a\\nDETAIL: b \\x1b[2J" == (
        OneLine().format(record("failed: a\nDETAIL: b \x1b[2J"))
    )


def test_where_a_program_reads_a_line_is_one_object(root: logging.Logger) -> None:
    """Fields need no pattern to be found, and an event has the names it is documented under."""
    stream = io.StringIO()
    lines_on(stream, root)

    emit(LeaseLost(kind="outbox", lost=2, kept=1))

    (line,) = stream.getvalue().splitlines()
    found = json.loads(line)
    assert found.pop("at").endswith("Z")
    assert {
        "level": "warning",
        "event": "lease.lost",
        "service": "shop",
        "process": "0190",
        "message": "lease.lost kind=outbox lost=2 kept=1",
        "kind": "outbox",
        "lost": 2,
        "kept": 1,
    } == found
    assert list(json.loads(line))[:3] == ["at", "level", "event"]


def test_the_users_own_lines_go_the_same_way(root: logging.Logger) -> None:
    """One process, one format: what a collector parses, it parses for both."""
    stream = io.StringIO()
    lines_on(stream, root)

    logging.getLogger("shop.orders").warning("order %d", 7, extra={"order_id": 7, "of": object})

    found = json.loads(stream.getvalue())
    assert ("shop.orders", "order 7", 7) == (found["logger"], found["message"], found["order_id"])
    assert "object" in found["of"]


def test_a_traceback_and_what_was_not_written_are_fields(root: logging.Logger) -> None:
    """A traceback of forty lines stays one line, with what it belongs to."""
    stream = io.StringIO()
    lines_on(stream, root)
    folded = Folded(ManualClock())
    event = LoopFailed(loop="relay", kind="ValueError", failures=1, error="ValueError: a bug")

    folded.emit(event)
    folded.emit(event)
    folded._causes = {cause: (-1000.0, count) for cause, (_, count) in folded._causes.items()}
    folded.emit(event, error=ValueError("a bug"))

    first, second = map(json.loads, stream.getvalue().splitlines())
    assert "suppressed" not in first
    assert 1 == second["suppressed"]
    assert "ValueError: a bug" in second["traceback"]


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_line_over_16_kib_is_cut_and_says_so(root: logging.Logger, form: str) -> None:
    """Collectors split longer ones in two, and neither half can be read."""
    stream = io.StringIO()
    lines_on(stream, root, log=form)
    started = ServiceStarted(
        service="shop", release="1", store="s", broker="ä" * 20_000, roles="\n" * 9_000, handlers="none"
    )

    emit(started, error=ValueError("x" * 20_000))

    text = stream.getvalue()
    assert len(text.encode()) <= limits.LOG_LINE_BYTES_MAX + 1000
    if form == "json":
        assert len(text.encode()) <= limits.LOG_LINE_BYTES_MAX + 1
        assert json.loads(text)["is_cut"]
        assert "service.started" == json.loads(text)["event"]
    else:
        assert "…cut" in text


def test_what_cannot_be_cut_is_left_out(root: logging.Logger) -> None:
    """A thousand fields of a user's: who wrote, when and how loud is kept."""
    stream = io.StringIO()
    lines_on(stream, root)

    logging.getLogger("shop").warning("much", extra={f"field_{number}": number for number in range(5_000)})

    found = json.loads(stream.getvalue())
    assert {"at", "level", "logger", "service", "process", "is_cut"} == set(found)


@pytest.mark.parametrize(
    ("log", "stream", "is_json", "is_coloured"),
    [
        ("auto", io.StringIO, True, False),
        ("auto", Terminal, False, True),
        ("json", Terminal, True, False),
        ("text", io.StringIO, False, False),
    ],
)
def test_who_reads_decides_the_form_unless_it_is_set(
    root: logging.Logger,
    monkeypatch: pytest.MonkeyPatch,
    log: str,
    stream: type[io.StringIO],
    is_json: bool,
    is_coloured: bool,
) -> None:
    """Nobody has to configure anything for the usual two; colours in a file are noise."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = stream()
    lines_on(out, root, log=log)

    emit(LeaseLost(kind="outbox", lost=2, kept=1))

    assert is_json is out.getvalue().startswith("{")
    assert is_coloured is out.getvalue().startswith("\x1b[33m")


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error", "critical"])
def test_each_level_shows_itself_and_what_is_louder(root: logging.Logger, level: str) -> None:
    """SPOOLPROOF_LOG_LEVEL means what the levels of Python mean."""
    stream = io.StringIO()
    lines_on(stream, root, log_level=level.upper())

    for number in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
        logging.getLogger("shop").log(number, "x")

    shown = [json.loads(line)["level"] for line in stream.getvalue().splitlines()]
    levels = ["debug", "info", "warning", "error", "critical"]
    assert levels[levels.index(level) :] == shown


def test_a_stream_that_is_gone_raises_nothing(root: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log collector that died must not end the service."""
    stream = io.StringIO()
    lines_on(stream, root)
    monkeypatch.setattr(logging, "raiseExceptions", False)
    stream.close()

    emit(LeaseLost(kind="outbox", lost=2, kept=1))
    logging.getLogger("shop").warning("%d", "not a number")


def test_a_log_that_is_configured_already_is_left_alone(root: logging.Logger) -> None:
    """The user's configuration wins, whoever came first."""
    root.addHandler(logging.NullHandler())
    root.setLevel(logging.ERROR)

    lines = log_to_stderr(LogSettings(log_level="debug"))
    lines.use(LogSettings(log_level="debug"))

    assert lines not in root.handlers
    assert logging.ERROR == root.level


def test_a_faulty_setting_is_not_told_before_all_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is there before the settings are read; they are refused together, in one message."""
    monkeypatch.setenv("SPOOLPROOF_LOG_LEVEL", "loud")

    assert LogSettings.model_construct() == early_log_settings()
