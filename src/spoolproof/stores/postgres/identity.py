"""What tells this store's database from every other, and how many shards its outbox has: the row of `meta`."""

from __future__ import annotations

from uuid import UUID

from spoolproof import limits
from spoolproof.statements import load_statements
from spoolproof.stores.postgres.connections import Pool
from spoolproof.stores.postgres.faults import outbox_missing

SQL = load_statements(__package__, "identity.sql")


class Identity:
    """Read once the schema is there; `shards` is this release's number until then."""

    def __init__(self, upkeep: Pool) -> None:
        self._upkeep = upkeep
        self.shards = limits.SHARDS_POSTGRES
        self._store_id: UUID | None = None

    async def read(self) -> None:
        """Read the row if the schema is there. Raises StoreUnavailable."""
        if not await self._upkeep.fetch_value(SQL["has_outbox"]):
            return
        (row,) = await self._upkeep.fetch(SQL["meta"])
        self.shards = row["shards"]
        self._store_id = UUID(int=row["store_id"].int)

    async def store_id(self) -> UUID:
        """Return the id. Raises OutboxMissing while the store's own database has no schema, StoreUnavailable."""
        if self._store_id is None:
            await self.read()
        if self._store_id is None:
            raise outbox_missing(self._upkeep.name)
        return self._store_id
