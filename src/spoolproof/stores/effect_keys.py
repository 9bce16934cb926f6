"""Keys of effects in SQL. Both databases take the same statements."""

from __future__ import annotations

from spoolproof.ports.effect_keys import EffectKey, Kept, KeyState
from spoolproof.ports.transaction import StoreTransaction
from spoolproof.statements import load_statements


class SqlEffectKeys:
    """Implements `ports.effect_keys.EffectKeys`. table: with its prefix."""

    def __init__(self, table: str) -> None:
        self._sql = load_statements(__package__, "effect_keys.sql", {"table": table})

    async def add(self, tx: StoreTransaction, key: EffectKey, state: KeyState) -> bool:
        return await tx.execute(self._sql["add"], key.service, key.scope, key.key, state.value) == 1

    async def get(self, tx: StoreTransaction, key: EffectKey) -> Kept | None:
        rows = await tx.fetch(self._sql["get"], key.service, key.scope, key.key)
        return Kept(KeyState(rows[0]["state"]), rows[0]["answer"]) if rows else None

    async def answer(self, tx: StoreTransaction, key: EffectKey, answer: bytes) -> None:
        await tx.execute(self._sql["answer"], key.service, key.scope, key.key, answer)

    async def withdraw(self, tx: StoreTransaction, key: EffectKey) -> Kept | None:
        rows = await tx.fetch(self._sql["withdraw"], key.service, key.scope, key.key)
        return Kept(KeyState.LANDED, rows[0]["answer"]) if rows else None
