"""The memory store's toys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from spoolproof.stores.memory.store import MemoryStore

TOYS = "toy"


@dataclass(frozen=True, slots=True)
class _Toy:
    is_broken: bool
    played_at: datetime


class MemoryToys:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def play(self, name: str, *, breaks: bool = False) -> None:
        async with self._store.transaction() as tx:
            known: _Toy | None = tx.table(TOYS).get(name)
            is_broken = breaks or (known is not None and known.is_broken)
            tx.table(TOYS)[name] = _Toy(is_broken, self._store.clock.now())

    async def all(self) -> Mapping[str, bool]:
        return {name: toy.is_broken for name, toy in sorted(self._store.table(TOYS).items())}
