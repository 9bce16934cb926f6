"""Batches on SQLite."""

from __future__ import annotations

from spoolproof.sqlite import NOW
from spoolproof.stores.batches import SqlBatches
from spoolproof.stores.sqlite.store import SqliteStore
from spoolproof.stores.sqlite.times import instant_of, seconds_of


class SqliteBatches(SqlBatches):
    def __init__(self, store: SqliteStore) -> None:
        super().__init__("spoolproof_", NOW, read=store.dead_letters.read, stored=seconds_of, at=instant_of)
