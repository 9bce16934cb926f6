"""The inbox on PostgreSQL."""

from __future__ import annotations

from spoolproof.ports.transaction import StoreTransaction
from spoolproof.statements import load_statements
from spoolproof.stores.postgres.connections import Pool

_SQL = load_statements(__package__, "inbox.sql")


class PostgresInbox:
    def __init__(self, upkeep: Pool) -> None:
        self._upkeep = upkeep

    async def record(self, tx: StoreTransaction, consumer: str, key: str, earlier: str | None = None) -> bool:
        # no time limit of its own: it waits as long as the other delivery of the same message runs; a server that
        # stops answering ends it through the watch on the transaction
        return await tx.execute(_SQL["record"], consumer, key, earlier) == 1

    async def forget(self, tx: StoreTransaction, consumer: str, key: str, earlier: str | None = None) -> None:
        await tx.execute(_SQL["forget"], consumer, key, earlier)

    async def contains(self, consumer: str, key: str, earlier: str | None = None) -> bool:
        return bool(await self._upkeep.fetch_value(_SQL["contains"], consumer, key, earlier))
