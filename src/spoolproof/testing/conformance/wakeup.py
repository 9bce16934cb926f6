"""The contract of `ports.wakeup.WakeUp`."""

from __future__ import annotations

import asyncio

import pytest

from spoolproof.ports.store import Store
from spoolproof.testing.conformance._store import StoreSuite
from spoolproof.testing.conformance._wait import eventually, holds_for, monotonic, within


@pytest.mark.asyncio
class WakeUpConformance(StoreSuite):
    """Needs the fixture `store`."""

    async def test_without_a_ring_the_wait_ends_at_its_time(self, store: Store) -> None:
        """The relay polls then."""

        async def is_quiet() -> bool:  # the fixture's own writes may still ring
            started = monotonic()
            rung = await store.wakeup.wait(0.1)
            return not rung and 0.05 < monotonic() - started < 2.0

        await eventually(is_quiet)

    async def test_a_ring_ends_the_wait_long_before_its_time(self, store: Store) -> None:
        """A message is on its way within milliseconds of its commit."""
        await eventually(lambda: _is_quiet(store))
        started = monotonic()
        answers: list[bool] = []

        async def wait() -> None:
            answers.append(await store.wakeup.wait(30.0))

        async def ring() -> None:
            await holds_for(lambda: not answers, seconds=0.05)
            store.wakeup.notify()

        await within(asyncio.gather(wait(), ring()), seconds=10.0)
        assert [True] == answers
        assert monotonic() - started < 10.0

    async def test_ringing_often_and_with_nobody_there_is_harmless(self, store: Store) -> None:
        """Every commit rings."""
        for _ in range(1000):
            store.wakeup.notify()

        await within(store.wakeup.wait(0.1))
        await eventually(lambda: _is_quiet(store))


async def _is_quiet(store: Store) -> bool:
    return not await store.wakeup.wait(0.02)
