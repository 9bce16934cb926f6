"""The contract of `ports.schedule.Schedule`."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import msgspec
import pytest

from spoolproof import limits
from spoolproof.errors import ScheduleFull
from spoolproof.message import Outgoing
from spoolproof.ports.schedule import Promotion, Schedule
from spoolproof.ports.store import Store
from spoolproof.testing.conformance._messages import CLOCK, make_outgoing
from spoolproof.testing.conformance._store import StoreSuite, ready_ids, ready_rows, rolled_back
from spoolproof.testing.conformance._wait import eventually

OWN = "conformance"
HOUR = timedelta(hours=1)


@pytest.mark.asyncio
class ScheduleConformance(StoreSuite):
    """Needs the fixture `store`, made with the ports of `wiring`."""

    async def test_what_is_due_moves_to_the_outbox_in_the_order_of_its_time(self, store: Store) -> None:
        """What was planned first goes first, whoever wrote first; of two at one time the first written goes first."""
        schedule = await _schedule(store)
        now = CLOCK.now()
        due = [_due(now - timedelta(seconds=seconds), key="one") for seconds in (5, 9, 5, 7)]
        later = _due(now + HOUR)

        await schedule.add([*due, later], None)
        promoted = await schedule.promote(OWN, 100)
        again = await schedule.promote(OWN, 100)

        assert [due[1], due[3], due[0], due[2]] == [
            msgspec.structs.replace(row.outgoing, due=outgoing.due)
            for row, outgoing in zip(await ready_rows(store), (due[1], due[3], due[0], due[2]), strict=True)
        ]
        assert (4, 9) == (promoted.rows, int(promoted.late_seconds))
        assert Promotion(rows=0, late_seconds=0.0) == again
        assert [later.message] == [row.outgoing.message for row in await schedule.search(OWN, 10)]

    async def test_a_promotion_moves_so_many_and_leaves_the_rest(self, store: Store) -> None:
        """A backlog of a weekend must not hold the store up."""
        schedule = await _schedule(store)
        due = [_due(CLOCK.now() - timedelta(seconds=9 - n)) for n in range(5)]
        await schedule.add(due, None)

        moved = [(await schedule.promote(OWN, 2)).rows for _ in range(4)]

        assert [2, 2, 1, 0] == moved
        assert {one.message.id for one in due} == set(await ready_ids(store))

    async def test_a_delay_goes_by_the_clock_of_the_store(self, store: Store) -> None:
        """Machines disagree about the time, and one of them is asked."""
        schedule = await _schedule(store)
        await schedule.add([msgspec.structs.replace(make_outgoing(), due=HOUR)], None)

        (row,) = await schedule.search(None, 10)

        assert timedelta(seconds=-1) < row.due_at - row.created_at - HOUR < timedelta(seconds=1)
        assert (OWN, 1) == (row.service, await schedule.count(OWN))

    async def test_rows_of_a_transaction_appear_when_it_commits_and_not_before(self, store: Store) -> None:
        """A reminder of an order that was never placed is worse than none."""
        schedule = await _schedule(store)
        async with rolled_back(store) as tx:
            await schedule.add([_due(CLOCK.now() - HOUR)], tx)
        kept = _due(CLOCK.now() - HOUR)
        async with store.transaction() as tx:
            await schedule.add([kept], tx)

        await schedule.promote(OWN, 10)

        assert [kept.message.id] == await ready_ids(store)

    async def test_what_is_cancelled_never_moves_and_what_moved_is_not_cancelled(self, store: Store) -> None:
        """The answer is what the caller tells the customer."""
        schedule = await _schedule(store)
        moved, cancelled, kept = (_due(CLOCK.now() - HOUR), _due(CLOCK.now() - HOUR), _due(CLOCK.now() + HOUR))
        await schedule.add([cancelled, moved, kept], None)

        first = await schedule.cancel(cancelled.message.id, OWN)
        await schedule.promote(OWN, 10)
        others = [await schedule.cancel(one.message.id, OWN) for one in (cancelled, moved)]
        foreign = await schedule.cancel(kept.message.id, "another")
        async with rolled_back(store) as tx:
            await schedule.cancel(kept.message.id, OWN, tx)

        assert (1, [0, 0], 0) == (first, others, foreign)
        assert [moved.message.id] == await ready_ids(store)
        assert 1 == await schedule.cancel(kept.message.id, None)

    async def test_of_moving_and_cancelling_exactly_one_succeeds(self, store: Store) -> None:
        """Both at the same moment, again and again, with two processes that promote."""
        schedule = await _schedule(store)
        rows = [_due(CLOCK.now() - HOUR) for _ in range(60)]
        await schedule.add(rows, None)

        async def promote() -> int:
            moved = 0
            while promoted := (await schedule.promote(OWN, 3)).rows:
                moved += promoted
            return moved

        answers = await asyncio.gather(
            promote(), promote(), *(schedule.cancel(one.message.id, OWN) for one in reversed(rows))
        )
        moved_after = await promote()

        cancelled = [one.message.id for one, count in zip(reversed(rows), answers[2:], strict=True) if count]
        there = await ready_ids(store)
        assert len(there) == len(set(there)) == sum(answers[:2]) + moved_after
        assert {one.message.id for one in rows} == {*there, *cancelled}
        assert not set(there) & set(cancelled)
        assert 0 == await schedule.count(OWN)

    async def test_another_service_moves_only_its_own(self, store: Store) -> None:
        """Its broker may be another one."""
        schedule = await _schedule(store)
        await schedule.add([_due(CLOCK.now() - HOUR)], None)

        assert 0 == (await schedule.promote("another", 10)).rows
        assert 0 == await schedule.count("another")

    async def test_no_more_are_taken_than_the_limit_allows(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        """A loop that schedules must not fill the database."""
        monkeypatch.setattr(limits, "SCHEDULED_ROWS_MAX", 3)
        schedule = await _schedule(store)
        await schedule.add([_due(CLOCK.now() + HOUR) for _ in range(3)], None)

        async def is_full() -> bool:
            try:
                await schedule.add([_due(CLOCK.now() + HOUR)], None)
            except ScheduleFull as error:
                return (error.current, error.maximum) == (3, 3)
            return False

        await eventually(is_full)
        assert 3 == await schedule.count(OWN)


async def _schedule(store: Store) -> Schedule:
    await store.services.claim(OWN)
    return store.port(Schedule)


def _due(at: datetime, key: str | None = None) -> Outgoing:
    return msgspec.structs.replace(make_outgoing(key=key), due=at)
