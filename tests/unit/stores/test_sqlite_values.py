"""What only SQLite cannot keep is refused, and what the program has set up itself is left alone."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from spoolproof.stores.sqlite.values import register, stored


@pytest.mark.parametrize(
    ("value", "error", "says"),
    [
        (Decimal("1234567890.123456"), ValueError, "15 digits"),
        (object(), TypeError, "a object cannot be stored"),
        ((1, 2), TypeError, "a tuple cannot be stored"),
    ],
)
def test_what_sqlite_would_round_or_not_understand_is_refused(value: Any, error: type[Exception], says: str) -> None:
    """A cent lost in silence is found at the end of the year."""
    with pytest.raises(error, match=says):
        stored(value)


def test_trailing_zeros_are_no_digits() -> None:
    """They are not kept either, and change nothing."""
    assert "1.20000000000000000000" == stored(Decimal("1.20000000000000000000"))


def test_a_converter_of_the_program_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """`sqlite3` has one table of them for the whole process."""

    def own(raw: bytes) -> str:
        return f"own {raw.decode()}"

    monkeypatch.setitem(sqlite3.converters, "UUID", own)

    register()

    assert own is sqlite3.converters["UUID"]


@pytest.mark.parametrize(
    ("column", "text", "expected"),
    [
        ("date", "2026-01-02", date(2026, 1, 2)),
        ("timestamp", "2026-01-02 03:04:05.678901", datetime(2026, 1, 2, 3, 4, 5, 678901)),
        ("timestamp with time zone", "2026-01-02 03:04:05+02:00", datetime(2026, 1, 2, 1, 4, 5, tzinfo=UTC)),
    ],
)
def test_what_the_standard_library_read_is_read_as_before(column: str, text: str, expected: object) -> None:
    """Another part of the program may have asked for its converters, which we replace."""
    register()

    with closing(sqlite3.connect(":memory:", detect_types=sqlite3.PARSE_DECLTYPES)) as connection:
        connection.execute(f"create table t (value {column})")
        connection.execute("insert into t values (?)", (text,))
        (value,) = connection.execute("select value from t").fetchone()

    assert expected == value
