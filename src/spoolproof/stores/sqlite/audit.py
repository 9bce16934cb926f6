"""Acts of people on SQLite."""

from __future__ import annotations

from spoolproof.stores.audit import SqlAudit
from spoolproof.stores.sqlite.store import SqliteStore
from spoolproof.stores.sqlite.times import seconds_of


class SqliteAudit(SqlAudit):
    def __init__(self, store: SqliteStore) -> None:
        read = store.dead_letters.read
        super().__init__("spoolproof_", read=read, transaction=store.transaction, stored=seconds_of)
