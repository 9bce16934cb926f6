"""Marks and runs of reconciliation on PostgreSQL."""

from __future__ import annotations

from spoolproof.stores.postgres.store import PostgresStore
from spoolproof.stores.reconciliations import SqlReconciliations


class PostgresReconciliations(SqlReconciliations):
    def __init__(self, store: PostgresStore) -> None:
        read = store.upkeep.fetch
        super().__init__("spoolproof.", read=read, transaction=store.transaction, stored=lambda instant: instant)
