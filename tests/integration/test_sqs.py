"""The SQS adapter where a real one would be hurt: what vanishes, what is slow, who is foreign. On moto's server."""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import AsyncIterator, Coroutine
from dataclasses import replace
from typing import Any

import pytest
from aiobotocore.session import get_session

from spoolproof import limits
from spoolproof.backoff import system_random
from spoolproof.brokers.sqs import SqsBroker
from spoolproof.brokers.sqs.doctor import look
from spoolproof.brokers.sqs.names import Names
from spoolproof.brokers.sqs.wire import encode
from spoolproof.clock import SystemClock
from spoolproof.destination import back_after
from spoolproof.errors import BrokerUnavailable, EncodeError
from spoolproof.message import Outgoing
from spoolproof.ports.broker import Confirmed, ConnectionState, GivenUp, Returned, Topology
from spoolproof.testing.conformance import eventually
from spoolproof.testing.conformance._broker import (
    CONNECT_SECONDS,
    Arrivals,
    Outcomes,
    consume,
    make_topology,
    publish,
    start,
)
from spoolproof.testing.conformance._messages import make_message, make_outgoing
from spoolproof.testing.conformance._wait import holds_for, monotonic
from spoolproof.testing.servers import MotoServer
from spoolproof.testing.servers.moto import REGION

pytestmark = [pytest.mark.integration, pytest.mark.servers]

CLOCK = SystemClock()


