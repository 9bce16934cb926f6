"""`service.test()`: what a user's test sees of a service, and how it waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import pytest

from spoolproof import Delivery, Service, Transaction, event
from spoolproof.errors import RegistrationError
from spoolproof.policies import Policy, Retry
from spoolproof.testing.app import StillMoving
from spoolproof.testing.clock import ManualClock


@event("order.placed")
class OrderPlaced(msgspec.Struct):
    id: str
    cents: int = 0


@event("payment.taken")
class PaymentTaken(msgspec.Struct):
    order_id: str


def shop(behaviour: Callable[[Delivery], None] = lambda delivery: None) -> Service:
    service = Service("shop")

    @service.on(OrderPlaced)
    async def take_payment(order: OrderPlaced, delivery: Delivery, tx: Transaction) -> None:
        behaviour(delivery)
        await tx.publish(PaymentTaken(order.id), key=order.id)

    return service


def fails(times: int, attempts: list[int]) -> Callable[[Delivery], None]:
    def behave(delivery: Delivery) -> None:
        attempts.append(delivery.attempt)
        if delivery.attempt <= times:
            raise RuntimeError("the bank said no")

    return behave


async def test_what_was_published_is_handled_and_what_handlers_publish_is_seen() -> None:
    """The whole path in one process, without a server and without a wait."""
    async with shop().test() as app:
        await app.publish(OrderPlaced("o-1", 1250))
        await app.settled()

        assert [OrderPlaced("o-1", 1250)] == app.published(OrderPlaced)
        assert [PaymentTaken("o-1")] == app.published(PaymentTaken)
        assert [{"order_id": "o-1"}] == app.published("payment.taken")
        assert ["order.placed", "payment.taken"] == [message.type for message in app.messages]
        assert () == app.dead_letters


async def test_retries_come_when_the_test_lets_time_pass() -> None:
    """21 minutes of delays are tested in a moment, each at its own."""
    attempts: list[int] = []
    async with shop(fails(3, attempts)).test() as app:
        await app.publish(OrderPlaced("o-1"))
        await app.settled()
        assert [1, 2] == attempts  # the second follows at once, in place

        await app.advance(0.9)
        assert [1, 2] == attempts
        await app.advance(0.2)
        assert [1, 2, 3] == attempts

        await app.advance(5)
        assert [1, 2, 3, 4] == attempts
        assert [PaymentTaken("o-1")] == app.published(PaymentTaken)


async def test_a_message_given_up_on_is_among_the_dead_letters() -> None:
    """With what made it one; and the whole of the default delays passes quickly."""
    attempts: list[int] = []
    async with shop(fails(99, attempts)).test() as app:
        await app.publish(OrderPlaced("o-1"))

        await app.advance(22 * 60)

        (letter,) = app.dead_letters
        assert ("handler", "the bank said no", 8) == (letter.reason, letter.error, len(attempts))
        assert [] == app.published(PaymentTaken)


async def test_handlers_with_sql_run_on_sqlite() -> None:
    """Effects and events commit together there as in production, and retries keep their time."""
    service = Service("shop")
    attempts = 0

    @service.on(OrderPlaced)
    async def take_payment(order: OrderPlaced, tx: Transaction) -> None:
        nonlocal attempts
        attempts += 1
        await tx.execute("insert into payment values ($1)", order.id)
        if attempts < 4:
            raise RuntimeError("after the insert")

    async with service.test(store="sqlite") as app:
        async with app.transaction() as tx:
            await tx.execute("create table payment (order_id text)")
            await tx.publish(OrderPlaced("o-1"))
        await app.settled()
        assert 2 == attempts
        await app.advance(60)

        async with app.transaction() as tx:
            assert [{"order_id": "o-1"}] == list(await tx.fetch("select * from payment"))
        assert 4 == attempts


async def test_a_handler_that_does_not_end_is_named_by_the_one_who_waits() -> None:
    """A test that hangs without a word costs an afternoon."""
    service = Service("shop")

    @service.on(OrderPlaced)
    async def hang(order: OrderPlaced) -> None:
        await asyncio.Event().wait()

    async with service.test() as app:
        await app.publish(OrderPlaced("o-1"))

        with pytest.raises(StillMoving, match=r"handlers of queue 'shop\.hang' run"):
            await app.settled(0.05)


async def test_what_a_handler_waits_for_outside_takes_its_own_time() -> None:
    """No time limit fires because the clock ran ahead of a real wait."""
    service = Service("shop")
    done: list[str] = []

    @service.on(OrderPlaced, timeout=0.5)
    async def slow(order: OrderPlaced) -> None:
        await asyncio.to_thread(lambda: None)
        await asyncio.sleep(0.02)
        done.append(order.id)

    async with service.test() as app:
        await app.publish(OrderPlaced("o-1"))
        await app.settled()

        assert ["o-1"] == done


async def test_a_time_limit_fires_when_the_test_lets_it() -> None:
    service = Service("shop")
    attempts: list[int] = []

    @service.on(OrderPlaced, timeout=30, attempts=1)
    async def hang(order: OrderPlaced, delivery: Delivery) -> None:
        attempts.append(delivery.attempt)
        await asyncio.Event().wait()

    async with service.test() as app:
        await app.publish(OrderPlaced("o-1"))
        await app.advance(31)

        assert ["TimeoutError"] == [letter.error_class for letter in app.dead_letters]


async def test_policies_in_handlers_go_by_the_clock_of_the_test() -> None:
    """Their back-off costs no real time."""
    policy = Policy("bank-of-this-test", Retry(attempts=3), idempotent=True)
    service = Service("shop")
    calls = 0

    @policy
    async def charge() -> None:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise ConnectionResetError

    @service.on(OrderPlaced)
    async def take_payment(order: OrderPlaced) -> None:
        await charge()

    async with service.test() as app:
        await app.publish(OrderPlaced("o-1"))
        await app.advance(10)

        assert 3 == calls
        assert () == app.dead_letters


async def test_each_test_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left of the one before, and the environment is read again; what it says of store and broker is not
    what a test uses."""
    service = shop()
    monkeypatch.setenv("SPOOLPROOF_STORE", "postgresql://production/shop")
    monkeypatch.setenv("SPOOLPROOF_BROKER", "amqp://production")
    for rows_max in ("10", "20"):
        monkeypatch.setenv("SPOOLPROOF_OUTBOX_ROWS_MAX", rows_max)
        async with service.test() as app:
            assert (int(rows_max), "memory://") == (service.settings.outbox_rows_max, service.settings.store_url)
            assert () == tuple(app.messages)
            await app.publish(OrderPlaced("o-1"))
            await app.settled()
            assert [PaymentTaken("o-1")] == app.published(PaymentTaken)


async def test_a_clock_that_is_given_is_used() -> None:
    clock = ManualClock()
    async with shop().test(clock=clock) as app:
        await app.advance(5)

        assert clock is app.clock
        assert 5 == pytest.approx(clock.monotonic(), abs=0.1)


async def test_a_store_that_no_test_can_use_is_refused() -> None:
    with pytest.raises(RegistrationError, match="memory, sqlite"):
        async with shop().test(store="postgres"):  # type: ignore[arg-type]
            raise AssertionError
