"""Services on other libraries, on the same RabbitMQ: what they publish has its effects here, and they read ours."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aio_pika
import kombu
import msgspec
import pytest
from faststream.rabbit import ExchangeType, RabbitBroker, RabbitExchange, RabbitQueue

from spoolproof import Message, Service, Transaction, event
from spoolproof.consumer.part import ConsumerPart
from spoolproof.settings import load_settings

pytestmark = [pytest.mark.integration, pytest.mark.servers]
EXCHANGE = "spoolproof.events"


@event("shop.order.placed")
class OrderPlaced(msgspec.Struct):
    order: int


@event("shop.order.booked", may_be_unrouted=True)
class OrderBooked(msgspec.Struct):
    order: int


def unwrapped(message: Message) -> Message:
    """Of what a producer wraps as `{"event": …, "payload": …}`."""
    envelope = json.loads(message.body)
    body = json.dumps(envelope["payload"]).encode()
    return msgspec.structs.replace(message, type=envelope["event"], body=body, datacontenttype="application/json")


@pytest.fixture
async def shop(rabbitmq_url: str, tmp_path: Path) -> AsyncIterator[Service]:
    """A running service with the routing keys of others, and a second queue for envelopes."""
    service = Service("shop", settings=load_settings(store=f"sqlite:///{tmp_path}/store.db", broker=rabbitmq_url))

    @service.on(OrderPlaced, foreign={"legacy.order": OrderPlaced}, message_id=lambda order: f"order-{order.order}")
    async def book(order: OrderPlaced, tx: Transaction) -> None:
        await tx.execute("insert into effect (n) values ($1)", order.order)
        await tx.publish(OrderBooked(order.order))

    @service.on(OrderPlaced, queue="shop.wrapped", foreign=unwrapped)
    async def book_wrapped(order: OrderPlaced, tx: Transaction) -> None:
        await tx.execute("insert into effect (n) values ($1)", -order.order)

    await service.start()
    async with service.transaction() as tx:
        await tx.execute("create table effect (n integer)")
    async with asyncio.timeout(20):
        while not all(worker.is_subscribed for worker in service.runtime.part(ConsumerPart).workers):
            await asyncio.sleep(0.05)
    yield service
    await service.drain()
    await service.stop()


async def effects(service: Service, count: int) -> list[int]:
    """Return the effects once there are so many."""
    async with asyncio.timeout(20):
        while True:
            async with service.transaction() as tx:
                found = sorted(int(str(row["n"])) for row in await tx.fetch("select n from effect"))
            if len(found) >= count:
                return found
            await asyncio.sleep(0.05)


async def with_kombu(url: str, key: str, payload: object) -> None:
    def send() -> None:
        with kombu.Connection(url.replace("amqp://", "pyamqp://")) as connection:
            connection.Producer(serializer="json").publish(payload, exchange=EXCHANGE, routing_key=key)

    await asyncio.to_thread(send)


async def with_aio_pika(url: str, key: str, payload: object) -> None:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        exchange = await channel.get_exchange(EXCHANGE, ensure=False)
        await exchange.publish(aio_pika.Message(json.dumps(payload).encode()), routing_key=key)


async def with_faststream(url: str, key: str, payload: object) -> None:
    async with RabbitBroker(url) as broker:
        exchange = RabbitExchange(EXCHANGE, type=ExchangeType.TOPIC, declare=False)
        await broker.publish(payload, routing_key=key, exchange=exchange)


PUBLISHERS: list[Callable[[str, str, object], Any]] = [with_kombu, with_aio_pika, with_faststream]


@pytest.mark.parametrize("publish", PUBLISHERS, ids=lambda one: one.__name__)
async def test_what_others_publish_has_its_effect_here(
    shop: Service, rabbitmq_url: str, publish: Callable[[str, str, object], Any]
) -> None:
    """Under a routing key of theirs, without a type; and wrapped, in a queue they address."""
    await publish(rabbitmq_url, "legacy.order", {"order": 1})
    await publish(rabbitmq_url, "legacy.order", {"order": 2})
    await publish(rabbitmq_url, "shop.order.placed", {"event": "shop.order.placed", "payload": {"order": 3}})
    assert [-3, 1, 2] == await effects(shop, 3)


async def test_one_published_twice_has_its_effect_once(shop: Service, rabbitmq_url: str) -> None:
    """aio-pika gives each publish an id of its own; what the handler derives from the payload is known again."""
    for _ in range(2):
        await with_aio_pika(rabbitmq_url, "legacy.order", {"order": 1})
    await with_aio_pika(rabbitmq_url, "legacy.order", {"order": 2})
    assert [1, 2] == await effects(shop, 2)


async def test_aio_pika_and_faststream_read_what_we_publish(shop: Service, rabbitmq_url: str) -> None:
    """Each binds a queue of its own to our exchange and finds JSON, an id and a type."""
    arrived: asyncio.Queue[tuple[str, object]] = asyncio.Queue()
    broker = RabbitBroker(rabbitmq_url)
    queue = RabbitQueue("theirs.faststream", routing_key="shop.order.booked", durable=True)

    @broker.subscriber(queue, RabbitExchange(EXCHANGE, type=ExchangeType.TOPIC, durable=True))
    async def read(payload: dict[str, int]) -> None:
        arrived.put_nowait(("faststream", payload))

    async with broker, await aio_pika.connect(rabbitmq_url) as connection:
        await broker.start()
        channel = await connection.channel()
        own = await channel.declare_queue("theirs.aio-pika", durable=True)
        await own.bind(EXCHANGE, "shop.order.booked")

        async def take(message: Any) -> None:
            async with message.process():
                arrived.put_nowait((f"{message.type} {bool(message.message_id)}", json.loads(message.body)))

        await own.consume(take)
        await shop.publish(OrderPlaced(5))
        async with asyncio.timeout(20):
            both = [await arrived.get(), await arrived.get()]
    assert [("faststream", {"order": 5}), ("shop.order.booked True", {"order": 5})] == sorted(both)  # type: ignore[type-var]
