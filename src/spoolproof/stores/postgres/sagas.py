"""Sagas on PostgreSQL, due by the server's clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from spoolproof.ports.transaction import OwnTransaction
from spoolproof.stores.postgres.store import PostgresStore
from spoolproof.stores.sagas import SqlSagas, statements_of

_SQL = statements_of(
    {
        "saga": "spoolproof.saga",
        "process": "spoolproof.process",
        # not clock_timestamp(), which is volatile: no index would be used
        "now": "coalesce(cast($1 as timestamptz), now())",
        "second": "interval '1 s'",
        "alive": "clock_timestamp()",
        "lock": "for no key update",
        "skip": "for update skip locked",
        "skip_s": "for update of s skip locked",
        "bytes": "bytea",
    }
)


class PostgresSagas(SqlSagas):
    def __init__(self, store: PostgresStore) -> None:
        super().__init__(_SQL)
        self._store = store

    def _transaction(self) -> AbstractAsyncContextManager[OwnTransaction]:
        return self._store.transaction()

    async def _read(self, sql: str, *args: object) -> Sequence[Mapping[str, Any]]:
        return await self._store.work.fetch(sql, *args)

    def _now(self) -> object:
        return None
