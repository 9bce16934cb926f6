"""What a line of `spoolproof run` looks like."""

from __future__ import annotations

import logging

from spoolproof.telemetry.logging import OneLine


def record(message: str) -> logging.LogRecord:
    made = logging.LogRecord("spoolproof.store", logging.WARNING, __file__, 1, message, (), None)
    made.created = 1_767_225_600.25
    return made


def test_a_line_is_one_line_whatever_an_error_says() -> None:
    """PostgreSQL's errors have several; what follows a newline would pass for a line of its own, with any content."""
    assert "2026-01-01T00:00:00.250Z WARNING spoolproof.store failed: a\\nDETAIL: b" == (
        OneLine().format(record("failed: a\nDETAIL: b"))
    )
