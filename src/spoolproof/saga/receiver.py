"""The receiving side of a keyed step: what was asked for under one key is done once, and never after its undo.

`receive = service.keyed("payments")` in the service that is called. The key, the answer and what the effect writes are
one commit, so a repeated call gets the stored answer; a call that arrives after its compensation is refused, which is
what lets the saga's step say `tombstone=True`.

What an effect does beyond its transaction is not covered: it may happen twice, or without its record.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from spoolproof import limits
from spoolproof.errors import InvalidMessage
from spoolproof.outbox.transaction import Transaction
from spoolproof.ports.effect_keys import EffectKey, EffectKeys, KeyState
from spoolproof.ports.store import Store
from spoolproof.saga.errors import Refused
from spoolproof.saga.values import decode, encode

T = TypeVar("T")


class Receiver(Generic[T]):
    """What was asked for in one scope, by key; see `service.keyed`."""

    def __init__(self, store: Callable[[], Store], service: str, scope: str, kind: Any) -> None:
        self._store = store
        self._service = service
        self._scope = scope
        self._kind = kind

    async def do(self, tx: Transaction, key: str, effect: Callable[[], Awaitable[T]]) -> T:
        """Run `async def effect()` once for a key, and return its answer, then and ever after.

        tx: the transaction of what it writes: a handler's, or of `service.transaction()`. What it raises undoes what it
        wrote through `tx`; the next call under the key runs it again. key: `step.key` of the caller, 1 to 400
        characters. Raises Refused if it was compensated before, InvalidMessage for a key that is none, CodecError for
        an answer that does not read back as it is.
        """
        keys, place = self._store().port(EffectKeys), self._place(key)
        async with tx.savepoint():
            if await keys.add(tx.inner, place, KeyState.LANDED):
                answer = await effect()
                body = encode(answer, self._kind, f"answer of {self._scope!r}")
                await keys.answer(tx.inner, place, body)
                return answer
        kept = await keys.get(tx.inner, place)
        if kept is None or kept.state is KeyState.WITHDRAWN:
            raise Refused(f"{self._scope} {key}: it was compensated before this call came")
        before: T = decode(kept.answer, self._kind)
        return before

    async def compensate(self, tx: Transaction, key: str, undo: Callable[[T], Awaitable[object]]) -> bool:
        """Undo what landed under a key with `async def undo(answer)`, and refuse whatever comes under it from now on.

        Returns False if there was nothing to undo: it never landed, or was compensated before. key: `step.forward_key`
        of the caller.
        """
        keys, place = self._store().port(EffectKeys), self._place(key)
        for _ in range(2):  # a call that another transaction was about to record is found at the second look
            async with tx.savepoint():
                landed = await keys.withdraw(tx.inner, place)
                if landed is not None:
                    await undo(decode(landed.answer, self._kind))
                    return True
            if await keys.add(tx.inner, place, KeyState.WITHDRAWN):
                return False
        return False

    def _place(self, key: str) -> EffectKey:
        most = limits.EFFECT_KEY_CHARACTERS_MAX
        if not isinstance(key, str) or not 1 <= len(key) <= most or "\0" in key:
            raise InvalidMessage("key", key, f"text of 1 to {most} characters; pass the step.key of the caller")
        return EffectKey(self._service, self._scope, key)
