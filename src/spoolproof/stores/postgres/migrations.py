"""The way to the newest schema: each step and its version number in one transaction, under one advisory lock.

Processes that start together queue on the lock and find the work done. What holds it is the transaction, so a process
that dies leaves neither lock nor half a step.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from spoolproof import limits
from spoolproof.ports.store import Migration
from spoolproof.stores.migrations import Steps, applied, load
from spoolproof.stores.postgres.connections import Connection, Pool

_LOCK = 0x73706F6F6C  #: "spool": the advisory lock's number, the same in every release
_NO_LIMIT = "select set_config(name, '0', true) from pg_settings where name = 'transaction_timeout'"  #: from 17 on
# not to_regclass: in a transaction that has waited for the lock it may answer from before the wait
_HAS_VERSIONS = """
select exists (
  select 1 from pg_catalog.pg_tables where schemaname = 'spoolproof' and tablename = 'schema_version')"""
_FOUND = "select coalesce(max(version), 0) from spoolproof.schema_version"


class PostgresMigrations(Steps):
    """after_apply: awaited when steps were run, so that the store reads what they made."""

    def __init__(self, upkeep: Pool, after_apply: Callable[[], Awaitable[None]]) -> None:
        self._upkeep = upkeep
        self._after_apply = after_apply
        super().__init__(load(__package__), versions="spoolproof.schema_version", begin="begin")

    async def found(self) -> int:
        if not await self._upkeep.fetch_value(_HAS_VERSIONS):
            return 0
        return int(await self._upkeep.fetch_value(_FOUND))

    async def apply(self) -> list[str]:
        names = []
        for step in self._steps:
            if await self._run(step):
                names.append(applied(step))
        if names:
            await self._after_apply()
        return names

    async def _run(self, step: Migration) -> bool:
        seconds = limits.MAINTENANCE_STATEMENT_SECONDS
        async with self._upkeep.connection() as connection:
            with self._upkeep.answers(connection):
                transaction = await self._upkeep.begin(connection)
                await connection.execute(f"{_NO_LIMIT}; select pg_advisory_xact_lock({_LOCK})", timeout=seconds)
                is_needed = step.version > await _found(connection)
                if is_needed:
                    await connection.execute(step.sql, timeout=seconds)
                    await connection.execute(self.noting(step), timeout=seconds)
                await transaction.commit()
                return is_needed


async def _found(connection: Connection) -> int:
    if not await connection.fetchval(_HAS_VERSIONS, timeout=limits.STATEMENT_SECONDS):
        return 0
    return int(await connection.fetchval(_FOUND, timeout=limits.STATEMENT_SECONDS))
