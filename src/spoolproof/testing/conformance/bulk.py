"""The contract of `ports.bulk.Bulks`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from spoolproof.message import REPLAY_OF
from spoolproof.ports.bulk import ENDED_EARLY, LIVE, Bulk, Bulks, BulkState, BulkVerb
from spoolproof.ports.dead_letters import DeadLetterFilter, DeadLetterRecord, DeadLetterState
from spoolproof.ports.leases import Fence
from spoolproof.ports.store import Store
from spoolproof.testing.conformance._messages import CLOCK, IDS, make_dead_letter
from spoolproof.testing.conformance._store import LEASE_SECONDS, StoreSuite, ready_rows

OPEN, REPLAYING = DeadLetterState.OPEN, DeadLetterState.REPLAYING
ALL = DeadLetterFilter()


def _bulk(verb: BulkVerb = BulkVerb.REPLAY, *, canary: bool = False, **fields: Any) -> Bulk:
    state = BulkState.CANARY if canary else BulkState.RUNNING
    values = {"actor": "ann", "reason": "bank is back", "state": state, "started_at": CLOCK.now(), **fields}
    return Bulk(id=IDS.message_id(), verb=verb, **values)


async def _fence(store: Store) -> Fence:
    await store.leases.ensure("leader", ["prune"])
    (fence,) = await store.leases.acquire("leader", IDS.uuid7(), 1, LEASE_SECONDS)
    return fence


async def _kept(store: Store, count: int, **fields: Any) -> list[DeadLetterRecord]:
    records = [make_dead_letter(**fields) for _ in range(count)]
    for record in records:
        await store.dead_letters.add(record)
    return records


async def _replayed(store: Store) -> list[str]:
    return sorted(str(row.outgoing.message.headers[REPLAY_OF]) for row in await ready_rows(store))


def _counts(bulk: Bulk | None) -> tuple[BulkState, int, int, int]:
    assert bulk is not None
    return (bulk.state, bulk.total, bulk.moved, bulk.skipped)


@pytest.mark.asyncio
class BulksConformance(StoreSuite):
    """Needs the fixture `store`."""

    async def test_a_bulk_moves_all_that_matched_at_its_start_portion_by_portion(self, store: Store) -> None:
        """Who asked for it, and why, is in the trail of each; what comes later is another's decision."""
        bulks, fence = store.port(Bulks), await _fence(store)
        meant = await _kept(store, 5)
        await _kept(store, 1, consumer="billing")
        bulk = await bulks.start(_bulk(), DeadLetterFilter(consumer="orders"))
        await _kept(store, 1)
        assert [bulk] == list(await bulks.all(10, live=True))

        portions = [_counts(await bulks.work(bulk.id, 2, fence)) for _ in range(3)]

        running, done = BulkState.RUNNING, BulkState.DONE
        assert [(running, 5, 2, 0), (running, 5, 4, 0), (done, 5, 5, 0)] == portions
        assert sorted(record.id for record in meant) == await _replayed(store)
        details = await store.dead_letters.get(meant[0].id)
        assert details is not None
        last = details.audit[-1]
        assert ("replayed", "ann", f"bank is back (bulk {bulk.id})") == (last.verb, last.actor, last.detail)
        assert ([], {REPLAYING: 5}) == (list(await bulks.all(10, live=True)), await bulks.outcomes(bulk.id))
        ended = await bulks.get(bulk.id)
        assert ended is not None
        assert ended.ended_at is not None
        assert [ended] == list(await bulks.all(10))

    async def test_a_canary_goes_alone_until_somebody_says_that_it_succeeded(self, store: Store) -> None:
        """A thousand replays of what is still broken are an outage of their own."""
        bulks, fence = store.port(Bulks), await _fence(store)
        await _kept(store, 3)
        bulk = await bulks.start(_bulk(canary=True), ALL)

        first = await bulks.work(bulk.id, 50, fence)
        waiting = await bulks.work(bulk.id, 50, fence)

        assert first == waiting
        assert first is not None
        assert (BulkState.CANARY, 3, 1, 0) == _counts(first)
        assert [first.canary] == await _replayed(store)
        assert await bulks.change(bulk.id, (BulkState.CANARY,), BulkState.RUNNING, "spoolproof", "it succeeded")
        assert (BulkState.DONE, 3, 3, 0) == _counts(await bulks.work(bulk.id, 50, fence))

    async def test_one_that_was_ended_early_moves_nothing_until_it_is_resumed(self, store: Store) -> None:
        """Cancelled in the middle: what was moved is moved, what was not is as it was, and the sum is right."""
        bulks, fence = store.port(Bulks), await _fence(store)
        await _kept(store, 5)
        bulk = await bulks.start(_bulk(), ALL)
        await bulks.work(bulk.id, 2, fence)

        assert await bulks.change(bulk.id, LIVE, BulkState.CANCELLED, "bob", "wrong group")
        assert not await bulks.change(bulk.id, LIVE, BulkState.CANCELLED, "eve", "me too")

        assert (BulkState.CANCELLED, 5, 2, 0) == _counts(await bulks.work(bulk.id, 50, fence))
        assert ([], 2) == (list(await bulks.all(10, live=True)), len(await ready_rows(store)))
        assert await bulks.change(bulk.id, ENDED_EARLY, BulkState.CANARY, "ann", "right after all")
        assert (BulkState.CANARY, 5, 3, 0) == _counts(await bulks.work(bulk.id, 50, fence))
        now = await bulks.get(bulk.id)
        assert now is not None
        steps = [(step.verb, step.actor, step.detail) for step in now.history]
        assert [("cancelled", "bob", "wrong group"), ("resumed", "ann", "right after all")] == steps

    async def test_two_people_who_replay_one_selection_move_each_once(self, store: Store) -> None:
        """Both saw the same page; each count says what that person's did."""
        bulks, fence = store.port(Bulks), await _fence(store)
        await _kept(store, 6)
        both = [await bulks.start(_bulk(actor=actor), ALL) for actor in ("ann", "bob")]

        for _ in range(3):
            await asyncio.gather(*(bulks.work(bulk.id, 2, fence) for bulk in both))
        ends = [await bulks.work(bulk.id, 2, fence) for bulk in both]

        assert 6 == len(set(await _replayed(store))) == len(await ready_rows(store))
        assert [6, 6] == [end.moved + end.skipped for end in ends if end is not None]
        assert 6 == sum(end.moved for end in ends if end is not None)

    async def test_work_under_a_stale_fence_changes_nothing(self, store: Store) -> None:
        """A process that was frozen past its lease wakes up; another one has the lead."""
        bulks, stale = store.port(Bulks), await _fence(store)
        await _kept(store, 2)
        bulk = await bulks.start(_bulk(), ALL)
        await store.leases.release([stale])
        fence = await _fence(store)

        assert await bulks.work(bulk.id, 50, stale) is None

        assert (bulk, []) == (await bulks.get(bulk.id), await _replayed(store))
        done = [_counts(one) for one in await asyncio.gather(*(bulks.work(bulk.id, 50, fence) for _ in range(3)))]
        assert [(BulkState.DONE, 2, 2, 0)] * 3 == done
        assert 2 == len(await ready_rows(store))

    async def test_a_bulk_may_discard(self, store: Store) -> None:
        """A thousand test events, closed with one reason; open and replaying ones alike."""
        bulks, fence = store.port(Bulks), await _fence(store)
        records = await _kept(store, 3)
        await store.dead_letters.replay(records[0].id, "ann", "fixed")
        bulk = await bulks.start(_bulk(BulkVerb.DISCARD), ALL)

        assert (BulkState.DONE, 3, 3, 0) == _counts(await bulks.work(bulk.id, 50, fence))

        assert 3 == len(await store.dead_letters.search(DeadLetterFilter(state=DeadLetterState.DISCARDED)))

    async def test_a_bulk_is_about_what_its_verb_may_move(self, store: Store) -> None:
        """Replaying ones are left alone unless that is forced; a selection is by id; nothing at all is done at once."""
        bulks, fence = store.port(Bulks), await _fence(store)
        one, other, third = await _kept(store, 3)
        await store.dead_letters.replay(one.id, "ann", "fixed")

        async def total(filter: DeadLetterFilter, **fields: Any) -> int:
            return (await bulks.start(_bulk(**fields), filter)).total

        assert 2 == await total(ALL)
        assert 3 == await total(ALL, is_forced=True)
        assert 1 == await total(DeadLetterFilter(ids=(other.id, one.id)))
        nothing = await bulks.start(_bulk(), DeadLetterFilter(consumer="nobody"))
        assert (BulkState.DONE, 0, 0, 0) == _counts(nothing)
        moved = await bulks.start(_bulk(queue="orders-v2"), DeadLetterFilter(ids=(third.id,)))
        await bulks.work(moved.id, 50, fence)
        (row,) = [row for row in await ready_rows(store) if row.outgoing.message.id == third.message.id]
        assert "queue:orders-v2" == str(row.outgoing.destination)

    @pytest.mark.parametrize("id", ["", "nothing", "00000000-0000-7000-8000-000000000000"])
    async def test_an_unknown_bulk_is_nothing_and_no_error(self, store: Store, id: str) -> None:
        """An operator mistypes."""
        bulks = store.port(Bulks)
        fence = Fence(kind="leader", name="prune", owner=UUID(int=1), epoch=1)

        assert await bulks.get(id) is None
        assert await bulks.work(id, 1, fence) is None
        assert not await bulks.change(id, LIVE, BulkState.CANCELLED, "ann", "x")

    async def test_ended_ones_are_pruned_by_age(self, store: Store) -> None:
        """With what they were about; one that is live never goes."""
        bulks = store.port(Bulks)
        await _kept(store, 1)
        live = await bulks.start(_bulk(), ALL)
        old: Sequence[Bulk] = [
            await bulks.start(_bulk(started_at=CLOCK.now() - timedelta(days=days)), DeadLetterFilter(consumer="nobody"))
            for days in (40, 1)
        ]

        await store.retention.prune(lambda rule: rule.seconds if isinstance(rule.seconds, float) else 1e9, 100)

        assert [old[1], live] == list(reversed(await bulks.all(10)))
