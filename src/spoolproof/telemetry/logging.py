"""Log lines of a running service: `event key=value …`, one line each, to standard error.

Libraries only log; this is called by `spoolproof run`, which owns the process. Bodies, headers and URLs with passwords
never reach a logger.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime


class OneLine(logging.Formatter):
    """Formats a record as one line, with UTC to the millisecond as in every other output; a traceback follows it."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """Return when the record was made."""
        at = datetime.fromtimestamp(record.created, UTC)
        return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line; the text of a foreign error may hold several."""
        return super().formatMessage(record).replace("\r", "\\r").replace("\n", "\\n")


def log_to_stderr(level: str = "INFO") -> None:
    """Send Spoolproof's and the user's log lines to standard error. level: a name of the logging module."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine())
    logging.basicConfig(level=level.upper(), handlers=[handler])


def silence(library: str) -> None:
    """Let a library write nothing: what matters of it is an event of ours."""
    logging.getLogger(library).setLevel(logging.CRITICAL)
