"""Keys of effects on SQLite."""

from __future__ import annotations

from spoolproof.stores.effect_keys import SqlEffectKeys
from spoolproof.stores.sqlite.store import SqliteStore


class SqliteEffectKeys(SqlEffectKeys):
    def __init__(self, store: SqliteStore) -> None:
        super().__init__("spoolproof_effect_key")
