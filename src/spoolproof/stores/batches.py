"""Batches in SQL. Both databases take the same statements; what is known of an item is one value beside its state."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from spoolproof.ports.batches import Batch, BatchState, Counts, Item, ItemState
from spoolproof.ports.transaction import Row, StoreTransaction
from spoolproof.statements import filled, load_statements
from spoolproof.stores.reviews import json_of
from spoolproof.stores.triage import Read

_ROWS = 500  #: of one statement: five values each, far below what a driver binds
_decode = msgspec.json.Decoder(Item).decode


class SqlBatches:
    """Implements `ports.batches.Batches`. prefix: of the tables. now: the database's time. stored, at: make a column's
    value of an instant, and back."""

    def __init__(
        self, prefix: str, now: str, *, read: Read, stored: Callable[[datetime], object], at: Callable[[Any], datetime]
    ) -> None:
        words = {"batch": f"{prefix}batch", "item": f"{prefix}batch_item", "now": now}
        self._sql = load_statements(__package__, "batches.sql", words)
        self._insert = f"insert into {prefix}batch_item (batch_id, n, state, body, record) values "
        self._read = read
        self._stored = stored
        self._at = at

    async def add(self, tx: StoreTransaction, batch: Batch, items: Sequence[tuple[Item, str]]) -> bool:
        values = (batch.id, batch.service, batch.job, batch.total, self._stored(batch.started_at))
        if not await tx.execute(self._sql["add"], *values):
            return False
        for start in range(0, len(items), _ROWS):
            part = items[start : start + _ROWS]
            places = ", ".join("($1, " + ", ".join(f"${4 * n + one}" for one in (2, 3, 4, 5)) + ")" for n in _to(part))
            rows = [(item.n, item.state.value, body, json_of(item)) for item, body in part]
            await tx.execute(self._insert + places, batch.id, *(value for row in rows for value in row))
        return True

    async def get(self, id: str) -> tuple[Batch, Counts] | None:
        rows = await self._read(self._sql["count_items"], id)
        counts = {row["item_state"]: row["count"] for row in rows}
        return (self._batch(rows[0]), {state: counts.get(state.value, 0) for state in ItemState}) if rows else None

    async def search(
        self, *, service: str | None = None, job: str | None = None, state: BatchState | None = None, limit: int = 100
    ) -> Sequence[Batch]:
        where, values = "", []
        for name, value in (("service", service), ("job", job), ("state", state)):
            if value is not None:
                values.append(str(value))
                where += f" and {name} = ${len(values) + 1}"
        rows = await self._read(filled(self._sql["search"], {"and_where": where}), limit, *values)
        return [self._batch(row) for row in rows]

    async def items(
        self, id: str, states: Collection[ItemState], *, after: int = -1, limit: int = 1000
    ) -> Sequence[tuple[Item, str]]:
        rows = await self._read(self._among("items", states), id, after, limit)
        return [
            (msgspec.structs.replace(_decode(row["record"]), state=ItemState(row["state"])), row["body"])
            for row in rows
        ]

    async def standing(self, id: str, n: int) -> tuple[BatchState, ItemState] | None:
        rows = await self._read(self._sql["standing"], id, n)
        return (BatchState(rows[0]["batch"]), ItemState(rows[0]["item"])) if rows else None

    async def put(self, tx: StoreTransaction, id: str, item: Item, *, before: Collection[ItemState]) -> bool:
        sql = self._among("put", before)
        return await tx.execute(sql, id, item.n, item.state.value, json_of(item)) == 1

    async def over(self, service: str, limit: int) -> Sequence[str]:
        return [row["id"] for row in await self._read(self._sql["over"], service, limit)]

    async def end(self, tx: StoreTransaction, id: str, *, cancel: bool = False) -> Batch | None:
        rows = await tx.fetch(self._sql["cancel" if cancel else "finish"], id)
        if rows:
            await tx.execute(self._sql["close"], id)
        return self._batch(rows[0]) if rows else None

    async def reopen(self, tx: StoreTransaction, id: str, now: datetime, states: Collection[ItemState]) -> None:
        await tx.execute(self._sql["reopen"], id, self._stored(now))
        await tx.execute(self._sql["open"], id)
        await tx.execute(self._among("pend", states), id)

    async def counts(self, service: str) -> Mapping[tuple[str, BatchState], int]:
        rows = await self._read(self._sql["counts"], service)
        return {(row["job"], BatchState(row["state"])): row["count"] for row in rows}

    def _among(self, name: str, states: Collection[ItemState]) -> str:
        return filled(self._sql[name], {"states": ", ".join(f"'{state.value}'" for state in states) or "null"})

    def _batch(self, row: Row) -> Batch:
        finished_at = row["finished_at"]
        return Batch(
            **{name: row[name] for name in ("id", "service", "job", "total")},
            state=BatchState(row["state"]),
            started_at=self._at(row["started_at"]),
            finished_at=None if finished_at is None else self._at(finished_at),
        )


def _to(part: Sequence[object]) -> range:
    return range(len(part))
