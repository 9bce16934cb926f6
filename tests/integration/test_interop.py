"""Services without Spoolproof on the same RabbitMQ: kombu publishes to us, plain pika reads from us."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import kombu
import pika
import pytest

from spoolproof.brokers.rabbitmq import RabbitMQBroker
from spoolproof.ports.broker import Confirmed
from spoolproof.testing.conformance._broker import consume, make_topology, publish
from spoolproof.testing.conformance._messages import make_outgoing

pytestmark = [pytest.mark.integration, pytest.mark.servers]

Make = Callable[..., RabbitMQBroker]
WHEN = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def send_with_kombu(url: str, exchange: str, routing_key: str, payload: Any, **properties: Any) -> None:
    with kombu.Connection(url.replace("amqp://", "pyamqp://")) as connection:
        producer = connection.Producer(serializer="json")
        producer.publish(payload, exchange=exchange, routing_key=routing_key, **properties)


async def test_plain_json_from_kombu_arrives_with_its_fields(rabbitmq_url: str, make_broker: Make) -> None:
    """Celery and everything on kombu: JSON with a content encoding of utf-8, and what the publisher set."""
    topology = make_topology("legacy.order.placed")
    broker = make_broker()
    await broker.start(topology)
    arrivals, _ = await consume(broker, topology.queues[0].name)

    await asyncio.to_thread(
        send_with_kombu,
        rabbitmq_url,
        topology.exchange,
        "legacy.order.placed",
        {"order": 7, "name": "Zoë"},
        message_id="legacy-7",
        type="legacy.order.placed",
        correlation_id="c-1",
        app_id="legacy-shop",
        timestamp=int(WHEN.timestamp()),
        headers={"region": "north", "nested": {"a": [1]}, "retries": 2},
    )
    await asyncio.to_thread(send_with_kombu, rabbitmq_url, topology.exchange, "legacy.order.placed", {"bare": True})

    full, bare = await arrivals.reach(2)
    message = full.message
    assert (None, None) == (full.fault, bare.fault)
    assert {"order": 7, "name": "Zoë"} == json.loads(message.body)
    assert (
        "legacy-7",
        "legacy.order.placed",
        "c-1",
        "legacy-shop",
        "application/json",
        WHEN.replace(microsecond=0),
    ) == (
        message.id,
        message.type,
        message.correlation_id,
        message.source,
        message.datacontenttype,
        message.time,
    )
    assert {"region": "north", "nested": '{"a":[1]}', "retries": 2} == message.headers
    assert ("", "", {"bare": True}) == (bare.message.id, bare.message.type, json.loads(bare.message.body))


async def test_our_message_is_read_by_a_plain_pika_consumer(rabbitmq_url: str, make_broker: Make) -> None:
    """It binds a queue of its own to the exchange and reads ordinary properties and JSON."""
    topology = make_topology("shop.order.placed")
    broker = make_broker()
    await broker.start(topology)
    outgoing = make_outgoing(
        "shop.order.placed",
        key="order-7",
        time=WHEN,
        body=b'{"order":7}',
        source="shop",
        correlation_id="c-1",
        headers={"colour": "red"},
    )

    with_pika = pika.BlockingConnection(pika.URLParameters(rabbitmq_url))
    try:
        channel = with_pika.channel()
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, topology.exchange, "shop.#")
        assert [Confirmed()] == await publish(broker, outgoing)
        method, properties, body = channel.basic_get(queue, auto_ack=True)
    finally:
        with_pika.close()

    assert ("shop.order.placed", {"order": 7}) == (method.routing_key, json.loads(body))
    assert (2, outgoing.message.id, "shop.order.placed", "application/json", "c-1", "shop", int(WHEN.timestamp())) == (
        properties.delivery_mode,
        properties.message_id,
        properties.type,
        properties.content_type,
        properties.correlation_id,
        properties.app_id,
        properties.timestamp,
    )
    assert {
        "cloudEvents_source": "shop",
        "cloudEvents_time": "2026-01-02T03:04:05.678901+00:00",
        "cloudEvents_partitionkey": "order-7",
        "colour": "red",
    } == properties.headers
