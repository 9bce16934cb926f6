"""Leases: fair shares, self-fencing, and a new identity after an expiry."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from spoolproof.ids import Ids
from spoolproof.lifecycle.membership import Holding, Membership
from spoolproof.ports.leases import Process
from spoolproof.ports.services import Block
from spoolproof.stores.memory import MemoryStore
from spoolproof.testing.clock import ManualClock

LEASE_SECONDS = 15.0
BLOCK = Block(0, 16)
NAMES = BLOCK.lease_names


class Member:
    """One process of a fleet that shares a store."""

    def __init__(self, store: MemoryStore, clock: ManualClock, number: int) -> None:
        ids = Ids(clock, random_bytes=Random(number).randbytes)
        self.shards = Holding(BLOCK.lease_kind, NAMES, clock, LEASE_SECONDS * 2 / 3)
        process = Process(id=ids.uuid7(), service="shop", host="h", pid=number, roles=(BLOCK.lease_kind,))
        self.membership = Membership(
            process,
            store.leases,
            [self.shards],
            lease_seconds=LEASE_SECONDS,
            clock=clock,
            ids=ids,
            random=Random(number),
        )

    async def round(self) -> None:
        await self.membership._round()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def store(clock: ManualClock) -> Any:
    made = MemoryStore(clock=clock, ids=Ids(clock), outbox_rows_max=1000)
    await made.start()
    yield made
    await made.stop()


async def test_one_process_takes_every_shard(store: MemoryStore, clock: ManualClock) -> None:
    """A single process must ship everything."""
    member = Member(store, clock, 1)

    await member.round()

    assert NAMES == sorted(member.shards.held())


async def test_shares_become_fair_without_a_coordinator_and_never_overlap(
    store: MemoryStore, clock: ManualClock
) -> None:
    """S6: one owner per shard, at every round."""
    members = [Member(store, clock, number) for number in range(3)]
    await members[0].round()

    for _ in range(40):
        for member in members:
            await member.round()
            held = [name for one in members for name in one.shards.held()]
            assert len(set(held)) == len(held)
        await clock.advance(1.5)

    assert 6 == max(len(member.shards.held()) for member in members)
    assert NAMES == sorted(name for member in members for name in member.shards.held())


async def test_a_process_frozen_past_its_lease_fences_itself_and_a_peer_takes_over_with_a_higher_epoch(
    store: MemoryStore, clock: ManualClock
) -> None:
    """S5, V2: what it still writes carries an old epoch."""
    slow, fast = Member(store, clock, 1), Member(store, clock, 2)
    await slow.round()
    stale = slow.shards.held()["00"]

    await clock.advance(LEASE_SECONDS * 2 / 3)
    assert {} == slow.shards.held()
    assert slow.shards.is_fenced
    assert slow.shards.fence_for("00") is None

    await clock.advance(LEASE_SECONDS / 3 + 0.1)
    await fast.round()
    assert NAMES == sorted(fast.shards.held())
    assert fast.shards.held()["00"].epoch > stale.epoch

    before = slow.membership.process.id
    await slow.round()
    assert before != slow.membership.process.id
    assert {} == slow.shards.held()


async def test_a_drained_process_leaves_its_shards_free_at_once(store: MemoryStore, clock: ManualClock) -> None:
    """V2: take-over after a drain takes a sweep, not a lease."""
    leaving, staying = Member(store, clock, 1), Member(store, clock, 2)
    await leaving.round()
    await leaving.membership.drain()

    await staying.round()

    assert NAMES == sorted(staying.shards.held())


class SlowLeases:
    """A store whose answer to a renewal takes four seconds."""

    def __init__(self, leases: Any, clock: ManualClock) -> None:
        self._leases = leases
        self._clock = clock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._leases, name)

    async def renew(self, *args: Any) -> Any:
        kept = await self._leases.renew(*args)
        await self._clock.advance(4.0)
        return kept


async def test_a_renewal_extends_trust_from_when_it_was_sent(store: MemoryStore, clock: ManualClock) -> None:
    """A slow answer must not lengthen the lease in our eyes."""
    store.leases = SlowLeases(store.leases, clock)  # type: ignore[assignment]
    member = Member(store, clock, 1)
    await member.round()
    await clock.advance(LEASE_SECONDS / 3)
    await member.round()

    await clock.advance(LEASE_SECONDS * 2 / 3 - 4.0 - 0.1)
    assert NAMES == sorted(member.shards.held())

    await clock.advance(0.1)
    assert {} == member.shards.held()
