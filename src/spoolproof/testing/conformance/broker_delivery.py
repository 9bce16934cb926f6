"""The contract of deliveries: each is settled once, and what is not settled comes back."""

from __future__ import annotations

import pytest

from spoolproof.ports.broker import Broker, GivenUp, Incoming
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
from spoolproof.testing.conformance._wait import eventually, holds_for

_DELIVERY_LIMIT = 2


@pytest.mark.asyncio
class BrokerDeliveryConformance(BrokerSuite):
    """Needs the fixture `brokers`."""

    async def test_messages_arrive_that_were_there_before_and_that_come_after(self, brokers: Brokers) -> None:
        """A consumer may start before or after its producers."""
        topology = make_topology()
        broker = await start(brokers, topology)
        before, after = make_outgoing(), make_outgoing()

        await publish(broker, before)
        arrivals, subscription = await consume(broker, topology.queues[0].name)
        await arrivals.reach(1)
        await publish(broker, after)

        deliveries = await arrivals.reach(2)
        assert [before.message.id, after.message.id] == arrivals.ids
        assert {(topology.queues[0].name, None)} == {(delivery.queue, delivery.fault) for delivery in deliveries}
        assert subscription.is_active

    async def test_a_subscription_made_before_the_connection_begins_with_it(self, brokers: Brokers) -> None:
        """A service starts its consumers whether or not the broker is there."""
        topology = make_topology()
        broker = await brokers.start(topology)
        arrivals = Arrivals()
        subscription = await broker.subscribe(topology.queues[0].name, 10, arrivals)

        await publish(broker, make_outgoing())

        await arrivals.reach(1)
        assert subscription.is_active

    async def test_at_most_prefetch_deliveries_are_unsettled(self, brokers: Brokers) -> None:
        """It bounds what a crash hands out again."""
        topology = make_topology()
        broker = await start(brokers, topology)
        await publish(broker, *(make_outgoing() for _ in range(10)))

        arrivals, _ = await consume(broker, topology.queues[0].name, prefetch=3)
        first = await arrivals.reach(3)
        await holds_for(lambda: len(arrivals.all) == 3)
        first[0].ack()
        await arrivals.reach(4)
        await holds_for(lambda: len(arrivals.all) == 4)

        assert 4 == len(set(arrivals.ids))

    async def test_an_acked_delivery_is_forgotten(self, brokers: Brokers) -> None:
        """And one that is not comes back when its broker stops, marked as delivered before."""
        self.needs(brokers, "is_shared")
        topology = make_topology()
        broker = await start(brokers, topology)
        acked, unsettled = make_outgoing(), make_outgoing()
        await publish(broker, acked, unsettled)
        arrivals, _ = await consume(broker, topology.queues[0].name)
        deliveries = await arrivals.reach(2)

        assert deliveries[0].ack()
        await broker.stop()

        heir = await start(brokers, topology)
        inherited, _ = await consume(heir, topology.queues[0].name)
        await inherited.reach(1)
        end = make_outgoing()
        await publish(heir, end)
        await inherited.reach(2)
        assert [unsettled.message.id, end.message.id] == inherited.ids
        assert not deliveries[1].ack()

    async def test_first_deliveries_count_zero(self, brokers: Brokers) -> None:
        """The count is of deliveries before this one."""
        self.needs(brokers, "counts_deliveries")
        topology = make_topology()
        broker = await start(brokers, topology)
        await publish(broker, make_outgoing())

        arrivals, _ = await consume(broker, topology.queues[0].name)
        (delivery,) = await arrivals.reach(1)

        assert 0 == delivery.delivery_count
        assert delivery.dead_reason is None

    async def test_a_nacked_delivery_comes_again_and_is_counted(self, brokers: Brokers) -> None:
        """Not done here; perhaps elsewhere."""
        topology = make_topology()
        broker = await start(brokers, topology)
        outgoing = make_outgoing()
        await publish(broker, outgoing)
        arrivals, _ = await consume(broker, topology.queues[0].name)

        (first,) = await arrivals.reach(1)
        assert first.nack()
        _, second = await arrivals.reach(2)
        assert second.nack()
        _, _, third = await arrivals.reach(3)

        assert [outgoing.message] * 3 == [delivery.message for delivery in arrivals.all]
        if brokers.capabilities.counts_deliveries:
            assert [0, 1, 2] == [delivery.delivery_count for delivery in (first, second, third)]

    async def test_a_rejected_delivery_goes_to_the_dead_queue_with_its_reason(self, brokers: Brokers) -> None:
        """L4: never dropped, whoever refuses it."""
        topology = make_topology()
        broker = await start(brokers, topology)
        outgoing = make_outgoing()
        await publish(broker, outgoing)
        queue = topology.queues[0].name
        arrivals, _ = await consume(broker, queue)
        dead, _ = await consume(broker, GivenUp(queue))

        (delivery,) = await arrivals.reach(1)
        assert delivery.reject()

        (letter,) = await dead.reach(1)
        assert (outgoing.message, queue, "rejected") == (letter.message, letter.queue, letter.dead_reason)
        assert letter.ack()
        assert 1 == len(arrivals.all)

    async def test_a_message_over_its_delivery_limit_goes_to_the_dead_queue(self, brokers: Brokers) -> None:
        """A message that kills its consumer must stop some day, and be seen."""
        self.needs(brokers, "counts_deliveries")
        topology = make_topology(delivery_limit=_DELIVERY_LIMIT)
        broker = await start(brokers, topology)
        outgoing = make_outgoing()
        await publish(broker, outgoing)
        queue = topology.queues[0].name
        dead, _ = await consume(broker, GivenUp(queue))
        counts: list[int] = []

        def nack(delivery: Incoming) -> None:
            counts.append(delivery.delivery_count)
            delivery.nack()

        await broker.subscribe(queue, 1, nack)

        (letter,) = await dead.reach(1)
        assert list(range(_DELIVERY_LIMIT + 1)) == counts
        assert (outgoing.message, queue, "delivery_limit") == (letter.message, letter.queue, letter.dead_reason)

    @pytest.mark.parametrize("first", ["ack", "nack", "reject"])
    async def test_a_delivery_is_settled_once(self, brokers: Brokers, first: str) -> None:
        """The second answer is refused, whatever it is, and changes nothing."""
        topology = make_topology()
        broker = await start(brokers, topology)
        await publish(broker, make_outgoing())
        arrivals, _ = await consume(broker, topology.queues[0].name)
        (delivery,) = await arrivals.reach(1)
        was_stale = delivery.is_stale

        answers = [getattr(delivery, verb)() for verb in (first, "ack", "nack", "reject")]

        assert [True, False, False, False] == answers
        assert (False, True) == (was_stale, delivery.is_stale)

    async def test_a_delivery_of_a_stopped_broker_cannot_be_settled(self, brokers: Brokers) -> None:
        """L11: it may be with somebody else by now."""
        topology = make_topology()
        broker = await start(brokers, topology)
        await publish(broker, *(make_outgoing() for _ in range(3)))
        arrivals, _ = await consume(broker, topology.queues[0].name)
        ack, nack, reject = await arrivals.reach(3)

        await broker.stop()

        assert [True] * 3 == [delivery.is_stale for delivery in (ack, nack, reject)]
        assert (False, False, False) == (ack.ack(), nack.nack(), reject.reject())

    async def test_unsettled_deliveries_of_a_stopped_broker_come_back_in_order(self, brokers: Brokers) -> None:
        """A deploy loses nothing and overtakes nothing."""
        self.needs(brokers, "is_shared")
        topology = make_topology()
        publisher = await start(brokers, topology)
        consumer = await start(brokers, topology)
        sent = [make_outgoing() for _ in range(5)]
        await publish(publisher, *sent)
        arrivals, _ = await consume(consumer, topology.queues[0].name, prefetch=3)
        await arrivals.reach(3)

        await consumer.stop()

        inherited, _ = await consume(publisher, topology.queues[0].name)
        await inherited.reach(5)
        expected = [outgoing.message.id for outgoing in sent]
        assert expected == (inherited.ids if brokers.capabilities.keeps_order else sorted(inherited.ids))

    async def test_what_an_ordered_queue_takes_back_goes_on_in_order(self, brokers: Brokers) -> None:
        """S6: one process at a time; what it gives back goes to the next one, and nothing has overtaken it."""
        self.needs(brokers, "is_shared")
        topology = make_topology(queues={"steps.fifo": ("test.happened",)}, is_ordered=True)
        aside = make_topology()
        publisher, one, two = [await start(brokers, topology) for _ in range(3)]
        queue = topology.queues[0].name
        active, held = await consume(one, queue, prefetch=3)
        sent = [make_outgoing(key="a key") for _ in range(5)]
        await publish(publisher, *sent)
        seconds = CONNECT_SECONDS
        await eventually(lambda: bool(active.all), seconds)
        passive, _ = await consume(two, queue, prefetch=10)
        elsewhere = await start(brokers, aside)
        await publish(elsewhere, make_outgoing())
        await (await consume(elsewhere, aside.queues[0].name))[0].reach(1)  # time for who must not get any
        assert [] == passive.all

        await held.give_back()

        await passive.reach(5, seconds)
        assert {True} == {delivery.is_stale for delivery in active.all}
        assert [outgoing.message.id for outgoing in sent] == passive.ids

    async def test_consumers_of_one_queue_share_its_messages(self, brokers: Brokers) -> None:
        """Each message goes to one of them."""
        self.needs(brokers, "is_shared")
        topology = make_topology()
        one = await start(brokers, topology)
        two = await start(brokers, topology)
        first, _ = await consume(one, topology.queues[0].name, prefetch=5)
        second, _ = await consume(two, topology.queues[0].name, prefetch=5)
        sent = [make_outgoing() for _ in range(10)]

        await publish(one, *sent)

        await eventually(lambda: len(first.all) + len(second.all) == 10, CONNECT_SECONDS)
        assert {outgoing.message.id for outgoing in sent} == {*first.ids, *second.ids}

    async def test_a_cancelled_subscription_takes_no_more(self, brokers: Brokers) -> None:
        """The first step of a drain. What it has is still its own to settle."""
        topology = make_topology()
        broker = await start(brokers, topology)
        await publish(broker, make_outgoing(), make_outgoing())
        arrivals, subscription = await consume(broker, topology.queues[0].name, prefetch=10)
        done, returned = await arrivals.reach(2)

        await subscription.cancel()
        await subscription.cancel()
        later = make_outgoing()
        await publish(broker, later)
        await holds_for(lambda: len(arrivals.all) == 2)

        assert not subscription.is_active
        assert (True, True) == (done.ack(), returned.nack())
        heirs, _ = await consume(broker, topology.queues[0].name)
        await heirs.reach(2)
        assert {later.message.id, returned.message.id} == set(heirs.ids)

    async def test_messages_outlive_their_publisher(self, brokers: Brokers) -> None:
        """Confirmed is durable: everybody may go and come back."""
        self.needs(brokers, "survives_restart")
        topology = make_topology()
        publisher = await start(brokers, topology)
        sent = [make_outgoing() for _ in range(3)]
        await publish(publisher, *sent)

        await publisher.stop()

        consumer: Broker = await start(brokers, topology)
        arrivals, _ = await consume(consumer, topology.queues[0].name)
        await arrivals.reach(3)
        assert [outgoing.message.id for outgoing in sent] == arrivals.ids
