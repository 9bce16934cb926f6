"""The outbox on SQLite: one shard for each service, because there is one writer."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec

from spoolproof import limits
from spoolproof.clock import Clock
from spoolproof.message import Outgoing
from spoolproof.ports.dead_letters import DeadLetterRecord
from spoolproof.ports.leases import Fence
from spoolproof.ports.outbox import Backlog, OutboxRow, Page, RowRef
from spoolproof.ports.transaction import StoreTransaction
from spoolproof.sqlite import Database, load_statements
from spoolproof.stores.outbox import COLUMNS, Room, columns_of, outbox_row
from spoolproof.stores.sqlite.leases import values_of
from spoolproof.stores.sqlite.services import SqliteServices
from spoolproof.stores.sqlite.times import instant_of
from spoolproof.stores.sqlite.transaction import SqliteTransaction
from spoolproof.stores.values import storable

_SQL = load_statements(__package__, "outbox.sql")

_INSERT = f"insert into spoolproof_outbox ({', '.join(COLUMNS)}) values "
_INSERT_ONE = f"{_INSERT}({', '.join('?' * len(COLUMNS))})"
# for a transaction that takes SQL and not work
_INSERT_NUMBERED = f"{_INSERT}({', '.join(f'${number}' for number, _ in enumerate(COLUMNS, 1))})"
_EXACT_FROM = 0.9  #: how full the outbox may look before its rows are counted


class SqliteOutbox:
    def __init__(
        self,
        database: Database,
        services: SqliteServices,
        keep: Callable[[sqlite3.Connection, DeadLetterRecord], None],
        *,
        rows_max: int,
        clock: Clock,
    ) -> None:
        self._database = database
        self._services = services
        self._keep = keep
        self._rows_max = rows_max
        self._room = Room(rows_max, self._count, clock=clock)

    async def append(self, records: Sequence[Outgoing], tx: StoreTransaction | None) -> None:
        if not records:
            return
        await self._room.take(len(records))
        shard = self._services.own.first
        rows = [columns_of(outgoing, shard) for outgoing in records]
        if tx is None:
            body_bytes = sum(len(outgoing.message.body) for outgoing in records)
            await self._database.write(lambda connection: insert(connection, rows), body_bytes=body_bytes)
        elif isinstance(tx, SqliteTransaction):
            await tx.run(lambda connection: insert(connection, rows))
        else:
            for row in rows:
                await tx.execute(_INSERT_NUMBERED, *row)

    async def has_room(self, messages: int) -> bool:
        return await self._room.has(messages)

    async def fetch(
        self, shards: Mapping[int, int], paused: Collection[str], limit: int, skip: Collection[int] = ()
    ) -> Page:
        paused_json, skip_json = _json(paused), _json(skip)

        def work(connection: sqlite3.Connection) -> Page:
            # first: there is one writer, so ids come in commit order, and whoever reads later sees all up to this one
            (last_id,) = connection.execute(_SQL["last_id"]).fetchone()
            seen_to = dict.fromkeys(shards, last_id)
            page: list[OutboxRow] = []
            for shard, after in shards.items():
                values = (shard, after, paused_json, skip_json, limit)
                rows = [outbox_row((shard, *row)) for row in connection.execute(_SQL["fetch"], values)]
                if len(rows) == limit:
                    seen_to[shard] = min(last_id, rows[-1].ref.id)
                page += rows
            return Page(page, seen_to)

        return await self._database.read(work)

    async def remove(self, refs: Sequence[RowRef]) -> int:
        if not refs:
            return 0
        ids = _json([ref.id for ref in refs])
        removed = await self._database.write(lambda connection: connection.execute(_SQL["remove"], (ids,)).rowcount)
        self._room.give_back(removed)
        return removed

    async def defer(self, ref: RowRef, seconds: float, error: str, fence: Fence) -> bool:
        values = (ref.shard, ref.id, seconds, storable(error), *values_of(fence))
        return await self._database.write(lambda connection: connection.execute(_SQL["defer"], values).rowcount == 1)

    async def promote_due(self, shards: Collection[int]) -> Sequence[RowRef]:
        shards_json = _json(shards)
        (has_due,) = await self._database.read(lambda db: db.execute(_SQL["has_due"], (shards_json,)).fetchone())
        if not has_due:
            return []
        values = (shards_json, limits.PROMOTE_ROWS_MAX)
        rows = await self._database.write(lambda db: db.execute(_SQL["promote_due"], values).fetchall())
        return [RowRef(shard, id) for shard, id in rows]

    async def give_up(self, ref: RowRef, dead_letter: DeadLetterRecord, fence: Fence) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            if not connection.execute(_SQL["take_out"], (ref.shard, ref.id, *values_of(fence))).rowcount:
                return False
            self._keep(connection, dead_letter)
            return True

        return await self._database.write(work)

    async def backlog(self, shards: range | None = None) -> Backlog:
        most = limits.ROWS_COUNTED_MAX
        values = (most, *_bounds(shards))
        ready, deferred, oldest = await self._database.read(lambda db: db.execute(_SQL["backlog"], values).fetchone())
        return Backlog(
            rows=min(ready + deferred, most),
            deferred=deferred,
            oldest_at=None if oldest is None else instant_of(oldest),
        )

    async def _count(self) -> int:
        return await self._database.read(self._estimate)

    def _estimate(self, connection: sqlite3.Connection) -> int:
        (span,) = connection.execute(_SQL["span"]).fetchone()
        if span <= _EXACT_FROM * self._rows_max:
            return int(span)
        # one old row that waits makes the span long; only a count tells whether the outbox is full
        values = (self._rows_max + 1, *_bounds(self._services.own.shards))
        ready, deferred, _ = connection.execute(_SQL["backlog"], values).fetchone()
        return int(ready + deferred)


def on_reboot(connection: sqlite3.Connection) -> None:
    """After a start of the machine: no row waits longer from now than a row may wait."""
    longest = max(limits.UNROUTABLE_DELAYS_SECONDS), max(limits.WEBHOOK_DELAYS_SECONDS)
    connection.execute(_SQL["pull_in"], longest)


def insert(connection: sqlite3.Connection, rows: Sequence[tuple[object, ...]]) -> None:
    """Add rows to the outbox in the open transaction of a connection."""
    if len(rows) == 1:
        connection.execute(_INSERT_ONE, rows[0])
    else:
        connection.executemany(_INSERT_ONE, rows)


def _bounds(shards: range | None) -> tuple[int, int]:
    return (0, 2**31) if shards is None else (shards.start, shards.stop - 1)


def _json(values: Collection[Any]) -> str:
    return msgspec.json.encode(list(values)).decode()
