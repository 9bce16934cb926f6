"""`publish(at=…)`, `publish(delay=…)` and `cancel`, through a whole service on a clock in the test's hand."""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec
import pytest

from spoolproof import (
    Defer,
    Delivery,
    InvalidSchedule,
    Place,
    Receipt,
    RetryLater,
    Service,
    SyncTransaction,
    Transaction,
    event,
)
from spoolproof.ports.schedule import Schedule

pytestmark = pytest.mark.parametrize("store", ["memory", "sqlite"])
Store = Literal["memory", "sqlite"]
MINUTE, YEAR = timedelta(minutes=1), timedelta(days=366)


@event("shop.order.placed")
class OrderPlaced(msgspec.Struct):
    n: int


@event("shop.reminder")
class Reminder(msgspec.Struct):
    n: int


def shop() -> tuple[Service, list[int]]:
    service = Service("shop")
    reminded: list[int] = []

    @service.on(Reminder)
    async def remind(reminder: Reminder) -> None:
        reminded.append(reminder.n)

    return service, reminded


async def test_a_message_comes_when_it_is_due_and_at_most_two_seconds_later(store: Store) -> None:
    """Neither the clock of the machine nor patience has anything to do with it."""
    service, reminded = shop()
    async with service.test(store=store) as app:
        receipts = [
            await app.publish(Reminder(1), at=app.clock.now() + MINUTE),
            await app.publish(Reminder(2), delay=30),
            await app.publish(Reminder(3), delay=timedelta(minutes=2)),
            await app.publish(Reminder(4), at=app.clock.now() - MINUTE, key="now"),
            await app.publish(Reminder(5), delay=0, key="now"),
        ]
        await app.settled()
        at_once = list(reminded)
        await app.advance(29)
        before = list(reminded)
        await app.advance(3)
        half = list(reminded)
        await app.advance(120)

    assert [Place.SCHEDULED] * 3 + [Place.STORED] * 2 == [receipt.place for receipt in receipts]
    assert [4, 5] == at_once == before
    assert [4, 5, 2] == half
    assert [4, 5, 2, 1, 3] == reminded


async def test_what_is_cancelled_in_time_never_comes(store: Store) -> None:
    """False says that it is too late, or that there was nothing."""
    service, reminded = shop()
    async with service.test(store=store) as app:
        kept = await app.publish(Reminder(1), delay=10)
        taken = await app.publish(Reminder(2), delay=10)

        answers = [await service.cancel(taken.id), await service.cancel(taken.id), await service.cancel("unknown")]
        await app.advance(15)
        too_late = await service.cancel(kept.id)

    assert ([True, False, False], False) == (answers, too_late)
    assert [1] == reminded


async def test_a_handler_schedules_and_cancels_with_its_own_transaction(store: Store) -> None:
    """What a failed attempt planned must not come, and what it cancelled must."""
    service, reminded = shop()
    planned: list[Receipt] = []
    answers: list[bool] = []

    @service.on(OrderPlaced, attempts=2)
    async def order(order: OrderPlaced, delivery: Delivery, tx: Transaction) -> None:
        receipt = await service.publish(Reminder(order.n), delay=5)
        if order.n == 1:
            answers.append(await tx.cancel(receipt.id))
            answers.append(await service.cancel(planned[0].id))
            if delivery.attempt == 1:
                raise RuntimeError("the first attempt fails")
            await tx.publish(Reminder(9), delay=5)

    @service.on("shop.plain")
    async def plain(order: dict[str, Any]) -> None:
        receipt = await service.publish(Reminder(20), delay=5)
        answers.append(await service.cancel(receipt.id))
        await service.publish(Reminder(21), delay=5)

    @service.on("shop.sync")
    def sync(order: dict[str, Any], tx: SyncTransaction) -> None:
        receipt = service.publish_sync(Reminder(30), delay=5)
        answers.append(tx.cancel(receipt.id))
        tx.publish(Reminder(31), delay=5)

    async with service.test(store=store) as app:
        planned.append(await app.publish(Reminder(100), delay=50))
        await app.publish(OrderPlaced(1))
        await app.publish({}, type="shop.plain")
        await app.publish({}, type="shop.sync")
        await app.settled()
        await app.advance(60)

    assert [True, True, True, True, True, True] == answers
    assert [9, 21, 31] == sorted(reminded)


