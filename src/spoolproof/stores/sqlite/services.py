"""Which services share this file; each has one shard."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from spoolproof import limits
from spoolproof.ports.services import Block
from spoolproof.sqlite import Database, load_statements

_SQL = load_statements(__package__, "services.sql")


class SqliteServices:
    def __init__(self, database: Database) -> None:
        self._database = database
        self.own = _block(0)
        self.own_name = ""

    async def claim(self, service: str) -> Block:
        def work(connection: sqlite3.Connection) -> int:
            connection.execute(_SQL["claim"], (service, limits.SHARDS_SQLITE))
            return shard_of_service(connection, service)

        known = (await self.all()).get(service)  # the writer is taken only when there is something to write
        self.own = known or _block(await self._database.write(work))
        self.own_name = service
        return self.own

    async def all(self) -> Mapping[str, Block]:
        rows = await self._database.read(lambda connection: connection.execute(_SQL["all"]).fetchall())
        return {name: _block(first) for name, first in rows}


def shard_of_service(connection: sqlite3.Connection, service: str) -> int:
    """Return the shard of a service, or the first for one without a name."""
    row = connection.execute(_SQL["first_shard"], (service,)).fetchone()
    return 0 if row is None else int(row[0])


def _block(first: int) -> Block:
    return Block(first, limits.SHARDS_SQLITE)
