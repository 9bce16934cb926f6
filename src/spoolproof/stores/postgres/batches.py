"""Batches on PostgreSQL."""

from __future__ import annotations

from spoolproof.stores.batches import SqlBatches
from spoolproof.stores.postgres.store import PostgresStore


class PostgresBatches(SqlBatches):
    def __init__(self, store: PostgresStore) -> None:
        super().__init__(
            "spoolproof.", "now()", read=store.work.fetch, stored=lambda at: at, at=lambda instant: instant
        )
