"""The contract of destinations: the exchange and its patterns, single queues, and delay tiers."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from spoolproof.ports.broker import CONFIRMED, Barred, Broker, Confirmed, GivenUp, QueueSpec, Returned
from spoolproof.testing.conformance._broker import (
    CONNECT_SECONDS,
    Arrivals,
    Brokers,
    BrokerSuite,
    consume,
    make_topology,
    publish,
    start,
)
from spoolproof.testing.conformance._messages import make_outgoing
from spoolproof.testing.conformance._wait import eventually, monotonic

_PATTERNS = [
    ("shop.order.placed", "shop.order.placed", True),
    ("shop.order.placed", "shop.order", False),
    ("shop.*.placed", "shop.order.placed", True),
    ("shop.*.placed", "shop.order.line.placed", False),
    ("shop.*", "shop.order", True),
    ("shop.*", "shop", False),
    ("shop.*", "shop.order.placed", False),
    ("*", "shop", True),
    ("*", "shop.order", False),
    ("shop.#", "shop", True),
    ("shop.#", "shop.order", True),
    ("shop.#", "shop.order.placed", True),
    ("shop.#", "shopping.order", False),
    ("#.placed", "placed", True),
    ("#.placed", "shop.order.placed", True),
    ("shop.#.placed", "shop.placed", True),
    ("shop.#.placed", "shop.a.b.placed", True),
    ("shop.#.placed", "shop.a.b.moved", False),
    ("#", "anything.at.all", True),
    ("*.order.#", "shop.order", True),
    ("*.order.#", "order", False),
    ("shop.order+placed", "shop.order+placed", True),
    ("shop.order?", "shop.orders", False),
    ("shop_order.placed", "shop1order.placed", False),
    ("Shop.Order", "shop.order", False),
    ("shop.[a-z]", "shop.a", False),
    ("shop.%", "shop.order", False),
]
"""(pattern, routing key, whether it matches). Source: AMQP 0-9-1, section 3.1.3.3, the topic exchange type: `*` is
one word, `#` is zero or more; every other character stands for itself."""


@pytest.mark.asyncio
class BrokerRoutingConformance(BrokerSuite):
    """Needs the fixture `brokers`."""

    async def test_the_routing_key_arrives_or_is_empty(self, brokers: Brokers) -> None:
        """What a foreign message is may be known by nothing else."""
        topology = make_topology("shop.legacy")
        broker = await start(brokers, topology)
        arrivals, _ = await consume(broker, topology.queues[0].name)
        outgoing = make_outgoing("shop.order.placed", routing_key="shop.legacy")
        assert [CONFIRMED] == await publish(broker, outgoing)
        (delivery,) = await arrivals.reach(1)
        assert ("shop.legacy" if broker.capabilities.tells_routing_key else "") == delivery.routing_key

    async def test_a_queue_of_ones_own_goes_with_who_has_it(self, brokers: Brokers) -> None:
        """Its answers are read by nobody else, and processes come and go all day."""
        self.needs(brokers, "has_own_queues")
        topology = make_topology("test.happened")
        broker, peer = await start(brokers, topology), await start(brokers, topology)
        own = QueueSpec(name=f"{topology.service}.own", types=(), delivery_limit=20, expires_seconds=1)
        arrivals = Arrivals()
        await broker.subscribe(own, 10, arrivals)
        outgoing = make_outgoing(destination=f"queue:{own.name}")
        assert [CONFIRMED] == await publish(peer, outgoing)
        (delivery,) = await arrivals.reach(1)
        assert delivery.message == outgoing.message
        delivery.ack()

        await broker.stop()

        async def is_gone() -> bool:
            return await peer.depth(own.name) is None

        await eventually(is_gone, 15)

    async def test_patterns_match_as_in_amqp(self, brokers: Brokers) -> None:
        """A service moves between brokers without a changed binding."""
        self.needs(brokers, "has_returns")
        patterns = sorted({pattern for pattern, _, _ in _PATTERNS})
        topology = make_topology(queues={f"q{n}": (pattern,) for n, pattern in enumerate(patterns)})
        broker = await start(brokers, topology)
        keys = sorted({key for _, key, _ in _PATTERNS})
        sent = {key: make_outgoing(key) for key in keys}
        await publish(broker, *sent.values())

        got: dict[str, set[str]] = {}
        for pattern, spec in zip(patterns, topology.queues, strict=True):
            end = make_outgoing(destination=f"queue:{spec.name}")  # the queue is in order: behind it comes nothing
            await publish(broker, end)
            arrivals, subscription = await consume(broker, spec.name)
            while end.message.id not in arrivals.ids:
                await arrivals.reach(len(arrivals.all) + 1)
            await subscription.cancel()
            got[pattern] = {delivery.message.type for delivery in arrivals.all if delivery.message.id != end.message.id}

        expected = {(pattern, key, matches) for pattern, key, matches in _PATTERNS}
        assert expected == {(pattern, key, key in got[pattern]) for pattern, key, _ in _PATTERNS}

    async def test_two_matching_patterns_of_one_queue_make_one_copy(self, brokers: Brokers) -> None:
        """One message per queue, however many bindings lead there."""
        topology = make_topology("test.happened", "test.*", "#")
        broker = await start(brokers, topology)
        queue = topology.queues[0].name
        end = make_outgoing(destination=f"queue:{queue}")
        outgoing = make_outgoing("test.happened")

        await publish(broker, outgoing)
        await publish(broker, end)

        arrivals, _ = await consume(broker, queue)
        await arrivals.reach(2)
        assert [outgoing.message.id, end.message.id] == arrivals.ids

    async def test_a_routing_key_overrides_the_type(self, brokers: Brokers) -> None:
        """The type is only its default."""
        topology = make_topology(queues={"a": ("by.type",), "b": ("by.key",)})
        broker = await start(brokers, topology)
        outgoing = make_outgoing("by.type", routing_key="by.key")

        assert [Confirmed()] == await publish(broker, outgoing)

        (by_type, _), (by_key, _) = [await consume(broker, spec.name) for spec in topology.queues]
        await by_key.reach(1)
        assert ("by.type", []) == (by_key.all[0].message.type, by_type.ids)

    async def test_a_queue_destination_reaches_that_queue_only(self, brokers: Brokers) -> None:
        """A replay goes where it failed: other subscribers have already succeeded."""
        topology = make_topology(queues={"a": ("test.happened",), "b": ("test.happened",)})
        broker = await start(brokers, topology)
        first, second = (spec.name for spec in topology.queues)
        outgoing = make_outgoing("test.happened", destination=f"queue:{second}")

        assert [Confirmed()] == await publish(broker, outgoing)

        arrivals_first, _ = await consume(broker, first)
        arrivals_second, _ = await consume(broker, second)
        (delivery,) = await arrivals_second.reach(1)
        assert (outgoing.message, second) == (delivery.message, delivery.queue)
        assert [] == arrivals_first.ids

    async def test_the_services_own_exchange_can_be_named(self, brokers: Brokers) -> None:
        """`exchange:NAME` of the topology's exchange is `events`."""
        topology = make_topology("test.happened")
        broker = await start(brokers, topology)

        outcomes = await publish(broker, make_outgoing("test.happened", destination=f"exchange:{topology.exchange}"))

        assert [Confirmed()] == outcomes

    async def test_services_on_one_exchange_hear_each_other(self, brokers: Brokers) -> None:
        """Events are for everybody who binds a queue."""
        self.needs(brokers, "is_shared")
        ours = make_topology("ours.only")
        theirs = make_topology("test.happened", exchange=ours.exchange)
        publisher = await start(brokers, ours)
        consumer = await start(brokers, theirs)
        outgoing = make_outgoing("test.happened")

        assert [Confirmed()] == await publish(publisher, outgoing)

        arrivals, _ = await consume(consumer, theirs.queues[0].name)
        (delivery,) = await arrivals.reach(1)
        assert outgoing.message == delivery.message

    async def test_exchanges_do_not_mix(self, brokers: Brokers) -> None:
        """Two systems may share one broker."""
        self.needs(brokers, "is_shared")
        self.needs(brokers, "has_returns")
        publisher = await start(brokers, make_topology("ours.only"))
        await start(brokers, make_topology("test.happened"))

        (outcome,) = await publish(publisher, make_outgoing("test.happened"))

        assert isinstance(outcome, Returned)

    async def test_a_delayed_copy_comes_back_to_its_queue_and_not_too_early(self, brokers: Brokers) -> None:
        """A retry: to the one queue that failed, after its delay, with its headers and its id."""
        topology = make_topology(queues={"a": ("test.happened",), "b": ("test.happened",)})
        broker = await start(brokers, topology)
        first, second = (spec.name for spec in topology.queues)
        arrivals_first, _ = await consume(broker, first)
        arrivals_second, _ = await consume(broker, second)
        outgoing = make_outgoing(destination="delay:1", routing_key=second, headers={"spoolproof-attempt": 2})
        sent_at = monotonic()

        assert [Confirmed()] == await publish(broker, outgoing)

        (delivery,) = await arrivals_second.reach(1)
        waited = monotonic() - sent_at
        assert (outgoing.message, second) == (delivery.message, delivery.queue)
        assert 1.0 <= waited < 5.0
        assert [] == arrivals_first.ids

    async def test_delayed_copies_keep_their_order(self, brokers: Brokers) -> None:
        """One fixed delay per tier: nothing overtakes."""
        self.needs(brokers, "keeps_order")
        topology = make_topology()
        broker = await start(brokers, topology)
        queue = topology.queues[0].name
        sent = [make_outgoing(destination="delay:1", routing_key=queue) for _ in range(20)]
        await publish(broker, *sent)

        arrivals, _ = await consume(broker, queue)
        await arrivals.reach(len(sent))

        assert [outgoing.message.id for outgoing in sent] == arrivals.ids

    async def test_a_delayed_copy_whose_queue_is_gone_is_kept_as_unrouted(self, brokers: Brokers) -> None:
        """L6: not lost, and not in the way of the copies behind it."""
        topology = make_topology()
        broker = await start(brokers, topology)
        queue = topology.queues[0].name
        lost = make_outgoing(destination="delay:1", routing_key=f"{queue}.deleted")
        behind = make_outgoing(destination="delay:1", routing_key=queue)
        await publish(broker, lost, behind)

        unrouted, _ = await consume(broker, GivenUp(None))
        arrivals, _ = await consume(broker, queue)

        (kept,) = await unrouted.reach(1)
        (delivery,) = await arrivals.reach(1)
        assert (lost.message, f"{queue}.deleted", "unrouted") == (kept.message, kept.queue, kept.dead_reason)
        assert behind.message == delivery.message

    async def test_a_tier_that_was_not_declared_takes_nothing(self, brokers: Brokers) -> None:
        """A typo must not look like a confirm."""
        self.needs(brokers, "has_returns")
        topology = make_topology()
        broker = await start(brokers, topology)

        (outcome,) = await publish(broker, make_outgoing(destination="delay:7", routing_key=topology.queues[0].name))

        assert isinstance(outcome, Returned | Barred)

    async def test_a_leaving_queue_is_unbound_and_goes_on_being_consumed(self, brokers: Brokers) -> None:
        """A handler was renamed: what is in its old queue is handled, and nothing more comes in."""
        topology = make_topology("test.happened")
        (spec,) = topology.queues
        before = await start(brokers, topology)
        first = make_outgoing("test.happened")
        assert [CONFIRMED] == await publish(before, first)
        await before.stop()

        leaving = replace(topology, queues=(replace(spec, is_leaving=True),))
        after = await start(brokers, leaving)
        arrivals = Arrivals()
        await after.subscribe(spec.name, 10, arrivals)
        (delivery,) = await arrivals.reach(1)
        assert first.message.id == delivery.message.id
        await self.until_unbound(after)

        assert delivery.ack()

    async def until_unbound(self, broker: Broker) -> None:
        async with asyncio.timeout(CONNECT_SECONDS):
            while isinstance((await publish(broker, make_outgoing("test.happened")))[0], Confirmed):
                await asyncio.sleep(0.1)

    async def test_a_removed_queue_is_gone_with_what_is_in_it(self, brokers: Brokers) -> None:
        topology = make_topology("test.happened")
        (spec,) = topology.queues
        broker = await start(brokers, topology)
        assert [CONFIRMED, CONFIRMED] == await publish(broker, *(make_outgoing("test.happened") for _ in range(2)))
        await eventually(lambda: _holds(broker, spec.name, 2), CONNECT_SECONDS)

        assert 2 == await broker.remove(spec.name)
        assert await broker.depth(spec.name) is None
        assert 0 == await broker.remove(spec.name)


async def _holds(broker: Broker, queue: str, messages: int) -> bool:
    return await broker.depth(queue) == messages
