"""Review items on PostgreSQL."""

from __future__ import annotations

from spoolproof.stores.postgres.store import PostgresStore
from spoolproof.stores.reviews import SqlReviews


class PostgresReviews(SqlReviews):
    def __init__(self, store: PostgresStore) -> None:
        super().__init__(
            *("spoolproof.", " for update"), read=store.upkeep.fetch, stored=lambda at: at, at=lambda instant: instant
        )
