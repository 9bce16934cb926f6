"""Bulks in SQL: what both databases do alike, with the statements of each. The record is one value: it is read, changed
and written under its row's lock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from spoolproof.clock import Clock
from spoolproof.ids import is_uuid
from spoolproof.ports.bulk import LIVE, Bulk, Bulks, BulkState, BulkStep, BulkVerb, advanced, changed
from spoolproof.ports.dead_letters import DeadLetterFilter, DeadLetterRecord, DeadLetters, DeadLetterState
from spoolproof.ports.leases import Fence
from spoolproof.ports.transaction import OpenTransaction, StoreTransaction
from spoolproof.statements import filled
from spoolproof.stores.dead_letters import redirected
from spoolproof.stores.filter import Dialect, among_states, conditions
from spoolproof.stores.triage import Read

_decode = msgspec.json.Decoder(Bulk).decode


class Letters(DeadLetters, Protocol):
    """Dead letters that can also be moved in an open transaction."""

    async def replay_in(
        self, tx: StoreTransaction, record: DeadLetterRecord, actor: str, reason: str, *, force: bool
    ) -> bool: ...

    async def discard_in(self, tx: StoreTransaction, id: str, actor: str, note: str) -> bool: ...


class SqlBulks(Bulks):
    """Implements `ports.bulk.Bulks`."""

    def __init__(
        self,
        sql: Mapping[str, str],
        dialect: Dialect,
        *,
        letters: Letters,
        read: Read,
        transaction: OpenTransaction,
        clock: Clock,
    ) -> None:
        self._sql = sql
        self._dialect = dialect
        self._letters = letters
        self._read = read
        self._transaction = transaction
        self._clock = clock

    async def start(self, bulk: Bulk, filter: DeadLetterFilter) -> Bulk:
        id = self._dialect.id(bulk.id)
        where, values = conditions(filter, self._dialect, first=2)
        meant = filled(self._sql["select"], {"states": among_states(bulk.move.after), "and_where": where})
        async with self._transaction() as tx:
            await tx.execute(self._sql["start"], id, self._dialect.instant(bulk.started_at))
            total = await tx.execute(meant, id, *values)
            bulk = msgspec.structs.replace(bulk, total=total)
            if not total:
                bulk = msgspec.structs.replace(bulk, state=BulkState.DONE, ended_at=bulk.started_at)
            await self._write(tx, bulk)
        return bulk

    async def get(self, id: str) -> Bulk | None:
        rows = await self._read(self._sql["get"], self._dialect.id(id)) if is_uuid(id) else []
        return _decode(rows[0]["record"]) if rows else None

    async def all(self, limit: int, *, live: bool = False) -> Sequence[Bulk]:
        rows = await self._read(self._sql["live" if live else "all"], limit)
        return [_decode(row["record"]) for row in rows]

    async def work(self, id: str, limit: int, fence: Fence) -> Bulk | None:
        held = (fence.kind, fence.name, self._dialect.id(str(fence.owner)), fence.epoch)
        async with self._transaction() as tx:
            bulk = await self._locked(tx, id)
            if bulk is None or not await tx.fetch(self._sql["holds"], *held):
                return None
            portion = limit if bulk.portion is None else min(limit, bulk.portion)
            if not portion:
                return bulk
            taken = [str(row["id"]) for row in await tx.fetch(self._sql["next"], self._dialect.id(id), portion)]
            wanted = DeadLetterFilter(ids=tuple(taken), limit=portion)
            records = {record.id: record for record in await self._letters.search(wanted)}
            moved = 0
            for one in taken:
                is_moved = one in records and await self._move(tx, bulk, records[one])
                moved += is_moved
                await tx.execute(self._sql["mark"], self._dialect.id(id), self._dialect.id(one), int(is_moved))
            bulk = advanced(bulk, taken, moved, portion, self._clock.now())
            await self._write(tx, bulk)
        return bulk

    async def change(self, id: str, after: Sequence[BulkState], to: BulkState, actor: str, detail: str) -> bool:
        async with self._transaction() as tx:
            bulk = await self._locked(tx, id)
            if bulk is None or bulk.state not in after:
                return False
            verb = "resumed" if bulk.state not in LIVE else to.value
            await self._write(tx, changed(bulk, to, BulkStep(self._clock.now(), actor, verb, detail)))
            return True

    async def outcomes(self, id: str) -> Mapping[DeadLetterState, int]:
        rows = await self._read(self._sql["outcomes"], self._dialect.id(id))
        return {DeadLetterState(row["state"]): row["count"] for row in rows}

    async def _move(self, tx: StoreTransaction, bulk: Bulk, record: DeadLetterRecord) -> bool:
        detail = f"{bulk.reason} (bulk {bulk.id})"
        if bulk.verb is BulkVerb.DISCARD:
            return await self._letters.discard_in(tx, record.id, bulk.actor, detail)
        record = redirected(record, bulk.queue)
        return await self._letters.replay_in(tx, record, bulk.actor, detail, force=bulk.is_forced)

    async def _locked(self, tx: StoreTransaction, id: str) -> Bulk | None:
        rows: Any = await tx.fetch(self._sql["lock"], self._dialect.id(id)) if is_uuid(id) else []
        return _decode(rows[0]["record"]) if rows else None

    async def _write(self, tx: StoreTransaction, bulk: Bulk) -> None:
        ended_at = None if bulk.ended_at is None else self._dialect.instant(bulk.ended_at)
        record = msgspec.json.encode(bulk).decode()
        await tx.execute(self._sql["write"], self._dialect.id(bulk.id), record, ended_at)
