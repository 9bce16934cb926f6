"""Triage in SQL: what both databases do alike, with the statements of each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from spoolproof import limits
from spoolproof.message import Message, message_key, pack_meta
from spoolproof.ports.dead_letters import DeadLetterDetails, DeadLetterFilter
from spoolproof.ports.services import Services
from spoolproof.ports.transaction import OpenTransaction, Row
from spoolproof.ports.triage import Group
from spoolproof.statements import filled
from spoolproof.stores.dead_letters import columns_of
from spoolproof.stores.filter import Dialect, conditions
from spoolproof.stores.values import storable

Read = Callable[..., Awaitable[Sequence[Row]]]
"""Runs a statement that only reads, on what is committed; given SQL and values."""


class SqlTriage:
    """Implements `ports.triage.Triage`. at: makes an instant of a column's value."""

    def __init__(
        self,
        sql: Mapping[str, str],
        dialect: Dialect,
        *,
        read: Read,
        transaction: OpenTransaction,
        services: Services,
        at: Callable[[Any], datetime],
    ) -> None:
        self._sql = sql
        self._dialect = dialect
        self._read = read
        self._transaction = transaction
        self._services = services
        self._at = at

    async def groups(self, filter: DeadLetterFilter) -> Sequence[Group]:
        where, values = conditions(filter, self._dialect, first=3)
        sql = filled(self._sql["groups"], {"and_where": where})
        rows = await self._read(sql, limits.STILL_FAILING_SECONDS, filter.limit, *values)
        return [self._group(row) for row in rows]

    async def count(self, filter: DeadLetterFilter) -> int:
        where, values = conditions(filter, self._dialect)
        (row,) = await self._read(filled(self._sql["count"], {"and_where": where}), *values)
        return int(row["count"])

    async def edit(self, id: str, version: int, message: Message, actor: str, detail: str) -> bool:
        columns = (message_key(message), message.id, pack_meta(message), message.body)
        async with self._transaction() as tx:
            if not await tx.execute(self._sql["edit"], self._dialect.id(id), version, *columns):
                return False
            await tx.execute(self._sql["note"], self._dialect.id(id), storable(actor), "edited", storable(detail))
            return True

    async def restore(self, letters: Sequence[DeadLetterDetails], actor: str, detail: str) -> int:
        restored = 0
        async with self._transaction() as tx:
            for letter in letters:
                record, id = letter.record, self._dialect.id(letter.record.id)
                *columns, _ = columns_of(record, record.service or self._services.own_name)
                columns += [record.replays, record.version, record.original_body]
                values = [self._dialect.instant(one) if isinstance(one, datetime) else one for one in columns]
                if not await tx.execute(self._sql["restore"], id, *values[1:]):
                    continue
                restored += 1
                for entry in letter.audit:
                    told = (storable(entry.actor), storable(entry.verb), storable(entry.detail))
                    await tx.execute(self._sql["note_at"], id, self._dialect.instant(entry.at), *told)
                await tx.execute(self._sql["note"], id, storable(actor), "imported", storable(detail))
        return restored

    def _group(self, row: Row) -> Group:
        values = dict(row)
        for name in ("first_failed_at", "last_failed_at"):
            values[name] = self._at(values[name])
        return Group(**{**values, "sample_id": str(values["sample_id"])})
