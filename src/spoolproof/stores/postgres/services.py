"""Which services share this database, and the block of shards each has."""

from __future__ import annotations

from collections.abc import Mapping

from spoolproof.errors import SettingsError
from spoolproof.ports.services import Block
from spoolproof.statements import load_statements
from spoolproof.stores.postgres.connections import Pool
from spoolproof.stores.postgres.identity import Identity

_SQL = load_statements(__package__, "services.sql")
_CLAIMS_MAX = 100  #: of services that start at once each round gives one its block


class PostgresServices:
    def __init__(self, upkeep: Pool, identity: Identity) -> None:
        self._upkeep = upkeep
        self._identity = identity
        self._first = 0
        self.own_name = ""

    @property
    def own(self) -> Block:
        return Block(self._first, self._identity.shards)

    async def claim(self, service: str) -> Block:
        for _ in range(_CLAIMS_MAX):
            first = await self._upkeep.fetch_value(_SQL["claim"], service, self._identity.shards)
            if first is not None:
                self._first = first
                self.own_name = service
                return self.own
        raise SettingsError(
            [
                f"SPOOLPROOF_STORE: {self._upkeep.name} has no block of shards left for service {service!r}; delete "
                "services that are gone from the table spoolproof.service, or give this one a database of its own"
            ]
        )

    async def all(self) -> Mapping[str, Block]:
        rows = await self._upkeep.fetch(_SQL["all"])
        return {row["name"]: Block(row["first_shard"], self._identity.shards) for row in rows}

    async def shards_used(self) -> int:
        """Return how many shards there are in all blocks together."""
        return max((block.shards.stop for block in (await self.all()).values()), default=self._identity.shards)
