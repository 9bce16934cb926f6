"""Held keys on PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from spoolproof.ports.transaction import OwnTransaction
from spoolproof.statements import load_statements
from spoolproof.stores.held_keys import SqlHeldKeys
from spoolproof.stores.postgres.store import PostgresStore

_SQL = load_statements(__package__, "held_keys.sql")


class PostgresHeldKeys(SqlHeldKeys):
    def __init__(self, store: PostgresStore) -> None:
        super().__init__(_SQL)
        self._store = store

    def _transaction(self) -> AbstractAsyncContextManager[OwnTransaction]:
        return self._store.transaction()

    async def _read(self, sql: str, *args: object) -> Sequence[Mapping[str, Any]]:
        return await self._store.upkeep.fetch(sql, *args)

    def _stored(self, columns: Sequence[object]) -> Sequence[object]:
        return columns

    @property
    def _service(self) -> str:
        return self._store.services.own_name
