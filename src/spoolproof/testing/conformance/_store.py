"""What the store suites share: what an adapter claims, and how tests hold leases and read rows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager

import pytest

from spoolproof.ports.leases import Fence
from spoolproof.ports.outbox import OutboxRow
from spoolproof.ports.store import Store
from spoolproof.ports.transaction import StoreTransaction
from spoolproof.testing.conformance._messages import IDS

LEASE_SECONDS = 30.0
"""Longer than any test: a lease that must not run out while it is used."""
TINY_LEASE_SECONDS = 0.2
"""A lease whose end a test waits for."""


class StoreSuite:
    """Base of the store suites. Claims are data; what a store does not claim is skipped with its reason."""

    has_sql: bool = True  #: transactions run SQL
    transactions_overlap: bool = True  #: two write transactions may be open at once

    def needs_sql(self) -> None:
        """Skip the test on a store without SQL."""
        if not self.has_sql:
            pytest.skip("this store has no SQL")

    def needs_overlap(self) -> None:
        """Skip the test on a store that runs one write transaction at a time."""
        if not self.transactions_overlap:
            pytest.skip("this store runs one write transaction at a time")


class Undo(Exception):
    """Raised by a test to roll a transaction back."""


@asynccontextmanager
async def rolled_back(store: Store, error: type[BaseException] = Undo) -> AsyncIterator[StoreTransaction]:
    """Open a transaction that ends with `error` after the block. Raises AssertionError if the error does not pass."""
    try:
        async with store.transaction() as tx:
            yield tx
            raise error
    except error:
        return
    raise AssertionError(f"the transaction kept {error.__name__} to itself")


async def fence_for(store: Store, shard: int, lease_seconds: float = LEASE_SECONDS) -> Fence:
    """Take the lease of a shard that is free, under a new owner."""
    name = f"{shard:02d}"
    own = store.services.own
    await store.leases.ensure(own.lease_kind, own.lease_names)
    taken = await store.leases.acquire(own.lease_kind, IDS.uuid7(), own.size, lease_seconds)
    fence = next(fence for fence in taken if fence.name == name)
    await store.leases.release([other for other in taken if other is not fence])
    return fence


async def stale_fence_for(store: Store, shard: int) -> Fence:
    """Return a fence whose lease has since gone to another owner."""
    stale = await fence_for(store, shard)
    await store.leases.release([stale])
    await fence_for(store, shard)
    return stale


async def ready_rows(store: Store, paused: Collection[str] = (), limit: int = 1000) -> Sequence[OutboxRow]:
    """Return every ready row of every shard, read from the start."""
    return (await store.outbox.fetch(dict.fromkeys(store.services.own.shards, 0), paused, limit)).rows


async def ready_ids(store: Store, paused: Collection[str] = ()) -> list[str]:
    """Return the message ids of `ready_rows`."""
    return [row.outgoing.message.id for row in await ready_rows(store, paused)]
