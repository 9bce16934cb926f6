"""The contract of publishing: every submit has exactly one outcome, and it is true."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spoolproof.destination import to_queue
from spoolproof.errors import BrokerUnavailable, EncodeError, WindowFull
from spoolproof.message import Message, Outgoing
from spoolproof.ports.broker import Barred, Confirmed, Returned, Unknown
from spoolproof.testing.conformance._broker import (
    CONNECT_SECONDS,
    Brokers,
    BrokerSuite,
    Outcomes,
    consume,
    make_topology,
    publish,
    start,
)
from spoolproof.testing.conformance._messages import make_outgoing, messages, round_trip_settings
from spoolproof.testing.conformance._wait import eventually, holds_for, monotonic, within


@pytest.mark.asyncio
class BrokerPublishConformance(BrokerSuite):
    """Needs the fixture `brokers`."""

    async def test_each_submit_has_one_outcome_and_never_from_within_the_call(self, brokers: Brokers) -> None:
        """The relay keeps its books between turns; an answer inside submit would come before the question."""
        broker = await start(brokers, make_topology())
        outcomes = Outcomes()
        answered_within = []

        for token in range(300):
            assert await broker.wait_for_room(CONNECT_SECONDS)
            before = len(outcomes.pairs)
            broker.submit(make_outgoing(), token, outcomes)
            answered_within.append(len(outcomes.pairs) - before)

        await eventually(lambda: len(outcomes.pairs) >= 300, CONNECT_SECONDS)
        await holds_for(lambda: len(outcomes.pairs) == 300, seconds=0.05)
        assert {0} == set(answered_within)
        assert {token: Confirmed() for token in range(300)} == outcomes.by_token()

    async def test_confirmed_means_in_every_bound_queue(self, brokers: Brokers) -> None:
        """Two subscribers: a confirm after the first only would lose the second's."""
        topology = make_topology(queues={"a": ("test.happened",), "b": ("test.*",)})
        broker = await start(brokers, topology)
        outgoing = make_outgoing()

        outcomes = await publish(broker, outgoing)

        assert [Confirmed()] == outcomes
        for spec in topology.queues:
            arrivals, _ = await consume(broker, spec.name)
            await arrivals.reach(1)
            assert [outgoing.message.id] == arrivals.ids

    @pytest.mark.parametrize("destination", ["events", "queue:nowhere.at.all", "exchange:nowhere.at.all"])
    async def test_a_message_for_nobody_is_returned(self, brokers: Brokers, destination: str) -> None:
        """L2: confirmed and dropped would be a loss."""
        self.needs(brokers, "has_returns")
        broker = await start(brokers, make_topology("test.happened"))

        (outcome,) = await publish(broker, make_outgoing("test.unheard", destination=destination))

        may_be_made = destination.startswith("exchange:")  # by those whose exchange it is
        assert isinstance(outcome, Returned | Barred if may_be_made else Returned)
        assert outcome.detail

    @pytest.mark.parametrize("destination", ["", "queue:", "exchange:", "delay:", "delay:soon", "newer:kind", "orders"])
    async def test_a_destination_that_nobody_knows_is_refused_by_name(self, brokers: Brokers, destination: str) -> None:
        """To guess is to lose the message; to raise anything else is to hold up its neighbours."""
        topology = make_topology()
        broker = await start(brokers, topology)

        with pytest.raises(EncodeError, match=f"destination='{destination}' is not known"):
            await publish(broker, make_outgoing(destination=destination))

        outcomes = await publish(broker, make_outgoing())
        assert [Confirmed()] == outcomes

    async def test_outcomes_are_each_messages_own(self, brokers: Brokers) -> None:
        """A return among a hundred confirms belongs to the one message that has no queue."""
        self.needs(brokers, "has_returns")
        broker = await start(brokers, make_topology("test.happened"))
        sent = [make_outgoing("test.unheard" if number % 7 == 3 else "test.happened") for number in range(60)]

        outcomes = await publish(broker, *sent)

        expected = [Returned if number % 7 == 3 else Confirmed for number in range(60)]
        assert expected == [type(outcome) for outcome in outcomes]

    async def test_the_same_id_twice_in_flight_has_two_outcomes(self, brokers: Brokers) -> None:
        """L24: two publishes of one id must not swap their answers; tokens tell them apart."""
        self.needs(brokers, "has_returns")
        broker = await start(brokers, make_topology("test.happened"))
        heard = make_outgoing("test.happened")
        unheard = make_outgoing("test.unheard", id=heard.message.id)

        outcomes = await publish(broker, heard, unheard, heard)

        assert [Confirmed, Returned, Confirmed] == [type(outcome) for outcome in outcomes]

    async def test_without_room_submit_raises_and_sends_nothing(self, brokers: Brokers) -> None:
        """Everything has a limit; the caller keeps what was not taken."""
        broker = await start(brokers, make_topology())
        outcomes = Outcomes()
        taken = 0
        while broker.room() > 0:
            broker.submit(make_outgoing(), taken, outcomes)
            taken += 1

        with pytest.raises(WindowFull):
            broker.submit(make_outgoing(), "too many", outcomes)

        await eventually(lambda: len(outcomes.pairs) >= taken, CONNECT_SECONDS)
        assert set(range(taken)) == set(outcomes.by_token())

    async def test_room_comes_back_with_the_answers(self, brokers: Brokers) -> None:
        """Whoever waits for it is woken, long before its time."""
        broker = await start(brokers, make_topology())
        outcomes = Outcomes()
        while broker.room() > 0:
            broker.submit(make_outgoing(), object(), outcomes)
        started = monotonic()

        has_room = await broker.wait_for_room(60.0)

        assert has_room
        assert broker.room() > 0
        assert monotonic() - started < 30.0

    async def test_waiting_for_room_ends_at_its_time(self, brokers: Brokers) -> None:
        """A broker that is away must not hold its callers."""
        broker = brokers.another()

        assert not await within(broker.wait_for_room(0.05))
        assert 0 == broker.room()

    async def test_a_broker_that_is_not_connected_takes_nothing(self, brokers: Brokers) -> None:
        """Before start and after stop alike: the row stays in the outbox."""
        outcomes = Outcomes()
        unstarted = brokers.another()
        stopped = await start(brokers, make_topology())
        await stopped.stop()

        for broker in (unstarted, stopped):
            with pytest.raises(BrokerUnavailable):
                broker.submit(make_outgoing(), 1, outcomes)
            assert 0 == broker.room()
        assert [] == outcomes.pairs

    async def test_stop_ends_unanswered_publishes_as_unknown(self, brokers: Brokers) -> None:
        """Never guessed, and never forgotten: the relay waits for each."""
        broker = await start(brokers, make_topology())
        outcomes = Outcomes()
        sent = min(20, broker.room())
        for token in range(sent):
            broker.submit(make_outgoing(), token, outcomes)

        await broker.stop()

        await eventually(lambda: len(outcomes.pairs) >= sent)
        answers = outcomes.by_token()
        assert set(range(sent)) == set(answers)
        assert {type(answer) for answer in answers.values()} <= {Confirmed, Unknown}

    async def test_one_publishers_messages_arrive_in_order(self, brokers: Brokers) -> None:
        """Same key, same order: the relay sends in order, so the broker must keep it."""
        self.needs(brokers, "keeps_order")
        topology = make_topology()
        broker = await start(brokers, topology)
        sent = [make_outgoing(key="k") for _ in range(200)]
        await publish(broker, *sent)

        arrivals, _ = await consume(broker, topology.queues[0].name, prefetch=7)
        acked = 0
        while acked < len(sent):
            for delivery in (await arrivals.reach(acked + 1))[acked:]:
                delivery.ack()
                acked += 1

        assert [outgoing.message.id for outgoing in sent] == arrivals.ids

    @given(batch=st.lists(messages(), min_size=20, max_size=20))
    @settings(round_trip_settings, max_examples=4)  # each with a broker of its own
    async def test_every_field_of_every_legal_message_arrives_as_it_was(
        self, brokers: Brokers, batch: list[Message]
    ) -> None:
        """Byte for byte, and no header more."""
        topology = make_topology()
        broker = await start(brokers, topology)
        queue = topology.queues[0].name
        arrivals, _ = await consume(broker, queue)

        outcomes = await publish(broker, *(Outgoing(message=message, destination=to_queue(queue)) for message in batch))

        arrived = await arrivals.reach(len(batch))
        await broker.stop()
        assert {Confirmed()} == set(outcomes)
        assert {None} == {delivery.fault for delivery in arrived}
        assert _by_id(batch) == _by_id([delivery.message for delivery in arrived])


def _by_id(batch: list[Message]) -> dict[str, Message]:
    return {message.id: message for message in batch}
