"""`@service.every` and `@service.cron`, through a whole service on a clock in the test's hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest

from spoolproof import Delivery, RegistrationError, Service, Transaction
from spoolproof.ids import Ids
from spoolproof.lifecycle.membership import Holding
from spoolproof.outbox.publish import Publisher
from spoolproof.ports.leases import Fence
from spoolproof.ports.recurring import Recurring
from spoolproof.schedules.expression import next_time
from spoolproof.schedules.part import SchedulesPart
from spoolproof.schedules.runs import LEAD, Declared, Runs
from spoolproof.stores.memory import MemoryStore
from spoolproof.testing.clock import ManualClock
from spoolproof.wiring import PORTS

Store = Literal["memory", "sqlite"]
STORES = pytest.mark.parametrize("store", ["memory", "sqlite"])
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@STORES
async def test_a_function_runs_once_a_period_as_a_message_of_its_own(store: Store) -> None:
    """With its transaction, in a thread if it is a plain function, and with the id of its time."""
    service = Service("shop")
    ran: list[str] = []

    @service.every("5m")
    async def sweep(delivery: Delivery, tx: Transaction) -> None:
        ran.append(delivery.message.id)

    @service.every(timedelta(minutes=10), queue="shop.tidy")
    def tidy() -> None:
        ran.append("tidy")

    async with service.test(store=store, clock=ManualClock(NOON)) as app:
        await app.advance(302)
        first = list(ran)
        await app.advance(602)

    assert ["shop.sweep@2026-01-01T12:05:00+00:00"] == first
    assert [1, 3] == [ran.count("tidy"), len([one for one in ran if "sweep" in one])]


@STORES
async def test_a_run_that_fails_is_retried_and_kept_and_the_next_one_comes(store: Store) -> None:
    """A bad night is no reason to end the nights."""
    service = Service("shop")
    attempts: list[int] = []

    @service.cron("0 3 * * *", zone="Europe/Berlin", attempts=2)
    async def nightly(delivery: Delivery) -> None:
        attempts.append(delivery.attempt)
        if len(attempts) <= 2:
            raise RuntimeError("the bank is closed")

    async with service.test(store=store, clock=ManualClock(datetime(2026, 1, 1, 1, 59, tzinfo=UTC))) as app:
        await app.advance(120)
        (letter,) = app.dead_letters
        (row,) = (await service.runtime.store.port(Recurring).find(None)).rows

        assert ("shop.nightly", [1, 2]) == (letter.consumer, attempts)
        assert ("cron 0 3 * * * Europe/Berlin", "open") == (row.expression, row.outcome)
        assert datetime(2026, 1, 1, 2, tzinfo=UTC) == row.last_at
        assert datetime(2026, 1, 2, 2, tzinfo=UTC) == row.next_at


@STORES
async def test_what_was_missed_while_the_broker_was_away_comes_once(store: Store) -> None:
    """Ten runs at once would be an outage of their own."""
    service = Service("shop")
    ran: list[str] = []

    @service.every("1m")
    async def sweep(delivery: Delivery) -> None:
        ran.append(delivery.message.id[-14:-6])

    async with service.test(store=store, clock=ManualClock(NOON)) as app:
        recurring = service.runtime.store.port(Recurring)
        runs = service.runtime.part(SchedulesPart)._runs
        connected, runs._is_connected = runs._is_connected, lambda: False
        await app.advance(630)
        while_away = list(ran)
        runs._is_connected = connected
        await app.advance(65)
        (row,) = (await recurring.find("shop")).rows

    assert [] == while_away
    assert ["12:01:00", "12:11:00"] == ran
    assert ("handled", datetime(2026, 1, 1, 12, 12, tzinfo=UTC)) == (row.outcome, row.next_at)


@pytest.mark.parametrize(
    ("expression", "before", "now", "after"),
    [
        ("every 5m", None, "2026-01-01T12:00", "2026-01-01T12:05"),
        ("every 5m", "2026-01-01T12:00", "2026-01-01T12:00", "2026-01-01T12:05"),
        ("every 5m", "2026-01-01T12:00", "2026-01-01T14:01", "2026-01-01T14:05"),
        ("cron 30 2 * * * Europe/Berlin", "2026-03-28T01:30", "2026-03-28T01:30", "2026-03-29T01:00"),
        ("cron 30 2 * * * Europe/Berlin", "2026-03-29T01:00", "2026-03-29T01:00", "2026-03-30T00:30"),
        ("cron 30 2 * * * Europe/Berlin", "2026-10-25T00:30", "2026-10-25T01:10", "2026-10-26T01:30"),
        ("cron 30 2 * * * Europe/Berlin", None, "2026-10-25T01:10", "2026-10-26T01:30"),
        ("cron 0 0 29 2 * UTC", None, "2026-01-01T00:00", "2028-02-29T00:00"),
        ("cron * * * * * UTC", "2020-01-01T00:00", "2026-01-01T00:00", "2026-01-01T00:01"),
    ],
)
def test_the_next_time_is_the_first_after_now(expression: str, before: str | None, now: str, after: str) -> None:
    """A time that does not exist comes right after; one that exists twice comes once, whenever it is asked for."""
    was = None if before is None else datetime.fromisoformat(before).replace(tzinfo=UTC)

    found = next_time(expression, was, datetime.fromisoformat(now).replace(tzinfo=UTC))

    assert datetime.fromisoformat(after).replace(tzinfo=UTC) == found


def test_what_cannot_be_served_is_refused_at_the_decorator() -> None:
    """With what was written, and what may be."""
    service = Service("shop")
    wrong: list[tuple[Any, str]] = [
        (lambda: service.every("5 minutes"), "'5 minutes'): '30s', '5m', '2h', '1d', seconds or a timedelta"),
        (lambda: service.every(0.5), "from 1 s to 366 days"),
        (lambda: service.cron("61 * * * *"), "Bad minute; five fields"),
        (lambda: service.cron("* * * * * *"), "five fields, minute hour day month weekday"),
        (lambda: service.cron("0 3 * * *", zone="Mars/Olympus"), "no such time zone here"),
        (lambda: service.every("5m", attempts=0)(lambda: None), "attempts=0"),
    ]

    for declare, reason in wrong:
        with pytest.raises(RegistrationError) as caught:
            declare()
        assert reason in str(caught.value)


async def test_a_deploy_changes_what_it_changes_and_leaves_nothing_of_what_it_dropped() -> None:
    """Old and new processes side by side, then the new ones alone."""
    clock = ManualClock(NOON)
    store = MemoryStore(clock=clock, ids=Ids(clock), outbox_rows_max=1000, ports=PORTS)
    await store.start()
    await store.services.claim("shop")
    recurring = store.port(Recurring)
    lead = Holding("schedule/shop", [LEAD], clock, 1e9)
    lead.add([Fence(kind="schedule/shop", name=LEAD, owner=Ids(clock).uuid7(), epoch=1)], 0.0)
    publisher = Publisher(store, source="shop", clock=clock, ids=Ids(clock))

    def process(**expressions: str) -> Runs:
        declared = Declared()
        declared.expressions = expressions
        return Runs("shop", declared, recurring, publisher, lead, is_connected=lambda: True, clock=clock)

    async def pass_by(seconds: float, *processes: Runs) -> dict[str, tuple[str, datetime]]:
        for _ in range(int(seconds // 5)):
            await clock.advance(5)
            for one in processes:
                await one.turn()
        return {row.name: (row.expression, row.next_at) for row in (await recurring.find("shop")).rows}

    old, new = (
        process(changed="every 1h", dropped="every 10s", kept="every 1h"),
        process(changed="every 2h", kept="every 1h"),
    )
    await old.declare(is_first=True)
    await pass_by(60, old)
    await new.declare(is_first=True)
    beside = await pass_by(60, old, new)
    rows_beside = (await store.outbox.backlog()).rows
    await pass_by(20, new)
    rows_after = (await store.outbox.backlog()).rows
    alone = await pass_by(400, new)

    assert ("every 2h", NOON + timedelta(seconds=60, hours=2)) == beside["changed"] == alone["changed"]
    assert ("every 1h", NOON + timedelta(hours=1)) == beside["kept"] == alone["kept"]
    assert ["changed", "kept"] == sorted(alone)
    assert rows_after - rows_beside <= 2
    assert rows_after == (await store.outbox.backlog()).rows
    await store.stop()
