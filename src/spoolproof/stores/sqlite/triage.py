"""Triage on SQLite."""

from __future__ import annotations

from spoolproof.sqlite import load_statements
from spoolproof.stores.sqlite.dead_letters import DIALECT
from spoolproof.stores.sqlite.store import SqliteStore
from spoolproof.stores.sqlite.times import instant_of
from spoolproof.stores.triage import SqlTriage

_SQL = load_statements(__package__, "triage.sql")


class SqliteTriage(SqlTriage):
    def __init__(self, store: SqliteStore) -> None:
        super().__init__(
            *(_SQL, DIALECT),
            read=store.dead_letters.read,
            transaction=store.transaction,
            services=store.services,
            at=instant_of,
        )
