"""Marks and runs of reconciliation on SQLite."""

from __future__ import annotations

from spoolproof.stores.reconciliations import SqlReconciliations
from spoolproof.stores.sqlite.store import SqliteStore
from spoolproof.stores.sqlite.times import seconds_of


class SqliteReconciliations(SqlReconciliations):
    def __init__(self, store: SqliteStore) -> None:
        read = store.dead_letters.read
        super().__init__("spoolproof_", read=read, transaction=store.transaction, stored=seconds_of)
