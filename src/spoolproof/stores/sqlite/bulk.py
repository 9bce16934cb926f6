"""Bulks on SQLite."""

from __future__ import annotations

from spoolproof.sqlite import load_statements
from spoolproof.stores.bulk import SqlBulks
from spoolproof.stores.sqlite.dead_letters import DIALECT
from spoolproof.stores.sqlite.store import SqliteStore

_SQL = load_statements(__package__, "bulk.sql")


class SqliteBulks(SqlBulks):
    def __init__(self, store: SqliteStore) -> None:
        super().__init__(
            *(_SQL, DIALECT),
            letters=store.dead_letters,
            read=store.dead_letters.read,
            transaction=store.transaction,
            clock=store.clock,
        )
