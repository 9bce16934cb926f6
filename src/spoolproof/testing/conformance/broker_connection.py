"""The contract of start, status and stop."""

from __future__ import annotations

import asyncio

import pytest

from spoolproof.errors import BrokerUnavailable
from spoolproof.ports.broker import ConnectionState, Incoming
from spoolproof.testing.conformance._broker import (
    CONNECT_SECONDS,
    Brokers,
    BrokerSuite,
    consume,
    make_topology,
    publish,
    start,
)
from spoolproof.testing.conformance._messages import make_outgoing
from spoolproof.testing.conformance._wait import eventually, within


@pytest.mark.asyncio
class BrokerConnectionConformance(BrokerSuite):
    """Needs the fixture `brokers`."""

    async def test_status_tells_the_state_before_during_and_after(self, brokers: Brokers) -> None:
        """Health shows it; it costs no I/O, so it is right at any moment."""
        broker = brokers.another()
        before = broker.status()

        await within(broker.start(make_topology()), CONNECT_SECONDS)
        await eventually(lambda: broker.status().state is ConnectionState.CONNECTED, CONNECT_SECONDS)
        connected = broker.status()
        await broker.stop()

        assert ConnectionState.DISCONNECTED == before.state
        assert not connected.is_blocked
        assert {"publish", "consume"} == {connection.purpose for connection in connected.connections}
        assert all(connection.since.utcoffset() is not None for connection in connected.connections)
        assert connected.kind
        assert () == connected.issues
        assert ConnectionState.DISCONNECTED == broker.status().state

    async def test_a_queue_can_be_asked_how_much_waits_in_it(self, brokers: Brokers) -> None:
        """Also one that nobody declares any more: its messages wait for ever, and only this finds them."""
        topology = make_topology()
        broker = await start(brokers, topology)
        (queue,) = topology.queues
        before = await within(broker.depth(queue.name))

        await publish(broker, make_outgoing(), make_outgoing())
        async with asyncio.timeout(CONNECT_SECONDS):  # a broker may count a moment late
            while (after := await broker.depth(queue.name)) != 2:
                await asyncio.sleep(0.05)

        assert (0, 2) == (before, after)
        assert await within(broker.depth(f"{queue.name}.nothing")) is None
        assert 2 == await within(broker.depth(queue.name)), "a queue that is not there must not cost the connection"

    async def test_a_broker_that_is_not_there_is_asked_in_vain(self, brokers: Brokers) -> None:
        """None would say that the queue is gone, and with it what waits there."""
        with pytest.raises(BrokerUnavailable):
            await within(brokers.another().depth("any"))

    async def test_stop_is_safe_before_start_and_twice(self, brokers: Brokers) -> None:
        """A start that failed half way is stopped like any other."""
        unstarted = brokers.another()
        started = await start(brokers, make_topology())

        await within(unstarted.stop())
        await within(started.stop(), CONNECT_SECONDS)
        await within(started.stop())

        assert ConnectionState.DISCONNECTED == unstarted.status().state

    async def test_every_process_of_a_service_declares_the_same_topology(self, brokers: Brokers) -> None:
        """Declaring again changes nothing and loses nothing."""
        self.needs(brokers, "is_shared")
        topology = make_topology()
        first = await start(brokers, topology)
        outgoing = make_outgoing()
        await publish(first, outgoing)

        second = await start(brokers, topology)

        arrivals, _ = await consume(second, topology.queues[0].name)
        (delivery,) = await arrivals.reach(1)
        assert outgoing.message == delivery.message

    async def test_a_receiver_may_publish_and_settle_as_it_receives(self, brokers: Brokers) -> None:
        """The callback runs on the event loop, where every other call is made."""
        topology = make_topology(queues={"in": ("test.asked",), "out": ("test.answered",)})
        broker = await start(brokers, topology)
        answers, _ = await consume(broker, topology.queues[1].name)
        settled: list[bool] = []

        def answer(delivery: Incoming) -> None:
            broker.submit(make_outgoing("test.answered"), delivery, lambda pairs: None)
            settled.append(delivery.ack())

        await broker.subscribe(topology.queues[0].name, 1, answer)
        await publish(broker, *(make_outgoing("test.asked") for _ in range(3)))

        await answers.reach(3)
        assert [True, True, True] == settled
