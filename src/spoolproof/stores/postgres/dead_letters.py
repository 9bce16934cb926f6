"""Dead letters on PostgreSQL. Every verb is one statement that writes its audit row too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from spoolproof import limits
from spoolproof.ids import is_uuid
from spoolproof.message import Message, earlier_key, message_key, shard_of
from spoolproof.ports.dead_letters import (
    AuditEntry,
    DeadLetterDetails,
    DeadLetterFilter,
    DeadLetterRecord,
    DeadLetterState,
)
from spoolproof.ports.transaction import StoreTransaction
from spoolproof.statements import filled, load_statements
from spoolproof.stores import outbox
from spoolproof.stores.dead_letters import WORDS, columns_of, dead_letter_of, forced, redirected, replay_copy
from spoolproof.stores.filter import Dialect, conditions
from spoolproof.stores.postgres.connections import Pool
from spoolproof.stores.postgres.services import PostgresServices
from spoolproof.stores.values import storable

_SQL = load_statements(__package__, "dead_letters.sql", WORDS)
KEEP = _SQL["keep"]
_AGAIN = forced(_SQL["replay"])
_ADD = filled(KEEP, {"before": "with", "condition": _SQL["is_not_handled"]})

DIALECT = Dialect(
    contains="strpos(lower(error_class || ': ' || error), {}) > 0",
    among="id = any({}::uuid[])",
    ids=lambda ids: [UUID(id) for id in ids],
    id=UUID,
    instant=lambda instant: instant,
)


class PostgresDeadLetters:
    def __init__(self, upkeep: Pool, services: PostgresServices) -> None:
        self._upkeep = upkeep
        self._services = services

    async def add(self, record: DeadLetterRecord) -> bool:
        columns = columns_of(record, self._services.own_name)
        kept = await self._upkeep.fetch_value(_ADD, *columns, earlier_key(record.message))
        return kept is not None

    async def get(self, id: str) -> DeadLetterDetails | None:
        if not is_uuid(id):
            return None
        rows = await self._upkeep.fetch(_SQL["get"], UUID(id))
        if not rows:
            return None
        audit = await self._upkeep.fetch(_SQL["audit_of"], UUID(id))
        return DeadLetterDetails(dead_letter_of(rows[0]), tuple(AuditEntry(**row) for row in audit))

    async def search(self, filter: DeadLetterFilter) -> Sequence[DeadLetterRecord]:
        where, values = conditions(filter, DIALECT, first=2)
        rows = await self._upkeep.fetch(filled(_SQL["search"], {"and_where": where}), filter.limit, *values)
        return [dead_letter_of(row) for row in rows]

    async def counts(self) -> Mapping[DeadLetterState, int]:
        rows = await self._upkeep.fetch(_SQL["counts"], list(DeadLetterState), limits.ROWS_COUNTED_MAX)
        return {DeadLetterState(row["state"]): row["count"] for row in rows}

    async def replay(self, id: str, actor: str, reason: str, *, queue: str | None = None, force: bool = False) -> bool:
        rows = await self._upkeep.fetch(_SQL["get"], UUID(id)) if is_uuid(id) else []
        if not rows:
            return False
        sql, values = self._replay(redirected(dead_letter_of(rows[0]), queue), actor, reason, force)
        return await self._upkeep.fetch_value(sql, *values) is not None

    async def replay_in(
        self, tx: StoreTransaction, record: DeadLetterRecord, actor: str, reason: str, *, force: bool
    ) -> bool:
        """Replay one, as it is or is to be, in an open transaction; False if it is not what it was any more."""
        sql, values = self._replay(record, actor, reason, force)
        return bool(await tx.fetch(sql, *values))

    def _replay(self, record: DeadLetterRecord, actor: str, reason: str, force: bool) -> tuple[str, list[object]]:
        number = record.replays + 1
        # by id and key, which never change; the statement adds where the block of its service begins
        shard = shard_of(record.message, self._services.own.size)
        copy = outbox.columns_of(replay_copy(record, number), shard)
        given = (UUID(record.id), number, storable(actor), storable(reason), *copy, record.consumer, record.version)
        return _AGAIN if force else _SQL["replay"], list(given)

    async def discard(self, id: str, actor: str, note: str) -> bool:
        if not is_uuid(id):
            return False
        return await self._upkeep.fetch_value(_SQL["discard"], UUID(id), storable(actor), storable(note)) is not None

    async def discard_in(self, tx: StoreTransaction, id: str, actor: str, note: str) -> bool:
        """Discard one in an open transaction."""
        return bool(await tx.fetch(_SQL["discard"], UUID(id), storable(actor), storable(note)))

    async def resolve(self, tx: StoreTransaction, consumer: str, message: Message) -> bool:
        key = message_key(message)
        return bool(await tx.fetch(_SQL["resolve"], consumer, key, message.id, message.type, message.source))