async def test_a_message_waits_with_everything_it_was_published_with(store: Store) -> None:
    """It is the same message, only later; what expires does so counted from when it is due."""
    service, _ = shop()
    async with service.test(store=store) as app:
        receipt = await app.publish(
            Reminder(1), delay=60, expires=30, key="k", headers={"a": 1}, subject="s", id="order-1"
        )
        (row,) = await service.runtime.store.port(Schedule).search("shop", 10)
        due_at = app.clock.now() + MINUTE
        await app.advance(62)
        (message,) = app.messages

    assert ("order-1", "k", {"a": 1}, "s") == (receipt.id, message.key, message.headers, message.subject)
    assert row.outgoing.message == message
    assert due_at + timedelta(seconds=30) == message.expires_at


async def test_a_time_nobody_can_keep_is_refused_with_the_remedy(store: Store) -> None:
    """In the caller's own call, naming what was given."""
    service, _ = shop()
    async with service.test(store=store) as app:
        now = app.clock.now()
        wrong: list[tuple[dict[str, Any], str]] = [
            ({"at": datetime(2026, 3, 1)}, "at=datetime.datetime(2026, 3, 1, 0, 0): has no time zone"),
            ({"at": now + YEAR + MINUTE}, "more than 366 days ahead"),
            ({"at": 5}, "at=5: must be an aware datetime; for seconds from now there is delay="),
            ({"at": now, "delay": 1}, "delay=1: stands beside at="),
            ({"delay": -1}, "delay=-1: is negative"),
            ({"delay": YEAR + MINUTE}, "more than 366 days"),
            ({"delay": float("nan")}, "delay=nan: must be seconds or a timedelta"),
            ({"delay": True}, "delay=True: must be seconds or a timedelta"),
            ({"delay": 60, "expires": now}, "is before the message is due"),
        ]
        for options, reason in wrong:
            with pytest.raises(InvalidSchedule) as caught:
                await service.publish(Reminder(1), **options)
            assert reason in str(caught.value)
        await app.publish(Reminder(1), at=datetime(2100, 1, 1, tzinfo=UTC) - (datetime(2100, 1, 1, tzinfo=UTC) - now))


async def test_a_handler_that_wants_to_wait_for_longer_than_any_delay_queue_waits_in_the_schedule(
    store: Store,
) -> None:
    """With its count and its history; the longest delay queue is six hours."""
    service = Service("shop")
    ran: list[tuple[int, timedelta]] = []

    async with AsyncExitStack() as running:

        @service.on(OrderPlaced)
        async def order(order: OrderPlaced, delivery: Delivery) -> None:
            ran.append((delivery.attempt, app.clock.now() - start))
            if delivery.attempt == 1:
                raise RetryLater(timedelta(days=3))
            if len(ran) == 2:
                raise Defer(timedelta(days=3))

        app = await running.enter_async_context(service.test(store=store))
        schedule, start = service.runtime.store.port(Schedule), app.clock.now()
        await app.publish(OrderPlaced(1))
        await app.settled()
        for _ in range(2):
            (row,) = await schedule.search("shop", 10)
            app.clock.move_wall((row.due_at - app.clock.now()).total_seconds())
            await app.advance(3)

        assert [1, 2, 2] == [attempt for attempt, _ in ran]
        assert [0, 3, 6] == [since.days for _, since in ran]
        assert 1 == len(app.messages)
        assert () == app.dead_letters
