"""The memory store's small facts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from spoolproof.ports.state import StateRecord, check_value

if TYPE_CHECKING:
    from spoolproof.stores.memory.store import MemoryStore

STATE = "state"


class MemoryState:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def get(self, kind: str, name: str) -> StateRecord | None:
        record: StateRecord | None = self._store.table(STATE).get((kind, name))
        return record

    async def put(self, kind: str, name: str, value: bytes) -> int:
        check_value(kind, name, value)
        async with self._store.transaction() as tx:
            known: StateRecord | None = tx.table(STATE).get((kind, name))
            version = 1 if known is None else known.version + 1
            record = StateRecord(value=value, version=version, updated_at=self._store.clock.now())
            tx.table(STATE)[kind, name] = record
            return version

    async def all(self, kind: str) -> Mapping[str, StateRecord]:
        found = {name: record for (of, name), record in self._store.table(STATE).items() if of == kind}
        return dict(sorted(found.items()))

    async def remove(self, kind: str, name: str) -> bool:
        async with self._store.transaction() as tx:
            return tx.table(STATE).pop((kind, name), None) is not None
