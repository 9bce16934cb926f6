"""Review items on SQLite."""

from __future__ import annotations

from spoolproof.stores.reviews import SqlReviews
from spoolproof.stores.sqlite.store import SqliteStore
from spoolproof.stores.sqlite.times import instant_of, seconds_of


class SqliteReviews(SqlReviews):
    def __init__(self, store: SqliteStore) -> None:
        super().__init__("spoolproof_", "", read=store.dead_letters.read, stored=seconds_of, at=instant_of)
