"""Handlers that are plain functions: their threads, their transaction, and what becomes of one that does not end."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from spoolproof import Delivery, NotInTransaction, Service, SyncTransaction, event
from spoolproof.consumer.events import THREADS_ABANDONED
from spoolproof.consumer.part import ConsumerPart
from spoolproof.settings import Settings
from spoolproof.testing.app import App

tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")


@event("order.placed")
class OrderPlaced(msgspec.Struct):
    id: str


@event("payment.taken")
class PaymentTaken(msgspec.Struct):
    order_id: str


def shop(function: Callable[..., Any], threads: int = 40, **options: Any) -> Service:
    service = Service("shop", settings=Settings(consumer_threads=threads))
    service.on(OrderPlaced, queue="orders", **options)(function)
    return service


async def rows(app: App) -> list[str]:
    async with app.transaction() as tx:
        return [row["id"] for row in await tx.fetch("select id from payment order by id")]


async def make_table(app: App) -> None:
    async with app.transaction() as tx:
        await tx.execute("create table payment (id text)")


async def test_a_plain_function_runs_in_a_thread_with_a_transaction_of_its_attempt() -> None:
    """Its rows, its events and its inbox row are one commit, as an async one's are."""
    threads: list[threading.Thread] = []

    def take_payment(order: OrderPlaced, tx: SyncTransaction, delivery: Delivery) -> None:
        threads.append(threading.current_thread())
        assert 1 == tx.execute("insert into payment values ($1)", order.id)
        assert {"id": order.id} == tx.fetch_one("select id from payment where id = $1", order.id)
        with pytest.raises(ZeroDivisionError), tx.savepoint():
            tx.execute("insert into payment values ('undone')")
            tx.publish(PaymentTaken("undone"))
            raise ZeroDivisionError
        with tx.savepoint():
            tx.publish(PaymentTaken(order.id), key=order.id)
        if delivery.attempt == 1:
            raise RuntimeError("all of it rolls back")

    async with shop(take_payment).test(store="sqlite") as app:
        await make_table(app)
        await app.publish(OrderPlaced("o-1"))
        await app.settled()

        assert ["o-1"] == await rows(app)
        assert [PaymentTaken("o-1")] == app.published(PaymentTaken)
        assert [threads[0]] * 2 == threads  # kept: a connection of Django's hangs on it
        assert threading.main_thread() not in threads


async def test_many_run_side_by_side_and_no_more_than_there_are_threads() -> None:
    """What blocks in one handler holds up no other, and a thousand messages make no thousand threads."""
    together = threading.Barrier(3, timeout=5)
    running: list[int] = []
    lock = threading.Lock()

    def wait_for_each_other(order: OrderPlaced) -> None:
        with lock:
            running.append(1)
            assert len(running) <= 3
        together.wait()
        with lock:
            running.pop()

    async with shop(wait_for_each_other, threads=3, concurrency=9).test() as app:
        for n in range(9):
            await app.publish(OrderPlaced(f"o-{n}"))
        await app.settled()

        assert () == app.dead_letters


async def test_the_context_of_the_attempt_goes_with_it() -> None:
    """Tenants, loggers and policies go by context variables."""
    seen: list[str] = []

    def look(order: OrderPlaced) -> None:
        seen.append(tenant.get())
        tenant.set("of the thread")

    service = shop(look)
    token = tenant.set("ann")
    async with service.test() as app:
        tenant.reset(token)
        for id in ("o-1", "o-2"):
            await app.publish(OrderPlaced(id))
            await app.settled()

        assert ["ann", "ann"] == seen


async def test_one_that_takes_too_long_is_left_to_itself_counted_and_refused_everything() -> None:
    """A thread cannot be cut off. It must not commit, or publish, for an attempt that has failed meanwhile."""
    may_end = threading.Event()
    late: list[BaseException] = []

    def hang(order: OrderPlaced, tx: SyncTransaction, delivery: Delivery) -> None:
        tx.execute("insert into payment values ($1)", f"{order.id} attempt {delivery.attempt}")
        if delivery.attempt == 1:
            may_end.wait()
            try:
                tx.execute("insert into payment values ('late')")
            except NotInTransaction as error:
                late.append(error)
                raise

    service = shop(hang, timeout=2)
    async with service.test(store="sqlite") as app:
        await make_table(app)
        await app.publish(OrderPlaced("o-1"))
        await app.advance(3)

        assert ["o-1 attempt 2"] == await rows(app)
        part = service.runtime.part(ConsumerPart)
        name = f"{hang.__module__}.{hang.__qualname__}"
        assert {name: 1} == part._threads.abandoned
        assert (THREADS_ABANDONED, (name,), 1) in list(part.measures())
        (issue,) = part.report().issues
        assert issue.startswith("1 of 40 handler threads run on after their time limit: ")

        may_end.set()
        async with asyncio.timeout(5):
            while part.report().issues:
                await asyncio.sleep(0.001)
        assert "the attempt is over" in str(late[0])
        assert ["o-1 attempt 2"] == await rows(app)


async def test_a_message_that_finds_no_thread_waits_uncounted() -> None:
    """When all hang, the rest is not to blame."""
    may_end = threading.Event()
    done: list[tuple[str, int]] = []

    def hang(order: OrderPlaced, delivery: Delivery) -> None:
        if order.id == "hangs":
            may_end.wait()
        done.append((order.id, delivery.attempt))

    async with shop(hang, threads=1, timeout=0.2, attempts=1).test() as app:
        await app.publish(OrderPlaced("hangs"))
        await app.advance(1)
        assert ["TimeoutError"] == [letter.error_class for letter in app.dead_letters]

        await app.publish(OrderPlaced("waits"))
        await app.settled()
        assert [] == done
        may_end.set()
        await app.advance(16)

        assert [("hangs", 1), ("waits", 1)] == done


async def test_a_drain_lets_a_thread_finish() -> None:
    """Work that has begun is done, and acked, before the process goes."""
    has_begun, may_end = threading.Event(), threading.Event()
    done: list[str] = []

    def slow(order: OrderPlaced) -> None:
        has_begun.set()
        may_end.wait()
        done.append(order.id)

    service = shop(slow)
    async with service.test() as app:
        await app.publish(OrderPlaced("o-1"))
        await asyncio.to_thread(has_begun.wait)
        draining = asyncio.create_task(service.drain(5))
        await asyncio.sleep(0)
        may_end.set()
        await draining

        assert ["o-1"] == done


async def test_a_stop_without_patience_leaves_a_thread_behind_that_can_do_nothing() -> None:
    has_begun, may_end = threading.Event(), threading.Event()
    errors: list[BaseException] = []

    def slow(order: OrderPlaced, tx: SyncTransaction) -> None:
        has_begun.set()
        may_end.wait()
        try:
            tx.publish(PaymentTaken(order.id))
        except NotInTransaction as error:
            errors.append(error)

    async with shop(slow).test() as app:
        await app.publish(OrderPlaced("o-1"))
        await asyncio.to_thread(has_begun.wait)
    may_end.set()
    async with asyncio.timeout(5):
        while not errors:
            await asyncio.sleep(0.001)


async def test_a_plain_function_that_returns_a_coroutine_fails_with_the_reason() -> None:
    """Nobody would run it, and the message would count as done."""

    async def really() -> None:
        raise AssertionError

    def forgetful(order: OrderPlaced) -> object:
        return really()

    async with shop(forgetful, attempts=1).test() as app:
        await app.publish(OrderPlaced("o-1"))
        await app.settled()

        assert ["TypeError"] == [letter.error_class for letter in app.dead_letters]
