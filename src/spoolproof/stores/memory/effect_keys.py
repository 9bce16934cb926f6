"""The memory store's keys of effects."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from spoolproof.ports.effect_keys import EffectKey, Kept, KeyState
from spoolproof.ports.transaction import StoreTransaction
from spoolproof.stores.memory.store import MemoryStore
from spoolproof.stores.memory.transaction import own


@dataclass(frozen=True, slots=True)
class _Row:
    kept: Kept
    created_at: datetime


class MemoryEffectKeys:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def add(self, tx: StoreTransaction, key: EffectKey, state: KeyState) -> bool:
        table, place = self._table(tx), _place(key)
        if place in table:
            return False
        table[place] = _Row(Kept(state), self._store.clock.now())
        return True

    async def get(self, tx: StoreTransaction, key: EffectKey) -> Kept | None:
        row = self._table(tx).get(_place(key))
        return None if row is None else row.kept

    async def answer(self, tx: StoreTransaction, key: EffectKey, answer: bytes) -> None:
        row = self._table(tx)[_place(key)]
        self._table(tx)[_place(key)] = replace(row, kept=replace(row.kept, answer=answer))

    async def withdraw(self, tx: StoreTransaction, key: EffectKey) -> Kept | None:
        row = self._table(tx).get(_place(key))
        if row is None or row.kept.state is not KeyState.LANDED:
            return None
        kept = replace(row.kept, state=KeyState.WITHDRAWN)
        self._table(tx)[_place(key)] = replace(row, kept=kept)
        return row.kept

    def _table(self, tx: StoreTransaction) -> dict[Any, _Row]:
        return own(self._store, tx).table("effect_key")


def _place(key: EffectKey) -> tuple[str, str, str]:
    return key.service, key.scope, key.key
