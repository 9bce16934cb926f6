"""The contract of `ports.leases.Leases`."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from spoolproof.ports.leases import Fence, Process
from spoolproof.ports.store import Store
from spoolproof.testing.conformance._messages import CLOCK, IDS
from spoolproof.testing.conformance._store import LEASE_SECONDS, TINY_LEASE_SECONDS, StoreSuite
from spoolproof.testing.conformance._wait import eventually, within

KIND = "leader"
NAMES = ("prune", "bridge", "estimate", "scheduled")


def _process() -> Process:
    return Process(id=IDS.uuid7(), service="shop", host="h1", pid=42, roles=("outbox", "consumer"))


@pytest.mark.asyncio
class LeasesConformance(StoreSuite):
    """Needs the fixture `store`."""

    async def test_a_new_lease_is_free(self, store: Store) -> None:
        """Nobody has to die before it can be taken for the first time."""
        await store.leases.ensure(KIND, NAMES)

        found = await store.leases.status(KIND)

        assert sorted(NAMES) == [lease.name for lease in found]
        assert {None} == {lease.owner for lease in found}
        assert {KIND} == {lease.kind for lease in found}

    async def test_ensure_leaves_leases_that_exist_as_they_are(self, store: Store) -> None:
        """Every process calls it at every start."""
        await store.leases.ensure(KIND, NAMES[:1])
        (fence,) = await store.leases.acquire(KIND, IDS.uuid7(), 1, LEASE_SECONDS)

        await store.leases.ensure(KIND, NAMES)

        held = {lease.name: lease.owner for lease in await store.leases.status(KIND)}
        assert {fence.name: fence.owner, **dict.fromkeys(NAMES[1:])} == held

    async def test_acquire_takes_free_leases_of_its_kind_up_to_the_limit(self, store: Store) -> None:
        """Fair shares rest on the limit."""
        await store.leases.ensure(KIND, NAMES)
        await store.leases.ensure("outbox", ["00"])
        owner = IDS.uuid7()

        taken = await store.leases.acquire(KIND, owner, 3, LEASE_SECONDS)

        assert 3 == len({fence.name for fence in taken})
        assert {(KIND, owner)} == {(fence.kind, fence.owner) for fence in taken}
        assert [] == list(await store.leases.acquire(KIND, owner, 0, LEASE_SECONDS))

    async def test_a_held_lease_is_not_given_to_another(self, store: Store) -> None:
        """Two holders of one shard would ship one key out of order."""
        await store.leases.ensure(KIND, NAMES)
        await store.leases.acquire(KIND, IDS.uuid7(), len(NAMES), LEASE_SECONDS)

        assert [] == list(await store.leases.acquire(KIND, IDS.uuid7(), len(NAMES), LEASE_SECONDS))

    async def test_concurrent_acquirers_never_share_a_lease(self, store: Store) -> None:
        """All processes start at once after a deploy."""
        await store.leases.ensure(KIND, NAMES)

        async def acquire() -> list[Fence]:
            return list(await store.leases.acquire(KIND, IDS.uuid7(), 2, LEASE_SECONDS))

        taken = [
            fence.name for fences in await within(asyncio.gather(*(acquire() for _ in range(6)))) for fence in fences
        ]
        taken += [fence.name for fence in await acquire()]  # skipped over by a race, never lost

        assert sorted(set(taken)) == sorted(taken)
        assert set(taken) <= set(NAMES)

    async def test_every_change_of_owner_raises_the_epoch(self, store: Store) -> None:
        """The epoch is what makes a frozen owner harmless; it never falls, also for the same owner."""
        await store.leases.ensure(KIND, NAMES[:1])
        owner = IDS.uuid7()
        epochs = []
        for _ in range(3):
            (fence,) = await store.leases.acquire(KIND, owner, 1, LEASE_SECONDS)
            epochs.append(fence.epoch)
            await store.leases.release([fence])

        (status,) = await store.leases.status(KIND)

        assert sorted(set(epochs)) == epochs
        assert status.epoch >= epochs[-1]

    async def test_an_expired_lease_goes_to_the_next_with_a_higher_epoch(self, store: Store) -> None:
        """Take-over from a dead process."""
        await store.leases.ensure(KIND, NAMES[:1])
        (old,) = await store.leases.acquire(KIND, IDS.uuid7(), 1, TINY_LEASE_SECONDS)
        heir = IDS.uuid7()
        taken: list[Fence] = []

        async def is_taken() -> bool:
            taken.extend(await store.leases.acquire(KIND, heir, 1, LEASE_SECONDS))
            return bool(taken)

        await eventually(is_taken)
        assert heir == taken[0].owner
        assert taken[0].epoch > old.epoch

    async def test_renewing_extends_what_is_still_held_and_returns_only_that(self, store: Store) -> None:
        """The holder learns from it what it has lost."""
        await store.leases.ensure(KIND, NAMES[:2])
        kept, lost = await store.leases.acquire(KIND, IDS.uuid7(), 2, LEASE_SECONDS)
        await store.leases.release([lost])
        (_,) = await store.leases.acquire(KIND, IDS.uuid7(), 1, LEASE_SECONDS)
        before = {lease.name: lease.expires_at for lease in await store.leases.status(KIND)}

        renewed = await store.leases.renew([kept, lost], 2 * LEASE_SECONDS)

        after = {lease.name: lease.expires_at for lease in await store.leases.status(KIND)}
        was, now = before[kept.name], after[kept.name]
        assert [kept] == list(renewed)
        assert was is not None
        assert now is not None
        assert now > was
        assert before[lost.name] == after[lost.name]

    async def test_a_renewed_lease_outlives_its_first_term(self, store: Store) -> None:
        """A busy process keeps its shards."""
        await store.leases.ensure(KIND, NAMES[:2])
        fences = list(await store.leases.acquire(KIND, IDS.uuid7(), 2, TINY_LEASE_SECONDS))
        await store.leases.renew(fences[:1], LEASE_SECONDS)

        taken: list[Fence] = []

        async def other_is_taken() -> bool:
            taken.extend(await store.leases.acquire(KIND, IDS.uuid7(), 2, LEASE_SECONDS))
            return bool(taken)

        await eventually(other_is_taken)
        assert [fences[1].name] == [fence.name for fence in taken]

    async def test_renewing_under_another_owner_or_epoch_returns_nothing(self, store: Store) -> None:
        """Held under exactly these fences, nothing near them."""
        await store.leases.ensure(KIND, NAMES[:1])
        (fence,) = await store.leases.acquire(KIND, IDS.uuid7(), 1, LEASE_SECONDS)
        forged = [replace(fence, owner=IDS.uuid7()), replace(fence, epoch=fence.epoch - 1)]

        assert [] == list(await store.leases.renew(forged, LEASE_SECONDS))
        assert [] == list(await store.leases.renew([], LEASE_SECONDS))

    async def test_a_released_lease_is_free_at_once(self, store: Store) -> None:
        """A deploy must not cost a lease's length of standstill."""
        await store.leases.ensure(KIND, NAMES[:1])
        fences = await store.leases.acquire(KIND, IDS.uuid7(), 1, LEASE_SECONDS)

        await store.leases.release(fences)

        (status,) = await store.leases.status(KIND)
        assert status.owner is None
        assert 1 == len(await store.leases.acquire(KIND, IDS.uuid7(), 1, LEASE_SECONDS))

    async def test_a_stale_release_is_ignored(self, store: Store) -> None:
        """A process that wakes up late must not free its successor's lease."""
        await store.leases.ensure(KIND, NAMES[:1])
        stale = await store.leases.acquire(KIND, IDS.uuid7(), 1, LEASE_SECONDS)
        await store.leases.release(stale)
        (fence,) = await store.leases.acquire(KIND, IDS.uuid7(), 1, LEASE_SECONDS)

        await store.leases.release(stale)

        assert [fence] == list(await store.leases.renew([fence], LEASE_SECONDS))

    async def test_status_tells_owner_epoch_and_expiry_of_every_lease(self, store: Store) -> None:
        """Health lists shards nobody holds."""
        await store.leases.ensure(KIND, NAMES[:2])
        (fence,) = await store.leases.acquire(KIND, IDS.uuid7(), 1, TINY_LEASE_SECONDS)

        async def is_expired() -> bool:
            found = {lease.name: lease for lease in await store.leases.status(KIND)}
            return found[fence.name].is_expired

        held = {lease.name: lease for lease in await store.leases.status(KIND)}[fence.name]
        assert (fence.owner, fence.epoch) == (held.owner, held.epoch)
        assert held.expires_at is not None
        assert held.expires_at.utcoffset() is not None
        await eventually(is_expired)
        assert [] == list(await store.leases.status("nothing-of-this-kind"))

    async def test_a_beating_process_is_listed_as_it_described_itself(self, store: Store) -> None:
        """Peers compute fair shares from it."""
        process = _process()
        draining = replace(process, is_draining=True)

        assert await store.leases.beat(process, LEASE_SECONDS)
        listed = list(await store.leases.processes())
        assert await store.leases.beat(draining, LEASE_SECONDS)

        assert [process] == listed
        assert [draining] == list(await store.leases.processes())

    async def test_an_expired_process_is_not_listed_and_cannot_come_back(self, store: Store) -> None:
        """Its peers have counted it as dead: it starts over under a new id."""
        process = _process()
        await store.leases.beat(process, TINY_LEASE_SECONDS)

        async def is_gone() -> bool:
            return not await store.leases.processes()

        await eventually(is_gone)
        assert not await store.leases.beat(process, LEASE_SECONDS)
        assert [] == list(await store.leases.processes())
        assert await store.leases.beat(replace(process, id=IDS.uuid7()), LEASE_SECONDS)

    async def test_a_last_beat_of_no_length_signs_off(self, store: Store) -> None:
        """A drained process leaves the list at once."""
        process = _process()
        await store.leases.beat(process, LEASE_SECONDS)

        await store.leases.beat(process, 0.0)

        async def is_gone() -> bool:
            return not await store.leases.processes()

        await eventually(is_gone, seconds=1.0)

    async def test_expiry_is_near_now_plus_the_lease(self, store: Store) -> None:
        """A wrong unit (milliseconds, days) would pass every other test."""
        await store.leases.ensure(KIND, NAMES[:1])
        await store.leases.acquire(KIND, IDS.uuid7(), 1, LEASE_SECONDS)

        (lease,) = await store.leases.status(KIND)

        assert lease.expires_at is not None
        assert abs((lease.expires_at - CLOCK.now()).total_seconds() - LEASE_SECONDS) < 10
