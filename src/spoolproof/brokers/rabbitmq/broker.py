"""The broker port on RabbitMQ: one publish connection and one consume connection, each kept open by itself.

Each ordered queue has one more: what is unsettled there goes back only by losing the connection, which must cost no
other queue anything.

Publishing begins once the topology was declared for the first time in this process: before that a message would come
back only because its queue is about to be made.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Coroutine, Sequence
from typing import Any, Final

from spoolproof import limits
from spoolproof.backoff import RandomSource
from spoolproof.brokers.given_up import place_of
from spoolproof.brokers.rabbitmq.connection import BrokerConnection
from spoolproof.brokers.rabbitmq.consumer import Consumers
from spoolproof.brokers.rabbitmq.sender import Sender
from spoolproof.brokers.rabbitmq.topology import Declarer
from spoolproof.brokers.rabbitmq.urls import parse_urls
from spoolproof.clock import Clock
from spoolproof.errors import BrokerUnavailable
from spoolproof.message import Outgoing
from spoolproof.ports.broker import (
    BrokerStatus,
    Capabilities,
    ConnectionState,
    OnIncoming,
    Sink,
    Source,
    Spawn,
    Subscription,
    Topology,
)
from spoolproof.telemetry.logging import silence

_KIND: Final = "rabbitmq"
_TICK_SECONDS = 1.0


class RabbitMQBroker:
    """See ports.broker.Broker."""

    capabilities = Capabilities(
        has_returns=True, keeps_order=True, counts_deliveries=True, survives_restart=True, is_shared=True
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
    ) -> None:
        """urls: `amqp(s)://user:password@host:port/vhost`, one per node. Raises SettingsError with every fault."""
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
        self._connections: list[BrokerConnection] = []
        self._sender: Sender | None = None
        self._consumers: Consumers | None = None
        self._ordered: dict[str, Consumers | None] = {}  #: by queue; None until it is subscribed to
        self._declarer: Declarer | None = None
        self._is_stopped = False

    async def start(self, topology: Topology) -> None:
        self._service = topology.service
        self._ordered = {spec.name: None for spec in topology.queues if spec.is_ordered}
        silence("pika")  # it logs a traceback per failed attempt; we log a line

        def give_up_publishing(reason: str) -> None:
            publish.abort(reason)
            consumers.check()  # a node that answers no publish may deliver nothing either: ask it something

        self._declarer = Declarer(topology, self._clock)
        self._sender = Sender(
            topology=topology,
            clock=self._clock,
            spawn=self._spawn,
            abort=give_up_publishing,
            missing=lambda: consumers.check(),
        )
        self._consumers = consumers = Consumers(
            self._declarer,
            clock=self._clock,
            spawn=self._spawn,
            abort=lambda reason: consume.abort(reason),
            declared=self._sender.allow,
        )
        publish = self._connection("publish", 0, self._sender)
        consume = self._connection("consume", 1, self._consumers)
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
        place = place_of(source, self._service)
        consumers = self._consumers if place.name not in self._ordered else self._consumers_of(place.name)
        return await consumers.subscribe(place, prefetch, on_delivery)

    async def depth(self, queue: str) -> int | None:
        if self._consumers is None:
            raise BrokerUnavailable("the broker is not started")
        return await self._consumers.depth(queue)

    def status(self) -> BrokerStatus:
        if not self._connections:
            return BrokerStatus(kind=_KIND, state=ConnectionState.DISCONNECTED, is_blocked=False, connections=())
        statuses = tuple(connection.status() for connection in self._connections)
        return BrokerStatus(
            kind=_KIND,
            state=_aggregate([status.state for status in statuses]),
            is_blocked=any(status.is_blocked for status in statuses),
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
            assert self._declarer is not None  # made at the start, with the names of these queues
            consumers = self._ordered[queue] = Consumers(
                self._declarer,
                clock=self._clock,
                spawn=self._spawn,
                abort=lambda reason: connection.abort(reason),
                declared=lambda: None,
            )
            connection = self._connection("consume", 1, consumers, f"consume-{queue}", is_cut=True)
        return consumers

    def _connection(
        self, purpose: str, offset: int, user: Sender | Consumers, name: str = "", *, is_cut: bool = False
    ) -> BrokerConnection:
        start = offset % len(self._addresses)
        connection = BrokerConnection(
            name or f"{purpose}-0",
            purpose,
            self._addresses[start:] + self._addresses[:start],
            user,
            identity=f"{self._service}/{socket.gethostname()}/{os.getpid()}",
            clock=self._clock,
            random=self._random,
            retry_first_seconds=self._retry_first_seconds,
            rounds_max=self._rounds_max,
            is_cut=is_cut,
        )
        self._connections.append(connection)
        self._spawn(connection.run(), f"rabbitmq.{connection.name}")
        return connection

    async def _until_connected(self) -> None:
        """Return when both connections are there; raise, with everything closed, when one gave up."""
        connections = list(self._connections)
        await asyncio.gather(*(connection.start_settled.wait() for connection in connections))
        errors = [connection.start_error for connection in connections if connection.start_error is not None]
        if errors:
            await self.stop()
            raise errors[0]

    async def _watch(self, sender: Sender, consumers: Consumers) -> None:
        while True:
            await self._clock.sleep(_TICK_SECONDS)
            for connection in self._connections:
                connection.tick()
            sender.tick()
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


def _aggregate(states: Sequence[ConnectionState]) -> ConnectionState:
    """Return the state of the whole: connected while one connection of each purpose is."""
    for state in (ConnectionState.FAILED, ConnectionState.DISCONNECTED, ConnectionState.CONNECTING):
        if state in states:
            return state
    return ConnectionState.CONNECTED
