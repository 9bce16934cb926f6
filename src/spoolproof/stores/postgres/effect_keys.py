"""Keys of effects on PostgreSQL."""

from __future__ import annotations

from spoolproof.stores.effect_keys import SqlEffectKeys
from spoolproof.stores.postgres.store import PostgresStore


class PostgresEffectKeys(SqlEffectKeys):
    def __init__(self, store: PostgresStore) -> None:
        super().__init__("spoolproof.effect_key")
