"""Log lines of a process that `spoolproof run` owns: JSON where a program reads them, coloured text where people do.

Our events and the user's own lines go through the same formatter. Libraries only log: in a process of somebody else's
(uvicorn, a script) nothing is configured by us, and an event is a line of the standard `logging` with its text as the
message. Bodies, headers and URLs with passwords never reach a logger, and what looks like a secret is masked in
whatever does.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TextIO

from spoolproof import limits
from spoolproof.caught import stack_of, storable_text
from spoolproof.telemetry.events import Event
from spoolproof.telemetry.redaction import masked, masked_text
from spoolproof.telemetry.settings import LogSettings

_CUT = " …cut"
_ESCAPES = {number: f"\\x{number:02x}" for number in (*range(32), 127)} | {9: "\t", 10: "\\n", 13: "\\r"}
_COLOURS = {"DEBUG": "\x1b[2m", "WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[1;31m"}
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "event", "suppressed"}


class Lines(logging.StreamHandler[TextIO]):
    """Writes to a stream; a record or stream that cannot be written raises nothing. service, process: who writes, as
    soon as that is known."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.service: str | None = None
        self.process: Callable[[], str | None] = lambda: None

    def use(self, settings: LogSettings, level: str | None = None) -> None:
        """Write as these settings say from now on. level: wins over theirs."""
        is_terminal = self.stream.isatty()
        is_json = settings.log == "json" or (settings.log == "auto" and not is_terminal)
        is_coloured = is_terminal and "NO_COLOR" not in os.environ
        self.setFormatter(JsonLine(self) if is_json else OneLine(is_coloured=is_coloured))
        self.setLevel((level or settings.log_level).upper())
        if self in logging.getLogger().handlers:
            logging.getLogger().setLevel(self.level)


class OneLine(logging.Formatter):
    """Time, level, logger and message in one line; a traceback follows it."""

    def __init__(self, *, is_coloured: bool = False) -> None:
        super().__init__()
        self._is_coloured = is_coloured

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; the text of a foreign error may hold several, and what a terminal obeys."""
        line = f"{_instant(record)} {record.levelname} {record.name} {masked_text(record.getMessage())}".translate(
            _ESCAPES
        )
        line = _cut(line, limits.LOG_LINE_BYTES_MAX - limits.STACK_BYTES_MAX)
        colour = _COLOURS.get(record.levelname) if self._is_coloured else None
        line = line if colour is None else f"{colour}{line}\x1b[0m"
        error = _error_of(record)
        return line if error is None else f"{line}\n{masked_text(stack_of(error)).rstrip()}"


class JsonLine(logging.Formatter):
    """One object a line: at, level, event or logger, service, process, message, the fields of the event, traceback."""

    def __init__(self, lines: Lines) -> None:
        super().__init__()
        self._lines = lines

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        event = getattr(record, "event", None)
        head: dict[str, str | None] = {"at": _instant(record), "level": record.levelname.lower()}
        head |= {"event": event.name} if isinstance(event, Event) else {"logger": record.name}
        head |= {"service": self._lines.service, "process": self._lines.process()}
        rest: dict[str, object] = {"message": record.getMessage()}
        rest |= vars(event) if isinstance(event, Event) else _extras(record)
        if getattr(record, "suppressed", 0):
            rest["suppressed"] = record.suppressed  # type: ignore[attr-defined]
        if (error := _error_of(record)) is not None:
            rest["traceback"] = stack_of(error)
        return _fitting({name: value for name, value in head.items() if value is not None}, rest)


def _error_of(record: logging.LogRecord) -> BaseException | None:
    return record.exc_info[1] if record.exc_info else None


def _extras(record: logging.LogRecord) -> dict[str, object]:
    """Return what the user gave as `extra`."""
    return {name: value for name, value in vars(record).items() if name not in _OWN}


def _fitting(head: dict[str, str], rest: dict[str, object]) -> str:
    """Return both as JSON of at most 16 KiB; longer texts are cut, and `is_cut` says so."""
    rest = _masked({name: _plain(value) for name, value in _masked(rest).items()})
    line = _encoded({**head, **rest, **head})
    for characters in (8192, 2048, 512, 64, 0):
        if len(line.encode()) <= limits.LOG_LINE_BYTES_MAX:
            break
        texts = {name: _cut(str(value), characters) for name, value in rest.items()} if characters else {}
        line = _encoded({**head, **texts, **head, "is_cut": True})
    return line


def _masked(fields: dict[str, object]) -> dict[str, object]:
    shown = masked(fields)
    return shown if isinstance(shown, dict) else {}


def _encoded(fields: dict[str, object]) -> str:
    return storable_text(json.dumps({name: _plain(value) for name, value in fields.items()}, ensure_ascii=False))


def _plain(value: object) -> object:
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return str(value)


def _cut(text: str, bytes_max: int) -> str:
    encoded = text.encode(errors="replace")
    return text if len(encoded) <= bytes_max else encoded[:bytes_max].decode(errors="ignore") + _CUT


def _instant(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def log_to_stderr(settings: LogSettings, level: str | None = None) -> Lines:
    """Send every line to standard error, unless the process has a log already. level: wins over the settings'."""
    lines = Lines(sys.stderr)
    logging.basicConfig(handlers=[lines])
    lines.use(settings, level)
    return lines


def silence(library: str) -> None:
    """Let a library write nothing: what matters of it is an event of ours."""
    logging.getLogger(library).setLevel(logging.CRITICAL)
