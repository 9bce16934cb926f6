"""Dead letters on PostgreSQL. Every verb is one statement that writes its audit row too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec

from spoolproof import limits
from spoolproof.ids import is_uuid
from spoolproof.message import (
    REPLAY_NO,
    REPLAY_OF,
    Message,
    earlier_key,
    message_key,
    pack_meta,
    shard_of,
    unpack_message,
)
from spoolproof.ports.dead_letters import (
    Attempt,
    AuditEntry,
    DeadLetterDetails,
    DeadLetterFilter,
    DeadLetterRecord,
    DeadLetterState,
)
from spoolproof.ports.transaction import StoreTransaction
from spoolproof.stores.postgres.connections import Pool
from spoolproof.stores.postgres.services import PostgresServices
from spoolproof.stores.postgres.statements import statements

_SQL = statements("dead_letters.sql")
_attempts = msgspec.json.Decoder(tuple[Attempt, ...])


class PostgresDeadLetters:
    def __init__(self, upkeep: Pool, services: PostgresServices) -> None:
        self._upkeep = upkeep
        self._services = services

    async def add(self, record: DeadLetterRecord) -> bool:
        message = record.message
        kept = await self._upkeep.fetch_value(
            _SQL["add"],
            UUID(record.id),
            record.consumer,
            message_key(message),
            record.destination,
            record.routing_key,
            message.key,
            message.type,
            pack_meta(message),
            message.body,
            *failure_values(record),
            self._services.own_name,
            message.id,
            message.source,
            earlier_key(message),
        )
        return kept is not None

    async def get(self, id: str) -> DeadLetterDetails | None:
        if not is_uuid(id):
            return None
        rows = await self._upkeep.fetch(_SQL["get"], UUID(id))
        if not rows:
            return None
        audit = await self._upkeep.fetch(_SQL["audit_of"], UUID(id))
        return DeadLetterDetails(_record(rows[0]), tuple(AuditEntry(**row) for row in audit))

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
        return [_record(row) for row in rows]

    async def counts(self) -> Mapping[DeadLetterState, int]:
        rows = await self._upkeep.fetch(_SQL["counts"], list(DeadLetterState), limits.ROWS_COUNTED_MAX)
        return {DeadLetterState(row["state"]): row["count"] for row in rows}

    async def replay(self, id: str, actor: str, reason: str) -> bool:
        if not is_uuid(id):
            return False
        rows = await self._upkeep.fetch(_SQL["get"], UUID(id))
        if not rows:
            return False
        # by id and key, which never change; the statement adds where the block of its service begins
        shard = shard_of(_record(rows[0]).message, self._services.own.size)
        moved = await self._upkeep.fetch_value(
            _SQL["replay"], UUID(id), shard, actor, storable(reason), REPLAY_OF, REPLAY_NO
        )
        return moved is not None

    async def discard(self, id: str, actor: str, note: str) -> bool:
        if not is_uuid(id):
            return False
        return await self._upkeep.fetch_value(_SQL["discard"], UUID(id), actor, storable(note)) is not None

    async def resolve(self, tx: StoreTransaction, consumer: str, message: Message) -> bool:
        key = message_key(message)
        return bool(await tx.fetch(_SQL["resolve"], consumer, key, message.id, message.type, message.source))


def failure_values(record: DeadLetterRecord) -> tuple[object, ...]:
    """Return reason, fingerprint, error_class, error, stack, attempts, first and last failure, as columns take them."""
    attempts = [
        msgspec.structs.replace(attempt, error=storable(attempt.error), error_class=storable(attempt.error_class))
        for attempt in record.attempts
    ]
    return (
        record.reason,
        record.fingerprint,
        storable(record.error_class),
        storable(record.error),
        storable(record.stack),
        msgspec.json.encode(attempts).decode(),
        record.first_failed_at,
        record.last_failed_at,
    )


def storable(text: str) -> str:
    """Return text as PostgreSQL can hold it: error texts come from anywhere, and not to record one would loop."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def _record(row: Mapping[str, Any]) -> DeadLetterRecord:
    return DeadLetterRecord(
        id=str(row["id"]),
        consumer=row["consumer"],
        message=unpack_message(
            message_id=row["given_id"] or row["message_id"],
            type=row["type"],
            key=row["ordering_key"],
            meta=row["headers"],
            body=row["body"],
        ),
        destination=row["destination"],
        routing_key=row["routing_key"],
        reason=row["reason"],
        fingerprint=row["fingerprint"],
        error_class=row["error_class"],
        error=row["error"],
        stack=row["stack"],
        first_failed_at=row["first_failed_at"],
        last_failed_at=row["last_failed_at"],
        attempts=_attempts.decode(row["attempts"]),
        state=DeadLetterState(row["state"]),
        replays=row["replays"],
        note=row["note"],
        closed_at=row["closed_at"],
        service=row["service"],
    )
