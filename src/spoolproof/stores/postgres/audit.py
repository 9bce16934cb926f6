"""Acts of people on PostgreSQL."""

from __future__ import annotations

from spoolproof.stores.audit import SqlAudit
from spoolproof.stores.postgres.store import PostgresStore


class PostgresAudit(SqlAudit):
    def __init__(self, store: PostgresStore) -> None:
        read = store.upkeep.fetch
        super().__init__("spoolproof.", read=read, transaction=store.transaction, stored=lambda instant: instant)
