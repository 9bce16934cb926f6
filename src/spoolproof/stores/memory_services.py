"""The memory store's services, kept in its one State with the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from spoolproof import limits
from spoolproof.ports.services import Block

if TYPE_CHECKING:
    from spoolproof.stores.memory import MemoryState, MemoryStore

_FIRST = Block(0, limits.SHARDS_POSTGRES)  #: as many as PostgreSQL has: the harder case for whoever is tested on it


class MemoryServices:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.own = _FIRST
        self.own_name = ""

    async def claim(self, service: str) -> Block:
        async with self._store.transaction() as tx:
            free = Block(len(tx.state.services) * _FIRST.size, _FIRST.size)
            self.own = tx.state.services.setdefault(service, free)
        self.own_name = service
        return self.own

    async def all(self) -> Mapping[str, Block]:
        return dict(self._store.committed().services)

    def block_of(self, state: MemoryState, service: str) -> Block:
        """Return the block of a service, or the first for one without a name."""
        return state.services.get(service, _FIRST)
