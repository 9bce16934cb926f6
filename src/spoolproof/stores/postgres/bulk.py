"""Bulks on PostgreSQL."""

from __future__ import annotations

from spoolproof.statements import load_statements
from spoolproof.stores.bulk import SqlBulks
from spoolproof.stores.postgres.dead_letters import DIALECT
from spoolproof.stores.postgres.store import PostgresStore

_SQL = load_statements(__package__, "bulk.sql")


class PostgresBulks(SqlBulks):
    def __init__(self, store: PostgresStore) -> None:
        super().__init__(
            *(_SQL, DIALECT),
            letters=store.dead_letters,
            read=store.upkeep.fetch,
            transaction=store.transaction,
            clock=store.clock,
        )
