"""Dead letters on SQLite. SQLite has no data-modifying CTE, so each verb is one transaction of several statements."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
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
from spoolproof.ports.transaction import Row, StoreTransaction
from spoolproof.sqlite import Database, load_statements
from spoolproof.statements import filled
from spoolproof.stores import outbox
from spoolproof.stores.dead_letters import (
    SYSTEM_ACTOR,
    WORDS,
    columns_of,
    dead_letter_of,
    forced,
    redirected,
    replay_copy,
)
from spoolproof.stores.filter import Dialect, conditions
from spoolproof.stores.sqlite.inbox import has_handled
from spoolproof.stores.sqlite.outbox import insert
from spoolproof.stores.sqlite.services import SqliteServices, shard_of_service
from spoolproof.stores.sqlite.times import instant_of, seconds_of
from spoolproof.stores.sqlite.transaction import SqliteTransaction, rows_of
from spoolproof.stores.values import storable

_SQL = load_statements(__package__, "dead_letters.sql", WORDS)
_AGAIN = forced(_SQL["start_replay"])
_INSTANTS = ("first_failed_at", "last_failed_at", "closed_at", "replayed_at")

DIALECT = Dialect(
    contains="instr(lower(error_class || ': ' || error), {}) > 0",
    among="id in (select value from json_each({}))",
    ids=lambda ids: json.dumps(list(ids)),
    id=str,
    instant=seconds_of,
)


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
        where, values = conditions(filter, DIALECT, first=2)
        rows = await self.read(filled(_SQL["search"], {"and_where": where}), filter.limit, *values)
        return [_record(row) for row in rows]

    async def read(self, sql: str, *args: object) -> Sequence[Row]:
        """Return the rows of a query with parameters `$1`, `$2` …, of what is committed."""
        named = {str(number): value for number, value in enumerate(args, 1)}
        return await self._database.read(lambda connection: rows_of(connection.execute(sql, named)))

    async def counts(self) -> Mapping[DeadLetterState, int]:
        def work(connection: sqlite3.Connection) -> dict[DeadLetterState, int]:
            most = limits.ROWS_COUNTED_MAX
            return {state: connection.execute(_SQL["count"], (state, most)).fetchone()[0] for state in DeadLetterState}

        return await self._database.read(work)

    async def replay(self, id: str, actor: str, reason: str, *, queue: str | None = None, force: bool = False) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            record = _find(connection, id)
            return record is not None and self._replay(connection, redirected(record, queue), actor, reason, force)

        return await self._database.write(work)

    async def replay_in(
        self, tx: StoreTransaction, record: DeadLetterRecord, actor: str, reason: str, *, force: bool
    ) -> bool:
        """Replay one, as it is or is to be, in an open transaction; False if it is not what it was any more."""
        assert isinstance(tx, SqliteTransaction)
        return await tx.run(lambda connection: self._replay(connection, record, actor, reason, force))

    def _replay(
        self, connection: sqlite3.Connection, record: DeadLetterRecord, actor: str, reason: str, force: bool
    ) -> bool:
        values = (
            record.id,
            record.replays,
            record.version,
            record.consumer,
            str(record.destination),
            record.routing_key,
        )
        if not connection.execute(_AGAIN if force else _SQL["start_replay"], values).rowcount:
            return False
        shard = shard_of_service(connection, record.service)
        if record.destination.kind is Kind.WEBHOOK:
            shard = self._services.own.webhook_shard(shard)
        insert(connection, [outbox.columns_of(replay_copy(record, record.replays + 1), shard)])
        _note(connection, record.id, actor, "replayed", reason)
        return True

    async def discard(self, id: str, actor: str, note: str) -> bool:
        return await self._database.write(lambda connection: _discard(connection, id, actor, note))

    async def discard_in(self, tx: StoreTransaction, id: str, actor: str, note: str) -> bool:
        """Discard one in an open transaction."""
        assert isinstance(tx, SqliteTransaction)
        return await tx.run(lambda connection: _discard(connection, id, actor, note))

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


def _discard(connection: sqlite3.Connection, id: str, actor: str, note: str) -> bool:
    if not connection.execute(_SQL["discard"], (id, storable(note))).rowcount:
        return False
    _note(connection, id, actor, "discarded", note)
    return True


def _note(connection: sqlite3.Connection, id: str, actor: str, verb: str, detail: str) -> None:
    connection.execute(_SQL["note"], (id, storable(actor), verb, storable(detail)))


def _find(connection: sqlite3.Connection, id: str) -> DeadLetterRecord | None:
    return next(map(_record, rows_of(connection.execute(_SQL["get"], (id,)))), None)


def _record(row: Row) -> DeadLetterRecord:
    instants = {name: None if row[name] is None else instant_of(row[name]) for name in _INSTANTS}
    return dead_letter_of({**row, **instants})
