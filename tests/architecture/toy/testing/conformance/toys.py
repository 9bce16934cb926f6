"""The contract of `ports.toys.Toys`."""

from __future__ import annotations

import pytest

from spoolproof.ports.store import Store
from spoolproof.ports.toys import Toys
from spoolproof.testing.conformance._store import StoreSuite


@pytest.mark.asyncio
class ToysConformance(StoreSuite):
    """Needs the fixture `store`."""

    async def test_what_breaks_stays_broken(self, store: Store) -> None:
        """Nobody mends toys."""
        toys = store.port(Toys)
        await toys.play("train", breaks=True)
        await toys.play("bear")
        await toys.play("train")

        assert [("bear", False), ("train", True)] == list((await toys.all()).items())

    async def test_a_toy_that_nobody_plays_with_goes(self, store: Store) -> None:
        """The box would overflow."""
        toys = store.port(Toys)
        await toys.play("bear")

        assert 0 == await store.retention.prune(lambda rule: 86_400.0, limit=10)
        deleted = await store.retention.prune(lambda rule: -1.0 if rule.table == "toy" else 86_400.0, limit=10)

        assert 1 == deleted
        assert {} == await toys.all()
