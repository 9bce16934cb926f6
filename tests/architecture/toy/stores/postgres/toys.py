"""Toys on PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping

from spoolproof.statements import load_statements
from spoolproof.stores.postgres.store import PostgresStore

_SQL = load_statements(__package__, "toys.sql")


class PostgresToys:
    def __init__(self, store: PostgresStore) -> None:
        self._upkeep = store.upkeep

    async def play(self, name: str, *, breaks: bool = False) -> None:
        await self._upkeep.execute(_SQL["play"], name, breaks)

    async def all(self) -> Mapping[str, bool]:
        return {row["name"]: row["is_broken"] for row in await self._upkeep.fetch(_SQL["all"])}
