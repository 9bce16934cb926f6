"""`@service.every` and `@service.cron`, through a whole service on a clock in the test's hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest

from spoolproof import Delivery, RegistrationError, Service, Transaction
from spoolproof.ports.recurring import Recurring
from spoolproof.schedules.expression import next_time
from spoolproof.testing.clock import ManualClock

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
    """Sixty runs at once would be an outage of their own."""
    service = Service("shop")
    ran: list[str] = []

    @service.every("1m")
    async def sweep(delivery: Delivery) -> None:
        ran.append(delivery.message.id[-14:-6])

    async with service.test(store=store, clock=ManualClock(NOON)) as app:
        recurring = service.runtime.store.port(Recurring)
        runs = next(loop for loop in service.runtime._loops if loop.name == "schedules.runs")
        connected, runs._is_connected = runs._is_connected, lambda: False  # type: ignore[attr-defined]
        await app.advance(3630)
        while_away = list(ran)
        runs._is_connected = connected  # type: ignore[attr-defined]
        await app.advance(65)
        (row,) = (await recurring.find("shop")).rows

    assert [] == while_away
    assert ["12:01:00", "13:01:00"] == ran
    assert ("handled", datetime(2026, 1, 1, 13, 2, tzinfo=UTC)) == (row.outcome, row.next_at)


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
