"""The contract of `StoreTransaction.execute` and `fetch` over the types of Python: what goes in comes back."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, StrEnum
from typing import Any
from uuid import UUID

import pytest

from spoolproof.ports.store import Store
from spoolproof.testing.conformance._store import StoreSuite

_TABLE = (
    "create table conformance_value (text_column text, bytea_column bytea, bigint_column bigint, "
    "boolean_column boolean, double_column double precision, numeric_column numeric, uuid_column uuid, "
    "date_column date, timestamptz_column timestamptz, interval_column interval, json_column json, jsonb_column jsonb)"
)


class Colour(StrEnum):
    """Text with a name."""

    RED = "red"


class Size(Enum):
    """No text, and no number."""

    LARGE = 3


_EAST = timezone(timedelta(hours=5, minutes=45))
_INSTANT = datetime(2026, 3, 29, 1, 30, 0, 1, tzinfo=UTC)
_DOCUMENT = {"a": [1, 2.5, "ü", None, True], "b": {"c": "\u2028"}, "d": '"\\u0000"'}
VALUES: list[tuple[str, Any, Any]] = [
    ("text", "", ""),
    ("text", "ключ 🗝 'it''s' $1 \\", "ключ 🗝 'it''s' $1 \\"),
    ("text", Colour.RED, "red"),
    ("bytea", bytes(range(256)), bytes(range(256))),
    ("bytea", b"", b""),
    ("bigint", 2**63 - 1, 2**63 - 1),
    ("bigint", -(2**63), -(2**63)),
    ("bigint", Size.LARGE, 3),
    ("boolean", True, True),
    ("boolean", False, False),
    ("double", 0.1, 0.1),
    ("double", -1e300, -1e300),
    ("double", 2, 2.0),
    ("numeric", Decimal("12.10"), Decimal("12.10")),
    ("numeric", Decimal("1234567890123.45"), Decimal("1234567890123.45")),
    ("numeric", Decimal("-0.000001"), Decimal("-0.000001")),
    ("numeric", 7, Decimal(7)),
    ("uuid", UUID(int=1), UUID(int=1)),
    ("uuid", UUID(int=2**128 - 1), UUID(int=2**128 - 1)),
    ("date", date(1, 1, 1), date(1, 1, 1)),
    ("date", date(2026, 2, 28), date(2026, 2, 28)),
    ("timestamptz", _INSTANT, _INSTANT),
    ("timestamptz", datetime(2026, 3, 29, 7, 15, tzinfo=_EAST), datetime(2026, 3, 29, 1, 30, tzinfo=UTC)),
    ("timestamptz", datetime(1582, 1, 1, tzinfo=UTC), datetime(1582, 1, 1, tzinfo=UTC)),
    ("interval", timedelta(0), timedelta(0)),
    ("interval", timedelta(days=-3, microseconds=7), timedelta(days=-3, microseconds=7)),
    ("json", _DOCUMENT, _DOCUMENT),
    ("jsonb", _DOCUMENT, _DOCUMENT),
    ("jsonb", [], []),
    ("jsonb", '{"text": "is JSON"}', {"text": "is JSON"}),
]
REFUSED: list[tuple[str, Any, str]] = [
    ("text", "a\0b", "NUL"),
    ("text", "\ud800", "surrogate"),
    ("bigint", 2**63, "64 bits"),
    ("bigint", -(2**63) - 1, "64 bits"),
    ("double", math.nan, "NaN"),
    ("numeric", Decimal("NaN"), "NaN"),
    ("numeric", Decimal("Infinity"), "infinity"),
    ("timestamptz", datetime(2026, 1, 1), "time zone"),
    ("jsonb", {"a": math.nan}, "JSON"),
    ("jsonb", {"a": "\0"}, "NUL"),
    ("jsonb", ["\ud800"], "surrogate"),
    ("jsonb", {"a": date(2026, 1, 1)}, "JSON"),
]


@pytest.mark.asyncio
class ValuesConformance(StoreSuite):
    """Needs the fixture `store`."""

    async def test_every_value_comes_back_as_it_was(self, store: Store) -> None:
        """The same code on every store: what a handler wrote on one it reads on the other, in value and type."""
        self.needs_sql()

        async with store.transaction() as tx:
            await tx.execute(_TABLE)
            wrong = []
            for column, value, expected in VALUES:
                await tx.execute(f"insert into conformance_value ({column}_column) values ($1)", value)
                (row,) = await tx.fetch(f"select {column}_column as value from conformance_value")
                if row["value"] != expected or not isinstance(row["value"], type(expected)):
                    wrong.append((column, value, row["value"]))
                await tx.execute("delete from conformance_value")
            await tx.execute("drop table conformance_value")

        assert [] == wrong

    async def test_a_value_can_be_found_by_itself(self, store: Store) -> None:
        """Stored in a form that compares as it should, or a handler finds nothing, or too much."""
        self.needs_sql()
        earlier, later = datetime(2026, 1, 1, 12, tzinfo=UTC), datetime(2026, 1, 1, 12, 0, 0, 1, tzinfo=UTC)

        async with store.transaction() as tx:
            await tx.execute(_TABLE)
            for at, amount, lasts in ((later, Decimal("9.5"), 2), (earlier, Decimal("10.25"), 1)):
                await tx.execute(
                    "insert into conformance_value (timestamptz_column, numeric_column, interval_column, uuid_column) "
                    "values ($1, $2, $3, $4)",
                    at,
                    amount,
                    timedelta(days=lasts),
                    UUID(int=lasts),
                )
            by_uuid = await tx.fetch(
                "select numeric_column as value from conformance_value where uuid_column = $1", UUID(int=2)
            )
            by_time = await tx.fetch(
                "select timestamptz_column as value from conformance_value where timestamptz_column > $1", earlier
            )
            in_order = await tx.fetch(
                "select uuid_column as value from conformance_value where numeric_column > $1 order by numeric_column",
                Decimal("9.4"),
            )
            longest = await tx.fetch("select interval_column as value from conformance_value order by 1 desc limit 1")
            await tx.execute("drop table conformance_value")

        assert [Decimal("9.5")] == [row["value"] for row in by_uuid]
        assert [later] == [row["value"] for row in by_time]
        assert [UUID(int=2), UUID(int=1)] == [row["value"] for row in in_order]
        assert [timedelta(days=2)] == [row["value"] for row in longest]

    async def test_nothing_is_none_in_every_column(self, store: Store) -> None:
        """And a condition on it is SQL's."""
        self.needs_sql()

        async with store.transaction() as tx:
            await tx.execute(_TABLE)
            columns = sorted({column for column, _, _ in VALUES})
            for column in columns:
                await tx.execute(f"insert into conformance_value ({column}_column) values ($1)", None)
            rows = await tx.fetch("select * from conformance_value")
            await tx.execute("drop table conformance_value")

        assert len(columns) == len(rows)
        assert {None} == {value for row in rows for value in row.values()}

    @pytest.mark.parametrize(("column", "value", "says"), REFUSED, ids=lambda part: ascii(part)[:20])
    async def test_what_one_store_cannot_keep_none_takes(
        self, store: Store, column: str, value: Any, says: str
    ) -> None:
        """Code that works on the laptop must not fail, or lie, in production; the message says what to pass instead."""
        self.needs_sql()

        with pytest.raises(ValueError, match=says):
            async with store.transaction() as tx:
                await tx.execute(_TABLE)
                await tx.execute(f"insert into conformance_value ({column}_column) values ($1)", value)
