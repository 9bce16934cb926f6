"""Publishing against a scripted broker: late, silent, blocked, lying."""

from __future__ import annotations

from typing import Any

import pytest
from pika import spec

from spoolproof import limits
from spoolproof.brokers.rabbitmq import RabbitMQBroker
from spoolproof.clock import SystemClock
from spoolproof.errors import BrokerBlocked, BrokerUnavailable, EncodeError
from spoolproof.ports.broker import Barred, Confirmed, Refused, Unknown
from spoolproof.testing.clock import ManualClock
from spoolproof.testing.conformance import eventually
from spoolproof.testing.conformance._broker import Outcomes, make_topology
from spoolproof.testing.conformance._messages import make_outgoing


async def open_window(server: Any, broker: RabbitMQBroker) -> int:
    """Confirm a first publish, after which the whole window is open; return the next delivery tag."""
    outcomes = Outcomes()
    broker.submit(make_outgoing(), "first", outcomes)
    await eventually(lambda: len(server.published) == 1)
    server.ack(1)
    await eventually(lambda: outcomes.pairs == [("first", Confirmed())])
    return 2


async def confirm_one_more(server: Any, broker: RabbitMQBroker) -> None:
    """Publish and confirm a message, past those that go unanswered: the broker is slow, not dead."""
    outcomes = Outcomes()
    tag = len(server.published) + 1
    broker.submit(make_outgoing(), 1, outcomes)
    await eventually(lambda: len(server.published) == tag)
    server.ack(tag)
    await eventually(lambda: outcomes.pairs == [(1, Confirmed())])


async def test_a_fresh_channel_carries_one_publish_until_it_has_confirmed_one(
    server: Any, broker: RabbitMQBroker
) -> None:
    """During an alarm the broker says "blocked" only after the first publish; the rest would be stuck behind it."""
    assert 1 == broker.room()
    await open_window(server, broker)
    assert limits.PUBLISH_WINDOW == broker.room()


async def test_nothing_is_published_before_select_ok(server: Any, clock: ManualClock, make_broker: Any) -> None:
    """L24: what is written before it gets no confirm, ever."""
    server.held.add(spec.Confirm.Select)
    broker = make_broker(server.url, clock=clock)
    await broker.start(make_topology())
    await eventually(lambda: server.channels_opened == 1)

    with pytest.raises(BrokerUnavailable):
        broker.submit(make_outgoing(), 1, Outcomes())

    assert 0 == broker.room()
    assert [] == server.published
    server.drop_connections()  # or stop() would wait for an answer that does not come


async def test_a_confirm_that_comes_too_late_is_unknown_once_and_blocks_nobody(
    server: Any, broker: RabbitMQBroker, clock: ManualClock
) -> None:
    """The row stays and is sent again, but never while the first may still be answered: returns go by id."""
    await open_window(server, broker)
    late, early, other, outcomes = make_outgoing(), make_outgoing(), make_outgoing(), Outcomes()
    broker.submit(late, "late", outcomes)
    await server.live_on(clock, limits.CONFIRM_SECONDS - 2)
    broker.submit(early, "early", Outcomes())
    await eventually(lambda: len(server.published) == 3)
    server.ack(3)
    await eventually(lambda: broker.room() == limits.PUBLISH_WINDOW - 1)
    await server.live_on(clock, 4)
    assert ["late"] == [token for token, _ in outcomes.pairs]
    assert isinstance(outcomes.pairs[0][1], Unknown)

    broker.submit(late, "again", outcomes)
    broker.submit(other, "other", outcomes)
    await eventually(lambda: len(server.published) == 4)
    assert late.message.id not in server.published[2:]
    server.ack(4)
    await eventually(lambda: ("other", Confirmed()) in outcomes.pairs)
    server.ack(2)
    await eventually(lambda: len(server.published) == 5)
    server.ack(5)

    await eventually(lambda: ("again", Confirmed()) in outcomes.pairs)
    expected = [late, early, other, late]
    assert [one.message.id for one in expected] == server.published[1:]
    assert 3 == len(outcomes.by_token())


