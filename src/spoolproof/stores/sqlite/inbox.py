"""The inbox on SQLite."""

from __future__ import annotations

import sqlite3

from spoolproof.ports.transaction import StoreTransaction
from spoolproof.sqlite import Database, load_statements

_SQL = load_statements(__package__, "inbox.sql")


class SqliteInbox:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, tx: StoreTransaction, consumer: str, key: str, earlier: str | None = None) -> bool:
        return await tx.execute(_SQL["record"], consumer, key, earlier) == 1

    async def forget(self, tx: StoreTransaction, consumer: str, key: str, earlier: str | None = None) -> None:
        await tx.execute(_SQL["forget"], consumer, key, earlier)

    async def contains(self, consumer: str, key: str, earlier: str | None = None) -> bool:
        return await self._database.read(lambda connection: has_handled(connection, consumer, key, earlier))


def has_handled(connection: sqlite3.Connection, consumer: str, key: str | None, earlier: str | None) -> bool:
    """Tell whether the inbox, as this connection sees it, has the message."""
    (is_there,) = connection.execute(_SQL["contains"], (consumer, key, earlier)).fetchone()
    return bool(is_there)
