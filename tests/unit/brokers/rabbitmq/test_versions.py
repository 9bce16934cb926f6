"""What differs in RabbitMQ 4, against a scripted broker: none of it runs here."""

from __future__ import annotations

from typing import Any

import pytest
from pika import frame, spec
from tests.unit.brokers.rabbitmq.conftest import TOPOLOGY

from spoolproof.brokers.rabbitmq.versions import RELEASES, release_for
from spoolproof.clock import SystemClock
from spoolproof.testing.conformance import eventually
from spoolproof.testing.conformance._broker import Outcomes
from spoolproof.testing.conformance._messages import make_outgoing


@pytest.mark.parametrize(
    ("version", "since"),
    [("3.10.8", (3, 10)), ("3.13.7", (3, 10)), ("4.0.5", (4, 0)), ("4.2.1", (4, 1)), ("4.3.0", (4, 3)), ("", (3, 10))],
)
def test_a_broker_goes_by_the_newest_row_that_is_not_newer(version: str, since: tuple[int, int]) -> None:
    assert since == release_for(version).since
    assert sorted(RELEASES, key=lambda one: one.since) == list(RELEASES)


def declared(server: Any, queue: str) -> dict[str, Any]:
    found: dict[str, Any] = next(
        one.arguments for one in server.asked if isinstance(one, spec.Queue.Declare) and one.queue == queue
    )
    return found


@pytest.mark.parametrize(("version", "limit"), [("3.10.8", None), ("4.0.5", -1), ("4.3.0", -1)])
async def test_what_was_given_up_is_never_dropped_for_being_read_often(
    server: Any, make_broker: Any, version: str, limit: int | None
) -> None:
    """From 4.0 a queue without a limit has one of 20, and `.dead` has nowhere to give a message up to."""
    server.version = version
    broker = make_broker(server.url, clock=SystemClock())
    await broker.start(TOPOLOGY)
    assert await broker.wait_for_room(5.0)

    assert limit == declared(server, "scripted.q.dead").get("x-delivery-limit")
    assert limit == declared(server, "scripted.unrouted").get("x-delivery-limit")
    assert 20 == declared(server, "scripted.q")["x-delivery-limit"]


async def test_large_bodies_are_cut_to_the_frames_the_broker_names(server: Any, make_broker: Any) -> None:
    """4.1 refuses under 8192, and may say 8192."""
    server.version, server.frame_max = "4.1.0", 8192
    broker = make_broker(server.url, clock=SystemClock())
    await broker.start(TOPOLOGY)
    assert await broker.wait_for_room(5.0)

    broker.submit(make_outgoing(body=b"x" * 30_000), 1, Outcomes())
    await eventually(lambda: len(server.published) == 1)

    await eventually(lambda: sum(server.body_frames) == 30_000)
    assert max(server.body_frames) <= 8192 - 8


@pytest.mark.parametrize(("version", "is_closed"), [("4.0.5", False), ("4.3.0", True)])
async def test_a_cancelled_consumer_is_given_back_and_replaced(
    server: Any, make_broker: Any, version: str, is_closed: bool
) -> None:
    """4.3 waits for an answer to its own cancel, which pika does not give: the channel is closed instead."""
    server.version = version
    broker = make_broker(server.url, clock=SystemClock())
    await broker.start(TOPOLOGY)
    taken: list[Any] = []
    subscription = await broker.subscribe("scripted.q", 2, taken.append)
    await eventually(lambda: len(server.consumers) == 1 and subscription.is_active)
    writer, channel, tag = server.consumers[-1]
    writer.write(
        frame.Method(channel, spec.Basic.Deliver(tag, 1, False, "", "scripted.q")).marshal()
        + frame.Header(channel, 2, spec.BasicProperties(message_id="m")).marshal()
        + frame.Body(channel, b"{}").marshal()
    )
    await eventually(lambda: len(taken) == 1)

    writer.write(frame.Method(channel, spec.Basic.Cancel(tag, True)).marshal())

    await eventually(lambda: len(server.consumers) == 2 and subscription.is_active)
    await eventually(lambda: taken[0].is_stale is is_closed)
    assert taken[0].ack() is not is_closed
