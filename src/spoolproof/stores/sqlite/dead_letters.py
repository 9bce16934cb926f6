"""Dead letters on SQLite. SQLite has no data-modifying CTE, so each verb is one transaction of several statements."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from spoolproof import limits
from spoolproof.message import (
    REPLAY_NO,
    REPLAY_OF,
    Message,
    Outgoing,
    earlier_key,
    message_key,
    pack_meta,
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
from spoolproof.sqlite import Database, load_statements
from spoolproof.stores.sqlite.inbox import has_handled
from spoolproof.stores.sqlite.services import SqliteServices, shard_of_service
from spoolproof.stores.sqlite.times import instant_of, seconds_of

_SQL = load_statements(__package__, "dead_letters.sql")
_SYSTEM_ACTOR = "spoolproof"
_attempts = msgspec.json.Decoder(tuple[Attempt, ...])


class SqliteDeadLetters:
    """copy_out: adds a replay's copy to a shard of the outbox, in the open transaction of a connection."""

    def __init__(
        self,
        database: Database,
        services: SqliteServices,
        copy_out: Callable[[sqlite3.Connection, Outgoing, int], None],
    ) -> None:
        self._database = database
        self._services = services
        self._copy_out = copy_out

    async def add(self, record: DeadLetterRecord) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            if has_handled(connection, record.consumer, message_key(record.message), earlier_key(record.message)):
                return False
            keep(connection, record, self._services.own_name)
            return True

        return await self._database.write(work)

    async def get(self, id: str) -> DeadLetterDetails | None:
        def work(connection: sqlite3.Connection) -> DeadLetterDetails | None:
            record = _find(connection, id)
            if record is None:
                return None
            audit = connection.execute(_SQL["audit_of"], (id,)).fetchall()
            return DeadLetterDetails(record, tuple(AuditEntry(instant_of(at), *rest) for at, *rest in audit))

        return await self._database.read(work)

    async def search(self, filter: DeadLetterFilter) -> Sequence[DeadLetterRecord]:
        fields = ("state", "consumer", "reason", "type", "message_id")
        given = {field: value for field in fields if (value := getattr(filter, field)) is not None}
        if "message_id" in given:
            given["coalesce(given_id, message_id)"] = given.pop("message_id")
        where = "where " + " and ".join(f"{field} = ?" for field in given) if given else ""
        sql = f"{_SQL['select']} {where} order by first_failed_at, id limit ?"
        values = (*given.values(), filter.limit)
        rows = await self._database.read(lambda connection: connection.execute(sql, values).fetchall())
        return [_record(row) for row in rows]

    async def counts(self) -> Mapping[DeadLetterState, int]:
        def work(connection: sqlite3.Connection) -> dict[DeadLetterState, int]:
            most = limits.ROWS_COUNTED_MAX
            return {state: connection.execute(_SQL["count"], (state, most)).fetchone()[0] for state in DeadLetterState}

        return await self._database.read(work)

    async def replay(self, id: str, actor: str, reason: str) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            if not connection.execute(_SQL["start_replay"], (id,)).rowcount:
                return False
            record = _find(connection, id)
            assert record is not None  # it was just changed
            self._copy_out(connection, _copy_of(record), shard_of_service(connection, record.service))
            _note(connection, id, actor, "replayed", reason)
            return True

        return await self._database.write(work)

    async def discard(self, id: str, actor: str, note: str) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            if not connection.execute(_SQL["discard"], (id, storable(note))).rowcount:
                return False
            _note(connection, id, actor, "discarded", note)
            return True

        return await self._database.write(work)

    async def resolve(self, tx: StoreTransaction, consumer: str, message: Message) -> bool:
        values = (consumer, message_key(message), message.id, message.type, message.source)
        if not await tx.execute(_SQL["note_resolved"], *values):
            return False
        return await tx.execute(_SQL["resolve"], *values) == 1


def keep(connection: sqlite3.Connection, record: DeadLetterRecord, service: str) -> None:
    """Write a dead letter, or update the one of its message, in the open transaction of a connection."""
    message = record.message
    values = (
        record.id,
        record.consumer,
        message_key(message),
        record.destination,
        record.routing_key,
        message.key,
        message.type,
        pack_meta(message),
        message.body,
        record.reason,
        record.fingerprint,
        storable(record.error_class),
        storable(record.error),
        storable(record.stack),
        _attempts_text(record.attempts),
        seconds_of(record.first_failed_at),
        seconds_of(record.last_failed_at),
        service,
        message.id,
        message.source,
    )
    ((id,),) = connection.execute(_SQL["keep"], values).fetchall()
    _note(connection, id, _SYSTEM_ACTOR, "recorded", record.reason)


def storable(text: str) -> str:
    """Return text as UTF-8 can hold it: error texts come from anywhere, and not to record one would loop."""
    return text.encode("utf-8", "replace").decode()


def _note(connection: sqlite3.Connection, id: str, actor: str, verb: str, detail: str) -> None:
    connection.execute(_SQL["note"], (id, storable(actor), verb, storable(detail)))


def _copy_of(record: DeadLetterRecord) -> Outgoing:
    headers = {**record.message.headers, REPLAY_OF: record.id, REPLAY_NO: record.replays}
    message = msgspec.structs.replace(record.message, headers=headers)
    return Outgoing(message=message, destination=record.destination, routing_key=record.routing_key)


def _attempts_text(attempts: Sequence[Attempt]) -> str:
    kept = [
        msgspec.structs.replace(attempt, error=storable(attempt.error), error_class=storable(attempt.error_class))
        for attempt in attempts
    ]
    return msgspec.json.encode(kept).decode()


def _find(connection: sqlite3.Connection, id: str) -> DeadLetterRecord | None:
    row = connection.execute(f"{_SQL['select']} where id = ?", (id,)).fetchone()
    return None if row is None else _record(row)


def _record(row: tuple[Any, ...]) -> DeadLetterRecord:
    id, consumer, message_id, destination, routing_key, key, type, meta, body, *rest = row
    reason, fingerprint, error_class, error, stack, attempts, first_failed_at, last_failed_at, *rest = rest
    state, replays, note, closed_at, service = rest
    return DeadLetterRecord(
        id=id,
        consumer=consumer,
        message=unpack_message(message_id=message_id, type=type, key=key, meta=meta, body=body),
        destination=destination,
        routing_key=routing_key,
        reason=reason,
        fingerprint=fingerprint,
        error_class=error_class,
        error=error,
        stack=stack,
        first_failed_at=instant_of(first_failed_at),
        last_failed_at=instant_of(last_failed_at),
        attempts=_attempts.decode(attempts),
        state=DeadLetterState(state),
        replays=replays,
        note=note,
        closed_at=None if closed_at is None else instant_of(closed_at),
        service=service,
    )
