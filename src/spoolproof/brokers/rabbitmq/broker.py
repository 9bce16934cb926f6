"""The broker port on RabbitMQ: connections that publish and connections that consume, each kept open by itself.

Connection i of a purpose begins at URL i, consuming one URL further on than publishing: with several nodes, the loss of
one takes neither all publishing nor all consuming.

Each ordered queue has one more: what is unsettled there goes back only by losing the connection, which must cost no
other queue anything.

Publishing begins once the topology was declared for the first time in this process: before that a message would come
back only because its queue is about to be made.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from spoolproof import limits
from spoolproof.backoff import RandomSource
from spoolproof.brokers.given_up import place_of
from spoolproof.brokers.rabbitmq.connection import BrokerConnection
from spoolproof.brokers.rabbitmq.consumer import Consumers, Lane, RabbitMQSubscription
from spoolproof.brokers.rabbitmq.declarer import Declarer, Mode
from spoolproof.brokers.rabbitmq.publishers import Publishers
from spoolproof.brokers.rabbitmq.sender import Sender, Shared
from spoolproof.brokers.rabbitmq.trial import try_out
from spoolproof.brokers.rabbitmq.urls import Address, parse_urls
from spoolproof.clock import Clock
from spoolproof.errors import BrokerUnavailable
from spoolproof.message import Outgoing
from spoolproof.ports.broker import (
    BrokerStatus,
    Capabilities,
    ConnectionState,
    ConnectionStatus,
    OnIncoming,
    QueueSpec,
    Sink,
    Source,
    Spawn,
    Subscription,
    Topology,
)
from spoolproof.telemetry.logging import silence

_KIND: Final = "rabbitmq"
_TICK_SECONDS = 1.0
_PURPOSES = ("publish", "consume")
_WORST_FIRST = (
    ConnectionState.FAILED,
    ConnectionState.DISCONNECTED,
    ConnectionState.CONNECTING,
    ConnectionState.CONNECTED,
)


class RabbitMQBroker:
    """See ports.broker.Broker."""

    capabilities = Capabilities(
        has_own_queues=True,
        tells_routing_key=True,
        has_returns=True,
        keeps_order=True,
        counts_deliveries=True,
        survives_restart=True,
        is_shared=True,
    )

    def __init__(
        self,
        urls: Sequence[str],
        *,
        clock: Clock,
        random: RandomSource,
        spawn: Spawn,
        retry_first_seconds: float,
        is_required: bool,
        rounds_max: int,
        publish_connections: int | None = None,
        consume_connections: int | None = None,
        topology_mode: Mode = "apply",
    ) -> None:
        """urls: `amqp(s)://user:password@host:port/vhost`, one per node. publish_connections, consume_connections: None
        is 1 with one URL, else 2. Raises SettingsError with every fault."""
        # each process starts elsewhere, so that a cluster is not hit node by node
        self._addresses = sorted(parse_urls(urls), key=lambda _: random.uniform(0.0, 1.0))
        self._service = ""  #: known from its topology on
        self._clock = clock
        self._random = random
        self._spawn_with = spawn
        self._retry_first_seconds = retry_first_seconds
        self._is_required = is_required
        self._rounds_max = rounds_max if is_required else None
        self._tasks: set[asyncio.Task[None]] = set()
        usual = 1 if len(self._addresses) == 1 else 2
        self._publish_count = publish_connections or usual
        self._consume_count = consume_connections or usual
        self._topology_mode: Mode = topology_mode
        self._connections: list[BrokerConnection] = []
        self._sender: Sender | Publishers | None = None
        self._consumers: Consumers | None = None
        self._ordered: dict[str, Consumers | None] = {}  #: by queue; None until it is subscribed to
        self._declarer: Declarer | None = None
        self._trials = 0
        self._is_stopped = False

    async def start(self, topology: Topology) -> None:
        self._service = topology.service
        self._ordered = {spec.name: None for spec in topology.queues if spec.is_ordered}
        silence("pika")  # it logs a traceback per failed attempt; we log a line

        self._declarer = Declarer(topology, self._clock, self._spawn, self._topology_mode)
        self._consumers = consumers = self._make_consumers(declared=lambda: sender.allow())
        shared = Shared(self._clock)
        senders = [self._add_sender(i, topology, shared, consumers) for i in range(self._publish_count)]
        self._sender = sender = senders[0] if len(senders) == 1 else Publishers(senders, shared)
        for index in range(self._consume_count):
            self._add_lane(consumers, index, f"consume-{index}")
        self._spawn(self._watch(self._sender, consumers), "rabbitmq.watch")
        if self._is_required:
            await self._until_connected()

    def submit(self, outgoing: Outgoing, token: object, sink: Sink) -> None:
        if self._sender is None:
            raise BrokerUnavailable("the broker is not started")
        self._sender.submit(outgoing, token, sink)

    def room(self) -> int:
        return 0 if self._sender is None else self._sender.room()

    async def wait_for_room(self, timeout_seconds: float) -> bool:
        if self._sender is None:
            await self._clock.sleep(timeout_seconds)
            return False
        return await self._sender.wait_for_room(timeout_seconds)

    async def subscribe(self, source: Source, prefetch: int, on_delivery: OnIncoming) -> Subscription:
        if self._consumers is None:
            raise BrokerUnavailable("the broker is not started")
        if isinstance(source, QueueSpec) and self._declarer is not None:
            self._declarer.add(source)
        place = place_of(source, self._service)
        consumers = self._consumers if place.name not in self._ordered else self._consumers_of(place.name)
        return await consumers.subscribe(place, prefetch, on_delivery)

    async def depth(self, queue: str) -> int | None:
        if self._consumers is None:
            raise BrokerUnavailable("the broker is not started")
        return await self._consumers.depth(queue)

    async def remove(self, queue: str) -> int:
        if self._consumers is None:
            raise BrokerUnavailable("the broker is not started")
        return await self._consumers.remove(queue)

    def status(self) -> BrokerStatus:
        statuses = tuple(connection.status() for connection in self._connections)
        return BrokerStatus(
            kind=_KIND,
            state=_aggregate(statuses),
            is_blocked=_is_blocked(statuses),
            connections=statuses,
            issues=tuple(self._issues()),
            consumer_timeout_seconds=min(
                (one.consumer_timeout_seconds for one in self._all_consumers() if one.consumer_timeout_seconds),
                default=None,
            ),
        )

    async def stop(self) -> None:
        self._is_stopped = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(connection.stop() for connection in self._connections))

    def _all_consumers(self) -> list[Consumers]:
        return [one for one in (self._consumers, *self._ordered.values()) if one is not None]

    def _consumers_of(self, queue: str) -> Consumers:
        """Return those of an ordered queue, with their own connection, which is opened the first time."""
        consumers = self._ordered[queue]
        if consumers is None:
            consumers = self._ordered[queue] = self._make_consumers(declared=lambda: None)
            self._add_lane(consumers, 0, f"consume-{queue}", is_cut=True)
        return consumers

    def _make_consumers(self, declared: Callable[[], None]) -> Consumers:
        assert self._declarer is not None  # made at the start
        return Consumers(self._declarer, clock=self._clock, spawn=self._spawn, declared=declared, try_out=self._try_out)

    def _add_sender(self, index: int, topology: Topology, shared: Shared, consumers: Consumers) -> Sender:
        def abort(reason: str) -> None:
            connection.abort(reason)
            consumers.check()  # a node that answers no publish may deliver nothing either: ask it something

        sender = Sender(
            topology=topology,
            clock=self._clock,
            spawn=self._spawn,
            abort=abort,
            missing=consumers.check,
            shared=shared,
        )
        connection = self._connection("publish", index, sender, f"publish-{index}")
        return sender

    def _add_lane(self, consumers: Consumers, index: int, name: str, *, is_cut: bool = False) -> None:
        lane = Lane(consumers, lambda reason: connection.abort(reason))
        consumers.lanes.append(lane)
        connection = self._connection("consume", index + 1, lane, name, is_cut=is_cut)

    def _connection(
        self, purpose: str, offset: int, user: Sender | Lane, name: str, *, is_cut: bool = False
    ) -> BrokerConnection:
        connection = BrokerConnection(
            name,
            purpose,
            self._addresses_from(offset),
            user,
            identity=self._identity,
            clock=self._clock,
            random=self._random,
            retry_first_seconds=self._retry_first_seconds,
            rounds_max=self._rounds_max,
            is_cut=is_cut,
        )
        self._connections.append(connection)
        self._spawn(connection.run(), f"rabbitmq.{connection.name}")
        return connection

    def _addresses_from(self, offset: int) -> list[Address]:
        start = offset % len(self._addresses)
        return self._addresses[start:] + self._addresses[:start]

    @property
    def _identity(self) -> str:
        return f"{self._service}/{socket.gethostname()}/{os.getpid()}"

    async def _try_out(self, subscription: RabbitMQSubscription) -> str | None:
        self._trials += 1  # each at another node
        return await try_out(
            subscription.queue,
            self._addresses_from(self._trials),
            identity=self._identity,
            clock=self._clock,
            random=self._random,
            spawn=self._spawn,
        )

    async def _until_connected(self) -> None:
        """Return when a connection of each purpose is there; raise, with everything closed, when all of one gave up."""
        await asyncio.gather(*(connection.start_settled.wait() for connection in self._connections))
        for purpose in _PURPOSES:
            errors = [one.start_error for one in self._connections if one.purpose == purpose]
            if None not in errors:
                await self.stop()
                raise errors[0] or BrokerUnavailable("not connected")

    async def _watch(self, sender: Sender | Publishers, consumers: Consumers) -> None:
        while True:
            await self._clock.sleep(_TICK_SECONDS)
            for connection in self._connections:
                connection.tick()
            sender.tick()
            for one in self._all_consumers():
                one.tick()
            consumers.check(limits.TOPOLOGY_CHECK_SECONDS)

    def _issues(self) -> list[str]:
        issues = [] if self._declarer is None else self._declarer.issues()
        issues += [] if self._sender is None else self._sender.issues()
        for consumers in self._all_consumers():
            issues += consumers.issues()
        for connection in self._connections:
            issues += connection.issues()
        return issues

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        if self._is_stopped:
            work.close()
            raise BrokerUnavailable("the broker is stopped")
        task = self._spawn_with(work, name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _aggregate(statuses: Sequence[ConnectionStatus]) -> ConnectionState:
    """Return the state of the whole: that of the purpose which is off worse, each as good as its best connection."""
    best = [
        max((one.state for one in statuses if one.purpose == purpose), key=_WORST_FIRST.index, default=_WORST_FIRST[1])
        for purpose in _PURPOSES
    ]
    return min(best, key=_WORST_FIRST.index)


def _is_blocked(statuses: Sequence[ConnectionStatus]) -> bool:
    """Whether no connection that publishes can: those that are there are blocked."""
    able = [one for one in statuses if one.state is ConnectionState.CONNECTED and one.purpose == "publish"]
    return bool(able) and all(one.is_blocked for one in able)
