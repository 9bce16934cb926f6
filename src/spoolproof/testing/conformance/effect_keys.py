"""The contract of `ports.effect_keys.EffectKeys`, and of what is done once for a key."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from spoolproof.outbox.publish import Publisher
from spoolproof.outbox.transaction import UnitsOfWork
from spoolproof.ports.effect_keys import EffectKey, EffectKeys, Kept, KeyState
from spoolproof.ports.store import Store
from spoolproof.saga.errors import Refused
from spoolproof.saga.receiver import Receiver
from spoolproof.testing.conformance._messages import CLOCK, IDS
from spoolproof.testing.conformance._store import StoreSuite, Undo, rolled_back

OWN = "conformance"


class Till:
    """A receiver whose effects are counted, each in a transaction of its own."""

    def __init__(self, store: Store, scope: str = "payments") -> None:
        self._units = UnitsOfWork(store, Publisher(store, source=OWN, clock=CLOCK, ids=IDS))
        self._receive: Receiver[Any] = Receiver(lambda: store, OWN, scope, dict[str, int])
        self.effects: list[str] = []

    async def charge(self, key: str, cents: int, error: BaseException | None = None) -> Any:
        async def effect() -> dict[str, int]:
            self.effects.append(f"charge {cents}")
            await asyncio.sleep(0)
            if error is not None:
                raise error
            return {"cents": cents}

        async with self._units.open() as tx:
            return await self._receive.do(tx, key, effect)

    async def refund(self, key: str) -> bool:
        async def undo(answer: dict[str, int]) -> None:
            self.effects.append(f"refund {answer['cents']}")

        async with self._units.open() as tx:
            return await self._receive.compensate(tx, key, undo)


@pytest.mark.asyncio
class EffectKeysConformance(StoreSuite):
    """Needs the fixture `store`, made with the ports of `wiring`."""

    async def test_a_key_has_its_effect_once_and_its_answer_ever_after(self, store: Store) -> None:
        """Also for two who come at once; another scope is another key."""
        till, other = Till(store), Till(store, "refunds")

        first, second = await asyncio.gather(till.charge("k", 1), till.charge("k", 2))
        later = await till.charge("k", 3)

        assert 1 == len(till.effects)
        assert first == second == later
        assert {"cents": 4} == await other.charge("k", 4)

    async def test_an_effect_that_fails_leaves_no_key(self, store: Store) -> None:
        """Nor does one whose transaction ends otherwise: the next call runs it."""
        till, keys, key = Till(store), store.port(EffectKeys), EffectKey(OWN, "payments", "k")
        with pytest.raises(Undo):
            await till.charge("k", 1, Undo())
        async with rolled_back(store) as tx:
            assert await keys.add(tx, key, KeyState.LANDED)

        assert {"cents": 2} == await till.charge("k", 2)
        async with store.transaction() as tx:
            assert Kept(KeyState.LANDED, b'{"cents":2}') == await keys.get(tx, key)

    async def test_what_landed_is_undone_once_and_what_comes_late_is_refused(self, store: Store) -> None:
        """The tombstone: a call that arrives after its compensation has no effect, ever."""
        till = Till(store)
        await till.charge("k", 5)

        undone = await asyncio.gather(till.refund("k"), till.refund("k"))
        never = await till.refund("late")
        for key in ("k", "late"):
            with pytest.raises(Refused, match="was compensated before"):
                await till.charge(key, 6)

        assert ([False, True], False) == (sorted(undone), never)
        assert ["charge 5", "refund 5"] == till.effects

    async def test_a_call_and_its_compensation_at_once_leave_nothing_in_force(self, store: Store) -> None:
        """Whichever is first."""
        till = Till(store)

        await asyncio.gather(
            *(one for n in range(5) for one in (till.charge(f"k{n}", n), till.refund(f"k{n}"))), return_exceptions=True
        )

        charged, refunded = (
            sorted(one[-1] for one in till.effects if one.startswith(verb)) for verb in ("charge", "refund")
        )
        assert charged == refunded

    async def test_keys_go_by_age(self, store: Store) -> None:
        """90 days: no saga repeats a step later."""
        await Till(store).charge("k", 1)
        await store.retention.prune(lambda rule: -1.0 if rule.table == "effect_key" else 1e9, 10)

        till = Till(store)
        await till.charge("k", 2)

        assert ["charge 2"] == till.effects
