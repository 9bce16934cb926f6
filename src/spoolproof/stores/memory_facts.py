"""The memory store's small facts, kept in its one State with the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from spoolproof.ports.state import StateRecord, check_value

if TYPE_CHECKING:
    from spoolproof.stores.memory import MemoryStore


class MemoryFacts:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def get(self, kind: str, name: str) -> StateRecord | None:
        return self._store.committed().facts.get((kind, name))

    async def put(self, kind: str, name: str, value: bytes) -> int:
        check_value(kind, name, value)
        async with self._store.transaction() as tx:
            known = tx.state.facts.get((kind, name))
            version = 1 if known is None else known.version + 1
            record = StateRecord(value=value, version=version, updated_at=self._store.clock.now())
            tx.state.facts[kind, name] = record
            return version

    async def all(self, kind: str) -> Mapping[str, StateRecord]:
        found = {name: record for (of, name), record in self._store.committed().facts.items() if of == kind}
        return dict(sorted(found.items()))

    async def remove(self, kind: str, name: str) -> bool:
        async with self._store.transaction() as tx:
            return tx.state.facts.pop((kind, name), None) is not None
