"""Instants as SQLite keeps them: Unix seconds in a REAL, exact to the microsecond until long after the year 2200."""

from __future__ import annotations

from datetime import UTC, datetime


def seconds_of(instant: datetime) -> float:
    """Return an aware datetime as Unix seconds."""
    return instant.timestamp()


def instant_of(seconds: float) -> datetime:
    """Return Unix seconds as a datetime in UTC; the inverse of `seconds_of`."""
    return datetime.fromtimestamp(seconds, UTC)
