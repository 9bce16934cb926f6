"""Triage on PostgreSQL."""

from __future__ import annotations

from spoolproof.statements import load_statements
from spoolproof.stores.postgres.dead_letters import DIALECT
from spoolproof.stores.postgres.store import PostgresStore
from spoolproof.stores.triage import SqlTriage

_SQL = load_statements(__package__, "triage.sql")


class PostgresTriage(SqlTriage):
    def __init__(self, store: PostgresStore) -> None:
        super().__init__(
            *(_SQL, DIALECT),
            read=store.upkeep.fetch,
            transaction=store.transaction,
            services=store.services,
            at=lambda instant: instant,
        )
