"""What a start does about exchanges and queues, by RABBITMQ_TOPOLOGY, against a scripted broker."""

from __future__ import annotations

from typing import Any

from pika import spec
from tests.unit.brokers.rabbitmq.conftest import TOPOLOGY

from spoolproof.clock import SystemClock
from spoolproof.testing.conformance import eventually


def makes(server: Any) -> list[str]:
    """Return what was made: declared without being there, or bound."""
    asked = [one for one in server.asked if isinstance(one, spec.Queue.Bind)]
    return [one.queue for one in asked] + server.made


async def test_verify_tells_what_is_missing_and_makes_nothing(server: Any, make_broker: Any, caplog: Any) -> None:
    """For a user who may not configure: a queue made by mistake would hide the one that is missing elsewhere."""
    server.missing |= {"scripted.q", "scripted.retry"}
    broker = make_broker(server.url, clock=SystemClock(), topology_mode="verify")
    await broker.start(TOPOLOGY)
    assert await broker.wait_for_room(5.0)

    assert [] == makes(server)
    issues = " ".join(broker.status().issues)
    assert "queue scripted.q is missing" in issues
    assert "exchange scripted.retry is missing" in issues
    assert 'topology.missing what="queue scripted.q"' in caplog.text


async def test_off_asks_nothing(server: Any, make_broker: Any) -> None:
    broker = make_broker(server.url, clock=SystemClock(), topology_mode="off")
    await broker.start(TOPOLOGY)
    assert await broker.wait_for_room(5.0)
    subscription = await broker.subscribe("scripted.q", 1, lambda _: None)
    await eventually(lambda: subscription.is_active)

    kinds = (spec.Queue.Declare, spec.Exchange.Declare, spec.Queue.Bind)
    assert [] == [one for one in server.asked if isinstance(one, kinds)]