def _spawn(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    return asyncio.get_running_loop().create_task(work, name=name)


class Broker(SqsBroker):
    """A broker as the tests here want one."""

    def __init__(self, url: str, **options: Any) -> None:
        values = {"is_required": False, "rounds_max": 1, "retry_first_seconds": 0.3, **options}
        super().__init__(url, clock=CLOCK, random=system_random(), spawn=_spawn, **values)


class Brokers:
    """One test's corner of the server, and whoever is in it."""

    capabilities = SqsBroker.capabilities

    def __init__(self, server: MotoServer, plain: dict[str, Any]) -> None:
        self.server = server
        self.prefix = f"{uuid.uuid4().hex[:8]}-"
        self.names = Names(self.prefix)
        self.sqs, self.sns = plain["sqs"], plain["sns"]  #: what an operator or somebody else uses
        self.options: dict[str, Any] = {}
        self._made: list[Broker] = []

    def another(self) -> Broker:
        self._made.append(Broker(self.server.url_of(self.prefix), **self.options))
        return self._made[-1]

    async def start(self, topology: Topology) -> Broker:
        broker = self.another()
        await broker.start(topology)
        return broker

    async def url(self, queue: str) -> str:
        return str((await self.sqs.get_queue_url(QueueName=self.names.queue(queue)))["QueueUrl"])

    async def send(self, queue: str, body: str, attributes: dict[str, Any] | None = None) -> None:
        url = await self.url(queue)
        await self.sqs.send_message(QueueUrl=url, MessageBody=body, MessageAttributes=attributes or {})

    async def subscriptions(self, topology: Topology, type: str) -> list[str]:
        topics = (await self.sns.list_topics())["Topics"]
        name = self.names.topic(topology.exchange, type, is_fifo=False)
        (arn,) = [one["TopicArn"] for one in topics if one["TopicArn"].endswith(f":{name}")]
        answer = await self.sns.list_subscriptions_by_topic(TopicArn=arn)
        return [one["SubscriptionArn"] for one in answer["Subscriptions"]]

    async def stop(self) -> None:
        await asyncio.gather(*(broker.stop() for broker in self._made))


@pytest.fixture
async def plain(moto: MotoServer) -> AsyncIterator[dict[str, Any]]:
    moto.start()
    async with _clients(moto) as clients:
        yield clients


@pytest.fixture
async def brokers(moto: MotoServer, plain: dict[str, Any]) -> AsyncIterator[Brokers]:
    made = Brokers(moto, plain)
    yield made
    await made.stop()


class _clients:
    def __init__(self, server: MotoServer) -> None:
        self._options = {
            "region_name": REGION,
            "endpoint_url": server.endpoint,
            "aws_access_key_id": "test",
            "aws_secret_access_key": "test",
        }

    async def __aenter__(self) -> dict[str, Any]:
        session = get_session()
        self._contexts = {name: session.create_client(name, **self._options) for name in ("sqs", "sns")}
        return {name: await context.__aenter__() for name, context in self._contexts.items()}

    async def __aexit__(self, *_: object) -> None:
        for context in self._contexts.values():
            await context.__aexit__(None, None, None)


# --- deliveries ------------------------------------------------------------------------------------------------------


async def test_a_message_stays_with_its_handler_for_as_long_as_that_runs(brokers: Brokers) -> None:
    """A handler that outlasts the visibility would have a second one beside it."""
    brokers.options = {"visibility_seconds": 2}
    topology = make_topology()
    broker = await start(brokers, topology)
    await publish(broker, make_outgoing())
    arrivals, _ = await consume(broker, topology.queues[0].name)
    (delivery,) = await arrivals.reach(1)

    await holds_for(lambda: len(arrivals.all) == 1 and not delivery.is_stale, seconds=5.0)

    assert delivery.ack()
    await eventually(lambda: _is_empty(broker, topology.queues[0].name))


async def test_what_a_killed_process_held_is_with_another_one_after_its_visibility(brokers: Brokers) -> None:
    """And the dead one's word counts no more, should it come back from a freeze."""
    brokers.options = {"visibility_seconds": 3}
    topology = make_topology()
    dying = await start(brokers, topology)
    await publish(dying, make_outgoing())
    arrivals, _ = await consume(dying, topology.queues[0].name)
    (frozen,) = await arrivals.reach(1)
    for task in [one for one in asyncio.all_tasks() if one.get_name().startswith("sqs.")]:
        task.cancel()

    inherited, _ = await consume(await start(brokers, topology), topology.queues[0].name)

    (delivery,) = await inherited.reach(1)
    assert 1 == delivery.delivery_count
    assert (True, False) == (frozen.is_stale, frozen.ack())


async def test_a_message_before_its_time_is_sent_on_and_not_counted(brokers: Brokers) -> None:
    """SQS delays for 15 minutes at most; a longer delay is several, and comes as if it were one."""
    topology = make_topology()
    broker = await start(brokers, topology)
    queue = topology.queues[0].name
    message = make_message()
    arrivals, _ = await consume(broker, queue)
    wire = encode(message, due=CLOCK.now().timestamp() + 3)
    sent_at = monotonic()

    await brokers.send(queue, wire.body, wire.attributes)

    (delivery,) = await arrivals.reach(1)
    assert monotonic() - sent_at >= 2.5
    assert (message, 0) == (delivery.message, delivery.delivery_count)
    assert delivery.ack()
    await eventually(lambda: _is_empty(broker, queue))


# --- foreign peers ---------------------------------------------------------------------------------------------------


async def test_others_subscribe_to_a_type_and_read_plain_json(brokers: Brokers) -> None:
    """And an event is theirs too when this service has no queue for it."""
    topology = make_topology("test.happened")
    broker = await start(brokers, topology)
    created = await brokers.sqs.create_queue(QueueName=f"{brokers.prefix}theirs")
    attributes = await brokers.sqs.get_queue_attributes(QueueUrl=created["QueueUrl"], AttributeNames=["QueueArn"])
    topic = await brokers.sns.create_topic(Name=brokers.names.topic(topology.exchange, "theirs.only", is_fifo=False))
    await brokers.sns.subscribe(
        TopicArn=topic["TopicArn"],
        Protocol="sqs",
        Endpoint=attributes["Attributes"]["QueueArn"],
        Attributes={"RawMessageDelivery": "true"},
    )

    outcomes = await publish(broker, make_outgoing("theirs.only", body=b'{"order":7}'))

    answer = await brokers.sqs.receive_message(
        QueueUrl=created["QueueUrl"], WaitTimeSeconds=5, MessageAttributeNames=["type"]
    )
    (got,) = answer["Messages"]
    assert [Confirmed()] == outcomes
    assert ({"order": 7}, "theirs.only") == (
        json.loads(got["Body"]),
        got["MessageAttributes"]["type"]["StringValue"],
    )


async def test_plain_json_of_others_arrives_with_its_attributes(brokers: Brokers) -> None:
    """boto3 and everything else that knows SQS and not us."""
    topology = make_topology()
    broker = await start(brokers, topology)
    queue = topology.queues[0].name
    arrivals, _ = await consume(broker, queue)

    await brokers.send(queue, '{"a":1}', {"type": {"DataType": "String", "StringValue": "legacy.placed"}})

    (delivery,) = await arrivals.reach(1)
    assert ("legacy.placed", b'{"a":1}', None) == (delivery.message.type, delivery.message.body, delivery.fault)
    assert uuid.UUID(delivery.message.id)


async def test_a_queue_that_others_have_made_is_used_as_it_is(brokers: Brokers) -> None:
    """What an operator has chosen stays; what is missing is given to it."""
    topology = make_topology()
    name = topology.queues[0].name
    theirs = await brokers.sqs.create_queue(
        QueueName=brokers.names.queue(name), Attributes={"MessageRetentionPeriod": "86400", "VisibilityTimeout": "7"}
    )

    broker = await start(brokers, topology)

    found = await brokers.sqs.get_queue_attributes(QueueUrl=theirs["QueueUrl"], AttributeNames=["All"])
    attributes = found["Attributes"]
    assert ("86400", "7") == (attributes["MessageRetentionPeriod"], attributes["VisibilityTimeout"])
    assert topology.queues[0].delivery_limit + 1 == json.loads(attributes["RedrivePolicy"])["maxReceiveCount"]
    assert () == broker.status().issues

    await broker.stop()
    other = {**json.loads(attributes["RedrivePolicy"]), "maxReceiveCount": 3}
    await brokers.sqs.set_queue_attributes(
        QueueUrl=theirs["QueueUrl"],
        Attributes={"RedrivePolicy": json.dumps(other), "Policy": attributes["Policy"]},
    )
    (issue,) = (await start(brokers, topology)).status().issues
    assert f"queue {name}: used as it is" in issue


# --- what vanishes ---------------------------------------------------------------------------------------------------


async def test_a_subscription_that_vanishes_is_seen_and_made_again(
    brokers: Brokers, caplog: pytest.LogCaptureFixture
) -> None:
    """L29: SNS confirms a message that nobody will get. It is looked for once a minute, here more often."""
    brokers.options = {"check_seconds": 0.2}
    topology = make_topology("test.happened")
    broker = await start(brokers, topology)
    arrivals, _ = await consume(broker, topology.queues[0].name)
    (subscription,) = await brokers.subscriptions(topology, "test.happened")

    await brokers.sns.unsubscribe(SubscriptionArn=subscription)
    await eventually(lambda: "subscription of" in "".join(broker.status().issues), CONNECT_SECONDS)

    assert [Confirmed()] == await publish(broker, make_outgoing("test.happened"))
    await arrivals.reach(1)
    assert [logging.ERROR] == [one.levelno for one in caplog.records if "sqs.vanished" in one.getMessage()]


async def test_without_a_subscription_nothing_is_sent(brokers: Brokers) -> None:
    """L29: before the first publish it is known whether anybody listens; a topic alone is not enough."""
    topology = make_topology("test.happened")
    broker = await start(brokers, topology)
    await brokers.sns.create_topic(Name=brokers.names.topic(topology.exchange, "test.unheard", is_fifo=False))

    (outcome,) = await publish(broker, make_outgoing("test.unheard"))

    assert isinstance(outcome, Returned)


async def test_a_topic_that_vanishes_costs_no_message(brokers: Brokers) -> None:
    """Its publishes wait until it is there again, and its subscription with it."""
    topology = make_topology("test.happened")
    broker = await start(brokers, topology)
    arrivals, _ = await consume(broker, topology.queues[0].name)
    await publish(broker, make_outgoing("test.happened"))
    (subscription,) = await brokers.subscriptions(topology, "test.happened")

    await brokers.sns.delete_topic(TopicArn=subscription.rpartition(":")[0])
    sent = make_outgoing("test.happened")
    await _until_confirmed(broker, sent)

    await arrivals.reach(2)
    assert sent.message.id == arrivals.ids[-1]


@pytest.mark.parametrize("destination", ["events", "queue", "delay"])
async def test_a_queue_that_vanishes_is_seen_made_again_and_costs_nothing_that_was_not_in_it(
    brokers: Brokers, destination: str
) -> None:
    """An operator's slip: what is published meanwhile waits, whatever way it goes."""
    topology = make_topology("test.happened")
    broker = await start(brokers, topology)
    queue = topology.queues[0].name
    arrivals, subscription = await consume(broker, queue)
    where = {"events": ("events", None), "queue": (f"queue:{queue}", None), "delay": ("delay:1", queue)}[destination]

    await brokers.sqs.delete_queue(QueueUrl=await brokers.url(queue))
    await eventually(lambda: not subscription.is_active or bool(broker.status().issues), CONNECT_SECONDS)
    sent = make_outgoing("test.happened", destination=where[0], routing_key=where[1])
    await _until_confirmed(broker, sent)

    await arrivals.reach(1)
    assert [sent.message.id] == arrivals.ids
    assert any(f"queue {queue} had vanished" in issue for issue in broker.status().issues)


# --- limits and outages ----------------------------------------------------------------------------------------------


async def test_what_is_too_large_for_sns_is_refused_before_it_is_sent(brokers: Brokers) -> None:
    """It would be refused each time, and its nine neighbours with it."""
    broker = await start(brokers, make_topology())
    outcomes = Outcomes()

    with pytest.raises(EncodeError, match="262144"):
        broker.submit(make_outgoing(body=b"1" * limits.SQS_MESSAGE_BYTES_MAX), 1, outcomes)

    large = [make_outgoing(body=b"1" * 100_000) for _ in range(8)]  # two to a request
    assert [Confirmed()] * 8 == await publish(broker, *large)
    assert [] == outcomes.pairs


class Refusing:
    """A server that answers every request alike."""

    def __init__(self, status: str, body: str = "") -> None:
        self._answer = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
        self.requests = 0

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        return f"sqs://test:test@{REGION}?endpoint=http://127.0.0.1:{port}"

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.requests += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(self._answer)
        writer.close()


async def test_a_key_that_nobody_knows_is_failed_with_words_and_tried_again() -> None:
    """Trying alone will not help; but keys are exchanged, and nobody should have to restart a service for it."""
    refusal = {"__type": "com.amazon.coral.service#UnrecognizedClientException", "message": "The token is invalid."}
    async with Refusing("403 Forbidden", json.dumps(refusal)) as url:
        broker = Broker(url)
        await broker.start(make_topology())
        await eventually(
            lambda: broker.status().state is ConnectionState.FAILED and broker.status().connections[0].attempt > 1,
            CONNECT_SECONDS,
        )
        found = broker.status()
        with pytest.raises(BrokerUnavailable, match="UnrecognizedClientException"):
            await look(url, CLOCK, system_random(), _spawn)
        await broker.stop()

    assert "SQS does not accept our credentials: UnrecognizedClientException: The token is invalid." in found.issues[0]
    assert found.connections[0].retry_at is not None


@pytest.mark.parametrize("status", ["503 Slow Down", "500 Oh"])
async def test_a_server_error_is_an_outage_with_back_off(status: str) -> None:
    """One that is known, with when it is tried again."""
    server = Refusing(status)
    async with server as url:
        broker = Broker(url)
        await broker.start(make_topology())
        await eventually(lambda: broker.status().connections[0].attempt >= 3, CONNECT_SECONDS)
        found = broker.status()
        await broker.stop()

    assert found.state in (ConnectionState.CONNECTING, ConnectionState.DISCONNECTED)
    assert status[:3] in (found.connections[0].last_error or "")
    assert 0 == broker.room()
    assert server.requests <= 4, "a hammered service does not come back"


async def test_a_required_broker_that_does_not_answer_fails_the_start() -> None:
    """Its settings, its last error, and what to set."""
    broker = Broker(f"sqs://test:test@{REGION}?endpoint=http://127.0.0.1:1", is_required=True)

    with pytest.raises(BrokerUnavailable, match=r"(?s)Could not connect.*SPOOLPROOF_BROKER_REQUIRED"):
        await broker.start(make_topology())

    assert ConnectionState.DISCONNECTED is broker.status().state


async def test_a_doctor_sees_who_answers(moto: MotoServer) -> None:
    """Without declaring anything."""
    moto.start()

    assert f"SQS in {REGION}" == await look(moto.url, CLOCK, system_random(), _spawn)


# --- FIFO ------------------------------------------------------------------------------------------------------------


def fifo(topology: Topology) -> Topology:
    """The same with FIFO queues."""
    queues = tuple(replace(spec, name=f"{spec.name}.fifo") for spec in topology.queues)
    return replace(topology, queues=queues)


async def test_events_of_a_key_arrive_in_a_fifo_queue_in_order_and_in_others_too(brokers: Brokers) -> None:
    """FIFO topics deliver to FIFO queues, others to others: an event goes to both, and is confirmed by both."""
    ours, theirs = fifo(make_topology("test.happened")), make_topology("test.happened")
    theirs = replace(theirs, exchange=ours.exchange)
    other, broker = await start(brokers, theirs), await start(brokers, ours)
    sent = [make_outgoing("test.happened", key="k" if number % 2 else "a key with spaces") for number in range(40)]

    for one in sent:  # as the relay does: one of a key at a time
        assert [Confirmed()] == await publish(broker, one)

    arrivals, elsewhere = Arrivals(), Arrivals()

    def take(delivery: Any) -> None:
        arrivals(delivery)
        delivery.ack()

    await broker.subscribe(ours.queues[0].name, 10, take)
    await other.subscribe(theirs.queues[0].name, 100, elsewhere)
    await arrivals.reach(40)
    await elsewhere.reach(40)
    for parity in (0, 1):
        ids = [one.message.id for one in sent[parity::2]]
        assert ids == [one for one in arrivals.ids if one in ids]
    assert {one.message.id for one in sent} == set(elsewhere.ids)


async def test_a_fifo_queue_takes_a_copy_and_drops_only_what_is_sent_twice(brokers: Brokers) -> None:
    """Within five minutes it drops what has the same deduplication id: a retry of the same message must not have it."""
    topology = fifo(make_topology())
    broker = await start(brokers, topology)
    queue = topology.queues[0].name
    outgoing = make_outgoing(destination=f"queue:{queue}", key="k")
    copy = Outgoing(message=outgoing.message, destination=back_after(1), routing_key=queue)
    arrivals, _ = await consume(broker, queue)
    sent_at = monotonic()

    await publish(broker, outgoing, outgoing)
    first = (await arrivals.reach(1))[0]
    await publish(broker, copy)
    first.ack()

    _, second = await arrivals.reach(2)
    assert monotonic() - sent_at >= 1.0
    assert (outgoing.message, 0) == (second.message, second.delivery_count)
    second.ack()
    await holds_for(lambda: len(arrivals.all) == 2, seconds=1.5)


async def test_a_rejected_delivery_of_a_fifo_queue_is_in_its_dead_queue(brokers: Brokers) -> None:
    """Which must be one too."""
    topology = fifo(make_topology())
    broker = await start(brokers, topology)
    queue = topology.queues[0].name
    await publish(broker, make_outgoing(destination=f"queue:{queue}"))
    arrivals, _ = await consume(broker, queue)
    dead, _ = await consume(broker, GivenUp(queue))

    (await arrivals.reach(1))[0].reject()

    (letter,) = await dead.reach(1)
    assert ("rejected", arrivals.all[0].message) == (letter.dead_reason, letter.message)


# --- shared ----------------------------------------------------------------------------------------------------------


async def _is_empty(broker: SqsBroker, queue: str) -> bool:
    return await broker.depth(queue) == 0


async def _until_confirmed(broker: SqsBroker, outgoing: Outgoing) -> None:
    """Publish as the relay does: what is barred waits and is sent again."""
    async with asyncio.timeout(CONNECT_SECONDS):
        while await publish(broker, outgoing) != [Confirmed()]:
            await asyncio.sleep(0.2)
