"""What becomes of messages whose publishers know nothing of Spoolproof."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from spoolproof import Delivery, Message, RegistrationError, Service, Transaction, event
from spoolproof.brokers.memory import MemoryBroker
from spoolproof.message import Outgoing
from spoolproof.testing.app import App


@event("order.placed", version=2)
class OrderPlaced(msgspec.Struct):
    n: int


@event("order.cancelled")
class OrderCancelled(msgspec.Struct):
    n: int


LEGACY = {"legacy.placed": OrderPlaced, "legacy.cancelled": OrderCancelled}


class Shop:
    """A service that takes two events on one queue, and what reached its handler."""

    def __init__(self, **options: Any) -> None:
        self.service = Service("shop")
        self.seen: list[Any] = []
        self.deliveries: list[Delivery] = []
        self.failures = 0

        @self.service.on(OrderPlaced, OrderCancelled, queue="shop.orders", **options)
        async def handle(order: OrderPlaced | OrderCancelled, delivery: Delivery, tx: Transaction) -> None:
            self.deliveries.append(delivery)
            if self.failures:
                self.failures -= 1
                raise RuntimeError("not now")
            self.seen.append(order)


async def send(app: App, key: str, body: object, *, times: int = 1, **fields: Any) -> None:
    """Publish as others do: nothing but a body, unless `fields` says more."""
    broker = app.service.runtime.broker.inner
    assert isinstance(broker, MemoryBroker)
    blank = {"id": "", "type": "", "source": "", "time": datetime(2026, 1, 2, tzinfo=UTC), "datacontenttype": None}
    message = Message(**{**blank, "body": json.dumps(body).encode(), **fields})
    for _ in range(times):
        broker.submit(Outgoing(message=message, routing_key=key), None, lambda _: None)
    await app.settled()


async def test_a_mapped_routing_key_is_bound_and_says_the_type() -> None:
    shop = Shop(foreign=LEGACY)
    async with shop.service.test() as app:
        await send(app, "legacy.placed", {"n": 1})
        await send(app, "legacy.cancelled", {"n": 2})
        await app.publish(OrderCancelled(n=3))
        await app.settled()
        assert [OrderPlaced(1), OrderCancelled(2), OrderCancelled(3)] == shop.seen
        assert not app.dead_letters


async def test_a_type_that_the_message_names_wins_over_its_routing_key() -> None:
    shop = Shop(foreign=LEGACY)
    async with shop.service.test() as app:
        await send(app, "legacy.placed", {"n": 1}, type="order.cancelled")
        assert [OrderCancelled(1)] == shop.seen


async def test_retries_know_what_the_routing_key_said() -> None:
    """A copy comes back under the name of its queue."""
    shop = Shop(foreign=LEGACY, delays=(1,))
    shop.failures = 3
    async with shop.service.test() as app:
        await send(app, "legacy.placed", {"n": 1})
        await app.advance(10)
        assert [OrderPlaced(1)] == shop.seen
        assert [1, 2, 3, 4] == [delivery.attempt for delivery in shop.deliveries]


async def test_an_unmapped_routing_key_is_kept_for_the_release_that_maps_it() -> None:
    """Its dead letter is replayed to the queue, and no broker tells its first routing key then."""
    shop = Shop(foreign={"legacy.placed": OrderPlaced})
    async with shop.service.test() as app:
        broker = app.service.runtime.broker.inner
        assert isinstance(broker, MemoryBroker)
        broker.server._bindings[app.service.settings.exchange].add(("legacy.cancelled", "shop.orders"))
        await send(app, "legacy.cancelled", {"n": 2})
        await app.advance(3600)
        (letter,) = app.dead_letters
        assert ("unknown_type", "legacy.cancelled") == (letter.reason, letter.message.headers["spoolproof-routing-key"])

    after = Shop(foreign=LEGACY)
    async with after.service.test() as app:
        await send(app, "order.placed", {"n": 2}, headers=letter.message.headers)
        assert [OrderCancelled(2)] == after.seen


def unwrapped(message: Message) -> Message:
    """Of an envelope: {"kind": …, "uid": …, "data": …}."""
    envelope = json.loads(message.body)
    return msgspec.structs.replace(
        message,
        id=envelope["uid"],
        type={"placed": "order.placed"}[envelope["kind"]],
        schemaversion=2,
        datacontenttype="application/json",
        body=json.dumps(envelope["data"]).encode(),
    )


async def test_a_function_unwraps_what_others_wrap_and_the_inbox_knows_its_id() -> None:
    shop = Shop(foreign=unwrapped, delays=(1,))
    shop.failures = 2
    async with shop.service.test() as app:
        envelope = {"kind": "placed", "uid": "u-1", "data": {"n": 7}}
        await send(app, "order.placed", envelope, type="Envelope", datacontenttype="application/x-legacy", times=2)
        await app.advance(10)
        assert [OrderPlaced(7)] == shop.seen
        assert {"u-1"} == {delivery.message.id for delivery in shop.deliveries}


@pytest.mark.parametrize(
    ("function", "detail"),
    [
        (lambda message: json.loads("{"), "raised json.decoder.JSONDecodeError"),
        (lambda message: {"n": 1}, "returned dict, not a Message"),
        (lambda message: msgspec.structs.replace(message, type=7), "returned no valid Message"),
        (lambda message: msgspec.structs.replace(message, type="order.placed", body=None), "no valid Message"),
    ],
)
async def test_what_the_function_cannot_read_is_a_dead_letter_as_it_came(function: Any, detail: str) -> None:
    shop = Shop(foreign=function)
    async with shop.service.test() as app:
        await send(app, "order.placed", {"n": 1}, type="Envelope")
        await app.publish(OrderPlaced(n=2))
        await app.settled()
        (letter,) = app.dead_letters
        assert ("decode", b'{"n": 1}', "Envelope") == (letter.reason, letter.message.body, letter.message.type)
        assert detail in letter.error
        assert [OrderPlaced(2)] == shop.seen


async def test_a_replay_that_is_read_at_last_is_the_same_dead_letter_open_again_and_then_resolved() -> None:
    """By then it has another type and another id, under which nobody knows its dead letter."""
    is_mended = False

    def read(message: Message) -> Message:
        return unwrapped(message) if is_mended else msgspec.structs.replace(message, type=7)

    shop = Shop(foreign=read, attempts=1)
    async with shop.service.test() as app:
        await send(app, "order.placed", {"kind": "placed", "uid": "u-1", "data": {"n": 7}}, type="Envelope")
        (letter,) = app.dead_letters
        is_mended, shop.failures = True, 1

        await shop.service.dead_letters.replay(letter.id, actor="ann", reason="mended")
        await app.settled()
        (again,) = app.dead_letters
        assert (letter.id, "handler", letter.message.body) == (again.id, again.reason, again.message.body)

        await shop.service.dead_letters.replay(letter.id, actor="ann", reason="mended")
        await app.settled()
        assert [OrderPlaced(7)] == shop.seen
        assert "resolved" == (await shop.service.dead_letters.show(letter.id))["state"]


@pytest.mark.parametrize(
    ("options", "runs"),
    [
        ({}, 2),
        ({"missing_id": "hash"}, 1),
        ({"message_id": lambda order: order.n}, 1),
        ({"message_id": lambda _: None}, 2),
    ],
)
async def test_messages_without_an_id_happen_once_where_the_handler_can_tell_them(options: Any, runs: int) -> None:
    shop = Shop(foreign=LEGACY, **options)
    async with shop.service.test() as app:
        await send(app, "legacy.placed", {"n": 1}, times=2)
        await send(app, "legacy.placed", {"n": 2})
        assert runs + 1 == len(shop.seen)


async def test_an_id_of_ours_is_never_replaced() -> None:
    shop = Shop(foreign=LEGACY, message_id=lambda order: "always the same")
    async with shop.service.test() as app:
        await app.publish(OrderPlaced(n=1))
        await app.publish(OrderPlaced(n=2))
        await send(app, "legacy.placed", {"n": 3}, id="made-for-this-publish")
        await send(app, "legacy.placed", {"n": 3}, id="made-for-that-publish")
        assert [1, 2, 3] == sorted(order.n for order in shop.seen)


async def test_an_id_function_that_raises_is_a_dead_letter_of_that_message() -> None:
    shop = Shop(foreign=LEGACY, message_id=lambda order: 1 / (order.n - 1))
    async with shop.service.test() as app:
        await send(app, "legacy.placed", {"n": 1})
        await send(app, "legacy.placed", {"n": 2})
        (letter,) = app.dead_letters
        assert ("decode", "order.placed") == (letter.reason, letter.message.type)
        assert "ZeroDivisionError" in letter.error
        assert [OrderPlaced(2)] == shop.seen


@pytest.mark.parametrize(
    ("content_type", "is_read"),
    [
        *(
            (kind, True)
            for kind in ("application/json", "application/vnd.shop+json; charset=utf-8", "TEXT/JSON", "", None)
        ),
        *((kind, False) for kind in ("application/xml", "application/x-protobuf", "text/plain")),
    ],
)
async def test_only_json_is_read_unless_it_is_said_how(content_type: str | None, is_read: bool) -> None:
    shop = Shop(foreign=LEGACY)
    async with shop.service.test() as app:
        await send(app, "legacy.placed", {"n": 1}, datacontenttype=content_type)
        assert ([OrderPlaced(1)] if is_read else []) == shop.seen
        assert ([] if is_read else ["decode"]) == [letter.reason for letter in app.dead_letters]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"foreign": {"legacy.#": OrderPlaced}}, "no \\* or #"),
        ({"foreign": {"legacy": "order.moved"}}, "does not take that event"),
        ({"foreign": "legacy"}, "a dict from routing key"),
        ({"message_id": "n"}, "a plain function from the payload"),
        ({"missing_id": "body"}, "'hash'"),
    ],
)
def test_options_that_cannot_be_are_refused(options: Any, said: str) -> None:
    with pytest.raises(RegistrationError, match=said):
        Shop(**options)


def test_one_routing_key_of_a_queue_is_one_models() -> None:
    shop = Shop(foreign=LEGACY)
    with pytest.raises(RegistrationError, match=r"'legacy\.placed' already"):

        @shop.service.on("other", queue="shop.orders", foreign={"legacy.placed": "other"})
        async def handle(payload: dict[str, int]) -> None: ...
