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
from spoolproof.stores.dead_letters import WORDS, columns_of, dead_letter_of, replay_copy
from spoolproof.stores.postgres.connections import Pool
from spoolproof.stores.postgres.services import PostgresServices
from spoolproof.stores.values import storable

_SQL = load_statements(__package__, "dead_letters.sql", WORDS)
KEEP = _SQL["keep"]
_ADD = filled(KEEP, {"before": "with", "condition": _SQL["is_not_handled"]})


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
        rows = await self._upkeep.fetch(
            _SQL["search"],
            filter.state,
            filter.consumer,
            filter.reason,
            filter.type,
            filter.message_id,
            filter.limit,
        )
        return [dead_letter_of(row) for row in rows]

    async def counts(self) -> Mapping[DeadLetterState, int]:
        rows = await self._upkeep.fetch(_SQL["counts"], list(DeadLetterState), limits.ROWS_COUNTED_MAX)
        return {DeadLetterState(row["state"]): row["count"] for row in rows}

    async def replay(self, id: str, actor: str, reason: str) -> bool:
        if not is_uuid(id):
            return False
        rows = await self._upkeep.fetch(_SQL["get"], UUID(id))
        if not rows:
            return False
        record = dead_letter_of(rows[0])
        number = record.replays + 1
        # by id and key, which never change; the statement adds where the block of its service begins
        shard = shard_of(record.message, self._services.own.size)
        copy = outbox.columns_of(replay_copy(record, number), shard)
        moved = await self._upkeep.fetch_value(
            _SQL["replay"], UUID(id), number, storable(actor), storable(reason), *copy
        )
        return moved is not None

    async def discard(self, id: str, actor: str, note: str) -> bool:
        if not is_uuid(id):
            return False
        return await self._upkeep.fetch_value(_SQL["discard"], UUID(id), storable(actor), storable(note)) is not None

    async def resolve(self, tx: StoreTransaction, consumer: str, message: Message) -> bool:
        key = message_key(message)
        return bool(await tx.fetch(_SQL["resolve"], consumer, key, message.id, message.type, message.source))