async def test_a_broker_that_confirms_nothing_is_left_although_its_heart_beats(
    server: Any, broker: RabbitMQBroker, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A node on the wrong side of a partition answers heartbeats for ever, and confirms nothing that is to be safe."""
    await open_window(server, broker)
    outcomes = Outcomes()
    broker.submit(make_outgoing(), 1, outcomes)
    await server.live_on(clock, limits.CONFIRM_SECONDS + 2)

    await eventually(lambda: len(outcomes.pairs) == 1)
    assert isinstance(outcomes.pairs[0][1], Unknown)
    assert any("no confirm for 10 s" in issue for issue in broker.status().issues)
    while server.connections < 3:  # one to publish, one to consume, and the new one
        await server.live_on(clock, 1)
    assert await broker.wait_for_room(5.0)

    server.published.clear()
    await open_window(server, broker)
    assert () == broker.status().issues
    assert ["lost", "outcome=connected"] == [
        word for message in caplog.messages for word in ("lost", "outcome=connected") if word in message
    ]


async def test_a_silent_broker_is_left_by_both_connections_at_once(
    server: Any, broker: RabbitMQBroker, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A frozen node keeps its connections; heartbeat checks alone would notice after 15 to 30 s."""
    for _ in range(int(limits.SILENCE_SECONDS) + 2):
        await clock.advance(1)

    while server.connections < 4:
        await clock.advance(1)
    lost = [message for message in caplog.messages if "nothing heard for 10 s" in message]
    assert 2 == len(lost)


async def test_while_blocked_nothing_is_taken_and_nothing_given_up(
    server: Any, broker: RabbitMQBroker, clock: ManualClock
) -> None:
    """L28: what was read is confirmed on unblock; giving it up would make duplicates."""
    tag = await open_window(server, broker)
    outcomes = Outcomes()
    broker.submit(make_outgoing(), 1, outcomes)
    server.block(True)
    await eventually(lambda: broker.status().is_blocked)

    with pytest.raises(BrokerBlocked):
        broker.submit(make_outgoing(), 2, outcomes)
    await server.live_on(clock, limits.BLOCKED_ISSUE_SECONDS + 1)
    assert [] == outcomes.pairs
    assert "publish-0" in broker.status().issues[0]
    server.block(False)
    await eventually(lambda: not broker.status().is_blocked)
    await server.live_on(clock, limits.CONFIRM_SECONDS - 2)
    assert [] == outcomes.pairs
    server.ack(tag)

    await eventually(lambda: outcomes.pairs == [(1, Confirmed())])
    assert () == broker.status().issues


async def test_too_many_late_confirms_replace_the_channel(
    server: Any, broker: RabbitMQBroker, clock: ManualClock
) -> None:
    """A channel that leaves too much unanswered is let go, on the same connection."""
    await open_window(server, broker)
    outcomes = Outcomes()
    for token in range(limits.LATE_CONFIRMS_MAX):
        broker.submit(make_outgoing(), token, outcomes)
    await server.live_on(clock, limits.CONFIRM_SECONDS - 2)
    await confirm_one_more(server, broker)
    connections = server.connections
    await server.live_on(clock, 4)

    await eventually(lambda: server.channels_opened == 2)
    assert limits.LATE_CONFIRMS_MAX == len(outcomes.by_token())
    assert await broker.wait_for_room(5.0)
    assert connections == server.connections


async def test_a_confirm_on_a_replaced_channel_settles_nothing_of_the_next(
    server: Any, broker: RabbitMQBroker, clock: ManualClock
) -> None:
    """L11: tags restart at 1 with every channel; the old channel's late confirms bear the same numbers."""
    await open_window(server, broker)
    for token in range(limits.LATE_CONFIRMS_MAX):
        broker.submit(make_outgoing(), token, Outcomes())
    await server.live_on(clock, limits.CONFIRM_SECONDS - 2)
    await confirm_one_more(server, broker)
    old = server.publishing
    server.held.add(spec.Channel.Close)
    await server.live_on(clock, 4)
    assert await broker.wait_for_room(5.0)
    outcomes = Outcomes()
    broker.submit(make_outgoing(), 1, outcomes)
    await eventually(lambda: len(server.published) == limits.LATE_CONFIRMS_MAX + 3)

    server.ack(1, on=old)
    server.heartbeat()
    server.close_channel(541, "INTERNAL_ERROR")

    await eventually(lambda: len(outcomes.pairs) == 1)
    assert isinstance(outcomes.pairs[0][1], Unknown)
    server.drop_connections()  # or stop() would wait for an answer that does not come


async def test_every_new_connection_begins_with_one_publish(
    server: Any, broker: RabbitMQBroker, clock: ManualClock
) -> None:
    """The alarm may have begun while we were away."""
    await open_window(server, broker)
    server.drop_connections()
    await eventually(lambda: broker.room() == 0)

    while broker.room() == 0:
        await clock.advance(1)

    assert 1 == broker.room()


@pytest.mark.parametrize(("code", "expected"), [(403, Barred), (404, Barred), (406, Unknown), (541, Unknown)])
async def test_the_only_publish_on_its_way_is_not_blamed_for_what_may_be_the_brokers_trouble(
    server: Any, broker: RabbitMQBroker, code: int, expected: type
) -> None:
    """A permission or an exchange that is missing for a while must not make dead letters of what was accepted."""
    outcomes = Outcomes()
    for token in range(5):
        broker.submit(make_outgoing(), token, outcomes)
        await eventually(lambda token=token: len(server.published) == token + 1)
        server.close_channel(code, "because")
        await eventually(lambda token=token: len(outcomes.pairs) == token + 1)
        assert await broker.wait_for_room(5.0)

    assert {expected} == {type(outcome) for outcome in outcomes.by_token().values()}


async def test_a_message_that_closes_the_channel_twice_for_its_content_is_refused_and_others_go_on(
    server: Any, broker: RabbitMQBroker, clock: ManualClock
) -> None:
    """It would do so for ever, and take the confirms of its neighbours along each time."""
    bad, good = make_outgoing(), make_outgoing()
    outcomes = Outcomes()
    broker.submit(bad, "first", outcomes)
    await eventually(lambda: len(server.published) == 1)
    server.close_channel(406, "message size is larger than configured")
    await eventually(lambda: len(outcomes.pairs) == 1)
    assert await broker.wait_for_room(5.0)

    broker.submit(bad, "second", outcomes)
    await eventually(lambda: len(server.published) == 2)
    server.close_channel(406, "message size is larger than configured")
    await eventually(lambda: len(outcomes.pairs) == 2)
    assert await broker.wait_for_room(5.0)
    broker.submit(good, "good", outcomes)
    await eventually(lambda: len(server.published) == 3)
    server.ack(1)
    await eventually(lambda: len(outcomes.pairs) == 3)

    text = "406 message size is larger than configured"
    expected = {"first": Unknown(text, is_silence=False), "second": Refused(406, text), "good": Confirmed()}
    assert expected == outcomes.by_token()


async def test_a_message_that_cuts_the_line_again_and_again_lets_others_go_first_and_is_found(
    server: Any, make_broker: Any
) -> None:
    """A line that is cut says nothing of why; that others get through on the same channel does."""
    broker = make_broker(server.url, clock=SystemClock())
    await broker.start(make_topology())
    bad, outcomes, ends = make_outgoing(id="bad"), Outcomes(), 0

    while not any(isinstance(outcome, Refused) for _, outcome in outcomes.pairs):
        ends += 1
        assert ends < 8
        assert await broker.wait_for_room(5.0)
        broker.submit(bad, ("bad", ends), outcomes)
        while "bad" not in server.published:
            if broker.room() > 0:
                broker.submit(make_outgoing(), ("good", ends), outcomes)
            count = len(server.published)
            await eventually(lambda count=count: len(server.published) > count)
            if server.published[-1] != "bad":
                server.ack(len(server.published))
                await eventually(lambda ends=ends: ("good", ends) in dict(outcomes.pairs))
        server.published.clear()
        server.drop_connections()
        await eventually(lambda ends=ends: ("bad", ends) in dict(outcomes.pairs))

    goods = {outcome for (name, _), outcome in outcomes.pairs if name == "good"}
    assert {Confirmed()} == goods


async def test_what_is_barred_goes_alone_until_it_is_taken(server: Any, broker: RabbitMQBroker) -> None:
    """A probe of a destination without permission closes the channel; nothing else may be on its way then."""
    outcomes = Outcomes()
    legacy = [make_outgoing(destination="exchange:legacy") for _ in range(2)]
    broker.submit(legacy[0], "refused", outcomes)
    await eventually(lambda: len(server.published) == 1)
    server.close_channel(403, "ACCESS_REFUSED")
    assert await broker.wait_for_room(5.0)
    assert "test.happened to exchange:legacy waits: 403 ACCESS_REFUSED" in broker.status().issues
    tag = await open_window(server, broker)

    broker.submit(make_outgoing(), "event", outcomes)
    broker.submit(legacy[1], "again", outcomes)
    await eventually(lambda: len(server.published) == 3)
    assert legacy[1].message.id not in server.published
    assert 0 == broker.room()
    server.ack(tag)
    await eventually(lambda: len(server.published) == 4)
    server.ack(tag + 1)

    await eventually(lambda: len(outcomes.pairs) == 3)
    assert [Barred, Confirmed, Confirmed] == [type(outcome) for _, outcome in outcomes.pairs]
    assert () == broker.status().issues


async def test_of_several_publishes_on_their_way_none_is_blamed_and_they_go_singly(
    server: Any, broker: RabbitMQBroker
) -> None:
    """L25: one bad message must not make dead letters of its neighbours."""
    await open_window(server, broker)
    outcomes = Outcomes()
    for token in range(3):
        broker.submit(make_outgoing(), token, outcomes)
    await eventually(lambda: len(server.published) == 4)

    server.close_channel(406, "PRECONDITION_FAILED")
    await eventually(lambda: len(outcomes.pairs) == 3)

    assert {Unknown} == {type(outcome) for outcome in outcomes.by_token().values()}
    assert await broker.wait_for_room(5.0)
    again = Outcomes()
    for tag in (1, 2, 3):
        assert 1 == broker.room()
        broker.submit(make_outgoing(), tag, again)
        await eventually(lambda tag=tag: len(server.published) == 4 + tag)
        server.ack(tag)
        await eventually(lambda tag=tag: len(again.pairs) == tag)
    assert limits.PUBLISH_WINDOW == broker.room()


async def test_a_return_of_what_nobody_sent_ends_the_connection(server: Any, broker: RabbitMQBroker) -> None:
    """L24: some publish came back and we do not know which; then no confirm of this channel can be believed."""
    outcomes = Outcomes()
    broker.submit(make_outgoing(), 1, outcomes)
    await eventually(lambda: len(server.published) == 1)

    server.return_("never-sent")
    server.ack(1)

    await eventually(lambda: len(outcomes.pairs) == 1)
    assert isinstance(outcomes.pairs[0][1], Unknown)


async def test_what_amqp_cannot_carry_is_refused_and_takes_no_tag(server: Any, broker: RabbitMQBroker) -> None:
    """All is encoded before any of it is written; a tag counted here would shift every later confirm by one."""
    tag = await open_window(server, broker)
    outcomes = Outcomes()

    with pytest.raises(EncodeError, match="does not fit AMQP"):
        broker.submit(make_outgoing(id="x" * 256), 1, outcomes)
    with pytest.raises(EncodeError, match="destination='nowhere'"):
        broker.submit(make_outgoing(destination="nowhere"), 1, outcomes)
    broker.submit(make_outgoing(), 2, outcomes)
    await eventually(lambda: len(server.published) == 2)
    server.ack(tag)

    await eventually(lambda: outcomes.pairs == [(2, Confirmed())])


async def test_a_sink_that_raises_harms_no_other(server: Any, broker: RabbitMQBroker) -> None:
    """An exception inside pika would take the connection, and with it every consumer of it."""
    tag = await open_window(server, broker)
    outcomes = Outcomes()

    def broken(_: object) -> None:
        raise RuntimeError("broken")

    broker.submit(make_outgoing(), 1, broken)
    broker.submit(make_outgoing(), 2, outcomes)
    await eventually(lambda: len(server.published) == 3)
    server.ack(tag + 1, multiple=True)

    await eventually(lambda: outcomes.pairs == [(2, Confirmed())])
    assert limits.PUBLISH_WINDOW == broker.room()
