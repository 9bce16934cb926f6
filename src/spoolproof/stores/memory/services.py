"""The memory store's services."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from spoolproof import limits
from spoolproof.ports.services import Block
from spoolproof.stores.memory.transaction import MemoryTransaction

if TYPE_CHECKING:
    from spoolproof.stores.memory.store import MemoryStore

SERVICES = "service"

_FIRST = Block(0, limits.SHARDS_POSTGRES)  #: as many as PostgreSQL has: the harder case for whoever is tested on it


class MemoryServices:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.own = _FIRST
        self.own_name = ""

    async def claim(self, service: str) -> Block:
        async with self._store.transaction() as tx:
            services = tx.table(SERVICES)
            self.own = services.setdefault(service, Block(len(services) * _FIRST.size, _FIRST.size))
        self.own_name = service
        return self.own

    async def all(self) -> Mapping[str, Block]:
        return dict(self._store.table(SERVICES))

    def block_of(self, tx: MemoryTransaction, service: str) -> Block:
        """Return the block of a service, or the first for one without a name."""
        block: Block = tx.table(SERVICES).get(service, _FIRST)
        return block
