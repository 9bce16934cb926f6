"""Toys on SQLite."""

from __future__ import annotations

from collections.abc import Mapping

from spoolproof.sqlite import load_statements
from spoolproof.stores.sqlite.store import SqliteStore

_SQL = load_statements(__package__, "toys.sql")


class SqliteToys:
    def __init__(self, store: SqliteStore) -> None:
        self._database = store.database

    async def play(self, name: str, *, breaks: bool = False) -> None:
        await self._database.write(lambda connection: connection.execute(_SQL["play"], (name, breaks)).rowcount)

    async def all(self) -> Mapping[str, bool]:
        rows = await self._database.read(lambda connection: connection.execute(_SQL["all"]).fetchall())
        return {name: bool(is_broken) for name, is_broken in rows}
