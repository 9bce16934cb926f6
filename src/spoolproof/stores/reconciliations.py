"""Marks and runs in SQL. Both databases take the same statements; ids are text, and a run is one value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from spoolproof.ports.reconciliations import Mark, Run
from spoolproof.ports.transaction import OpenTransaction, StoreTransaction
from spoolproof.statements import filled, load_statements
from spoolproof.stores.reviews import json_of
from spoolproof.stores.triage import Read
from spoolproof.stores.values import storable

_decode = msgspec.json.Decoder(Run).decode


class SqlReconciliations:
    """Implements `ports.reconciliations.Reconciliations`. prefix: of the tables. stored: makes a column's value."""

    def __init__(
        self, prefix: str, *, read: Read, transaction: OpenTransaction, stored: Callable[[datetime], object]
    ) -> None:
        words = {"mark": f"{prefix}reconciliation_mark", "run": f"{prefix}reconciliation_run"}
        self._sql = load_statements(__package__, "reconciliations.sql", words)
        self._read = read
        self._transaction = transaction
        self._stored = stored

    async def mark(self, tx: StoreTransaction, service: str, reconciler: str, key: str, now: datetime) -> None:
        await tx.execute(self._sql["mark"], service, reconciler, key, self._stored(now))

    async def due(self, service: str, now: datetime, limit: int) -> Sequence[Mark]:
        rows = await self._read(self._sql["due"], service, self._stored(now), limit)
        return [Mark(row["reconciler"], row["key"], row["dirty"], row["failures"]) for row in rows]

    async def settle(self, service: str, mark: Mark) -> bool:
        return bool(await self._execute("settle", service, mark.reconciler, mark.key, mark.dirty))

    async def delay(self, service: str, mark: Mark, next_at: datetime, note: str) -> None:
        failures = mark.failures + 1 if note else 0
        values = (self._stored(next_at), failures, storable(note))
        await self._execute("delay", service, mark.reconciler, mark.key, mark.dirty, *values)

    async def wake(self, service: str, reconciler: str, now: datetime) -> int:
        return await self._execute("wake", service, reconciler, self._stored(now))

    async def marks(self, service: str | None) -> Mapping[tuple[str, str], int]:
        rows = await self._read(self._sql["marks"])
        return {(row["service"], row["reconciler"]): row["count"] for row in rows if service in (None, row["service"])}

    async def start(self, tx: StoreTransaction, run: Run) -> bool:
        values = (run.id, run.service, run.reconciler, self._stored(run.started_at), run.version, json_of(run))
        return await tx.execute(self._sql["start"], *values) == 1

    async def write(self, tx: StoreTransaction, run: Run) -> bool:
        after = msgspec.structs.replace(run, version=run.version + 1)
        finished_at = None if run.finished_at is None else self._stored(run.finished_at)
        return await tx.execute(self._sql["write"], run.id, run.version, finished_at, json_of(after)) == 1

    async def runs(self, service: str | None, reconciler: str | None, limit: int) -> Sequence[Run]:
        where, values = "", []
        for name, value in (("service", service), ("reconciler", reconciler)):
            if value is not None:
                values.append(value)
                where += f" and {name} = ${len(values) + 1}"
        rows = await self._read(filled(self._sql["runs"], {"and_where": where}), limit, *values)
        return [_decode(row["record"]) for row in rows]

    async def get(self, id: str) -> Run | None:
        rows: Any = await self._read(self._sql["get"], id)
        return _decode(rows[0]["record"]) if rows else None

    async def _execute(self, name: str, *values: object) -> int:
        async with self._transaction() as tx:
            return await tx.execute(self._sql[name], *values)
