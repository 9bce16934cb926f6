"""Dead letters on SQLite. SQLite has no data-modifying CTE, so each verb is one transaction of several statements."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from spoolproof import limits
from spoolproof.destination import Kind
from spoolproof.message import Message, earlier_key, message_key
from spoolproof.ports.dead_letters import (
    AuditEntry,
    DeadLetterDetails,
    DeadLetterFilter,
    DeadLetterRecord,
    DeadLetterState,
)
from spoolproof.ports.transaction import StoreTransaction
from spoolproof.sqlite import Database, load_statements
from spoolproof.stores import outbox
from spoolproof.stores.dead_letters import SYSTEM_ACTOR, WORDS, columns_of, dead_letter_of, replay_copy
from spoolproof.stores.sqlite.inbox import has_handled
from spoolproof.stores.sqlite.outbox import insert
from spoolproof.stores.sqlite.services import SqliteServices, shard_of_service
from spoolproof.stores.sqlite.times import instant_of, seconds_of
from spoolproof.stores.sqlite.transaction import rows_of
from spoolproof.stores.values import storable

_SQL = load_statements(__package__, "dead_letters.sql", WORDS)
_INSTANTS = ("first_failed_at", "last_failed_at", "closed_at")


class SqliteDeadLetters:
    def __init__(self, database: Database, services: SqliteServices) -> None:
        self._database = database
        self._services = services

    async def add(self, record: DeadLetterRecord) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            if has_handled(connection, record.consumer, message_key(record.message), earlier_key(record.message)):
                return False
            self.keep(connection, record)
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
        sql = _SQL["search"].replace("{where}", where)
        values = (*given.values(), filter.limit)
        return await self._database.read(lambda connection: list(_records(connection.execute(sql, values))))

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
            shard = shard_of_service(connection, record.service)
            if record.destination.kind is Kind.WEBHOOK:
                shard = self._services.own.webhook_shard(shard)
            insert(connection, [outbox.columns_of(replay_copy(record, record.replays), shard)])
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

    def keep(self, connection: sqlite3.Connection, record: DeadLetterRecord) -> None:
        """Write a dead letter, or update the one of its message, in the open transaction of a connection."""
        columns = columns_of(record, self._services.own_name)
        values = [seconds_of(one) if isinstance(one, datetime) else one for one in columns]
        ((id,),) = connection.execute(_SQL["keep"], values).fetchall()
        _note(connection, id, SYSTEM_ACTOR, "recorded", record.reason)


def _note(connection: sqlite3.Connection, id: str, actor: str, verb: str, detail: str) -> None:
    connection.execute(_SQL["note"], (id, storable(actor), verb, storable(detail)))


def _find(connection: sqlite3.Connection, id: str) -> DeadLetterRecord | None:
    return next(_records(connection.execute(_SQL["get"], (id,))), None)


def _records(cursor: sqlite3.Cursor) -> Iterator[DeadLetterRecord]:
    for row in rows_of(cursor):
        instants = {name: None if row[name] is None else instant_of(row[name]) for name in _INSTANTS}
        yield dead_letter_of({**row, **instants})
