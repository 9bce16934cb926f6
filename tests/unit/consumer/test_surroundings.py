"""What a team puts beside and around its handlers: dependencies, middleware, hooks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from spoolproof import (
    Delivery,
    InvalidMessage,
    Message,
    Receipt,
    RegistrationError,
    Service,
    SyncTransaction,
    Transaction,
    event,
)


@event("order.placed")
class OrderPlaced(msgspec.Struct):
    id: str


@event("payment.taken")
class PaymentTaken(msgspec.Struct):
    order_id: str


class Bank:
    def __init__(self, name: str) -> None:
        self.name = name


class Client:
    def __init__(self, bank: Bank, attempt: int) -> None:
        self.bank = bank
        self.attempt = attempt


async def _handled(service: Service, ids: tuple[str, ...] = ("o-1",)) -> None:
    async with service.test() as app:
        for id in ids:
            await app.publish(OrderPlaced(id))
        await app.settled()
        assert () == app.dead_letters


# --- dependencies ----------------------------------------------------------------------------------------------------


async def test_what_a_handler_asks_for_is_made_for_each_attempt_and_closed_after_it() -> None:
    """A client that outlives its attempt, or is shared by two, is a bug nobody finds."""
    service = Service("shop")
    log: list[str] = []

    @service.on(OrderPlaced)
    async def pay(order: OrderPlaced, client: Client, bank: Bank, tx: Transaction) -> None:
        assert client.bank is bank
        log.append(f"attempt {client.attempt}")
        if client.attempt == 1:
            raise RuntimeError

    @service.provides
    def bank() -> Bank:
        log.append("made")
        return Bank("one")

    @service.provides
    @asynccontextmanager
    async def client(bank: Bank, delivery: Delivery, tx: Transaction) -> AsyncIterator[Client]:
        log.append("opened")
        try:
            yield Client(bank, delivery.attempt)
        finally:
            log.append("closed")

    await _handled(service)

    assert ["made", "opened", "attempt 1", "closed", "made", "opened", "attempt 2", "closed"] == log


async def test_providers_may_be_async_or_generators_and_handlers_plain() -> None:
    service = Service("shop")
    log: list[str] = []

    @service.provides
    async def bank() -> Bank:
        return Bank("async")

    @service.provides
    def client(bank: Bank) -> Iterator[Client]:
        yield Client(bank, 1)
        log.append("closed")

    @service.on(OrderPlaced)
    def pay(order: OrderPlaced, client: Client, tx: SyncTransaction) -> None:
        log.append(client.bank.name)

    await _handled(service)

    assert ["async", "closed"] == log


async def test_what_nobody_provides_is_found_at_the_start_all_of_it() -> None:
    """At a start somebody is looking; providers may stand below their handlers."""
    service = Service("shop")

    @service.on(OrderPlaced)
    async def pay(order: OrderPlaced, client: Client) -> None: ...

    @service.on(OrderPlaced)
    async def audit(order: OrderPlaced, bank: Bank) -> None: ...

    with pytest.raises(RegistrationError) as missing:
        await service.start()
    assert "parameter 'client': nothing gives Client" in str(missing.value)
    assert "parameter 'bank': nothing gives Bank" in str(missing.value)

    @service.provides
    def bank(client: Client) -> Bank: ...

    @service.provides
    def client(bank: Bank, tx: Transaction) -> Client: ...

    with pytest.raises(RegistrationError) as circular:
        await service.start()
    assert "needs itself" in str(circular.value)
    assert "asks for a Transaction, and the handler takes none" in str(circular.value)


def no_return(): ...  # type: ignore[no-untyped-def]
def no_parameter_annotation(bank) -> Client: ...  # type: ignore[no-untyped-def]


@pytest.mark.parametrize(
    ("function", "reason"),
    [(no_return, "annotate what it returns"), (no_parameter_annotation, "'bank' has no annotation"), (7, "no")],
)
def test_a_provider_that_cannot_be_used_is_refused_where_it_is_declared(function: Any, reason: str) -> None:
    with pytest.raises(RegistrationError, match=reason):
        Service("shop").provides(function)


def test_two_providers_of_one_type_are_refused() -> None:
    """Which of them a handler gets must not depend on the order of imports."""
    service = Service("shop")

    @service.provides
    def one() -> Bank: ...

    with pytest.raises(RegistrationError, match="both give"):

        @service.provides
        def two() -> Bank: ...


# --- middleware ------------------------------------------------------------------------------------------------------


async def test_what_is_around_every_attempt_sees_its_delivery_and_its_error() -> None:
    """The place for tenancy and for tools that watch for errors; the first registered is the outermost."""
    service = Service("shop")
    log: list[str] = []

    @service.around_handle
    async def watch(delivery: Delivery, call_next: Callable[[], Awaitable[object]]) -> object:
        log.append(f"{delivery.message.type} {delivery.attempt}")
        try:
            return await call_next()
        except RuntimeError as error:
            log.append(f"saw {error}")
            raise

    @service.around_handle
    async def inner(delivery: Delivery, call_next: Callable[[], Awaitable[object]]) -> object:
        log.append("inner")
        return await call_next()

    @service.on(OrderPlaced)
    async def pay(order: OrderPlaced, delivery: Delivery) -> None:
        if delivery.attempt == 1:
            raise RuntimeError("once")
        log.append("paid")

    await _handled(service)

    assert ["order.placed 1", "inner", "saw once", "order.placed 2", "inner", "paid"] == log


async def test_what_is_around_every_publish_may_change_the_message_and_is_checked() -> None:
    """Of handlers, of plain ones, of the application; what it makes of it is refused like what a user gives."""
    service = Service("shop")

    @service.around_publish
    async def tenant(message: Message, call_next: Callable[[Message], Awaitable[Receipt]]) -> Receipt:
        headers = {**message.headers, "tenant": "ann"} if message.key != "bad" else {"spoolproof-attempt": 1}
        return await call_next(msgspec.structs.replace(message, headers=headers))

    @service.on(OrderPlaced)
    async def pay(order: OrderPlaced, tx: Transaction) -> None:
        await tx.publish(PaymentTaken("tx"))
        await service.publish(PaymentTaken("joined"))

    @service.on(OrderPlaced)
    def pay_plain(order: OrderPlaced, tx: SyncTransaction) -> None:
        tx.publish(PaymentTaken("plain"))
        service.publish_sync(PaymentTaken("sync"))

    async with service.test() as app:
        await app.publish(OrderPlaced("o-1"), headers={"own": 1})
        await app.settled()

        assert ["ann"] * 5 == [message.headers["tenant"] for message in app.messages]
        assert {"own": 1, "tenant": "ann"} == app.messages[0].headers
        assert ["joined", "plain", "sync", "tx"] == sorted(one.order_id for one in app.published(PaymentTaken))
        with pytest.raises(InvalidMessage):
            await app.publish(OrderPlaced("o-1"), key="bad")


def test_middleware_that_is_not_async_is_refused() -> None:
    def plain(*args: object) -> None: ...

    with pytest.raises(RegistrationError, match="delivery, call_next"):
        Service("shop").around_handle(plain)  # type: ignore[type-var]
    with pytest.raises(RegistrationError, match="message, call_next"):
        Service("shop").around_publish(plain)  # type: ignore[type-var]


# --- hooks -----------------------------------------------------------------------------------------------------------


async def test_hooks_run_before_the_first_delivery_and_after_the_last() -> None:
    """With the store there; under every way to run a service, tests included."""
    log: list[str] = []

    @asynccontextmanager
    async def lifespan(service: Service) -> AsyncIterator[None]:
        log.append(f"{service.name} enters")
        yield
        log.append("leaves")

    service = Service("shop", lifespan=lifespan)

    @service.on_start
    async def make_tables() -> None:
        async with service.transaction() as tx:
            await tx.execute("create table payment (id text)")
        await service.publish(OrderPlaced("of the start"))
        log.append("started")

    @service.on_stop
    def first() -> None:
        log.append("first")

    @service.on_stop
    async def second() -> None:
        async with service.transaction():
            log.append("second")

    @service.on(OrderPlaced)
    async def pay(order: OrderPlaced, tx: Transaction) -> None:
        await tx.execute("insert into payment values ($1)", order.id)
        log.append(order.id)

    async with service.test(store="sqlite") as app:
        await app.settled()

    assert ["shop enters", "started", "of the start", "second", "first", "leaves"] == log


async def test_a_start_hook_that_fails_ends_the_start_and_what_it_has_opened() -> None:
    service = Service("shop")
    log: list[str] = []
    service.on_stop(lambda: log.append("stopped"))

    @service.on_start
    def fail() -> None:
        raise ConnectionError("no cache")

    with pytest.raises(ConnectionError, match="no cache"):
        async with service.test():
            raise AssertionError

    assert ["stopped"] == log
