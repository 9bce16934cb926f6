"""A scripted AMQP 0-9-1 server: says yes to every question and answers publishes only when told.

For what a real broker does rarely or never: stay silent, confirm late, be an old version, return what nobody sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from pika import BasicProperties, frame, spec

from spoolproof.backoff import system_random
from spoolproof.brokers.rabbitmq import RabbitMQBroker
from spoolproof.clock import Clock
from spoolproof.ports.broker import QueueSpec, Topology
from spoolproof.testing.clock import ManualClock

TOPOLOGY = Topology(
    service="scripted",
    exchange="scripted.events",
    queues=(QueueSpec(name="scripted.q", types=("test.happened",), delivery_limit=20),),
    tiers_seconds=(1,),
)

ANSWERS: dict[type, Callable[[Any], Any]] = {
    spec.Connection.StartOk: lambda _: spec.Connection.Tune(2047, 131072, 0),
    spec.Connection.Open: lambda _: spec.Connection.OpenOk(),
    spec.Connection.Close: lambda _: spec.Connection.CloseOk(),
    spec.Channel.Open: lambda _: spec.Channel.OpenOk(),
    spec.Channel.Close: lambda _: spec.Channel.CloseOk(),
    spec.Confirm.Select: lambda _: spec.Confirm.SelectOk(),
    spec.Exchange.Declare: lambda _: spec.Exchange.DeclareOk(),
    spec.Queue.Declare: lambda method: spec.Queue.DeclareOk(method.queue, 0, 0),
    spec.Queue.Bind: lambda _: spec.Queue.BindOk(),
    spec.Basic.Qos: lambda _: spec.Basic.QosOk(),
    spec.Basic.Consume: lambda method: spec.Basic.ConsumeOk(method.consumer_tag),
    spec.Basic.Cancel: lambda method: spec.Basic.CancelOk(method.consumer_tag),
}


class ScriptedServer:
    """Listens on a free port; `published` holds the message ids of every Basic.Publish, in order."""

    def __init__(self) -> None:
        self.version = "3.10.8"
        self.frame_max = 131072
        self.held: set[type] = set()  #: methods left unanswered
        self.leaderless: set[str] = set()  #: queues over which a consumer's connection ends, as RabbitMQ's does
        self.kept_waiting: set[str] = set()  #: queues whose consumers are not answered
        self.undeclarable: set[str] = set()  #: queues whose declaration is not answered
        self.missing: set[str] = set()  #: queues and exchanges that are not there; a declaration makes them
        self.published: list[str] = []
        self.asked: list[Any] = []  #: every method that arrived, in order
        self.connections = 0
        self.channels_opened = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.made: list[str] = []  #: of those, what a declaration made
        self.consumers: list[tuple[asyncio.StreamWriter, int, str]] = []  #: channel and tag of each, oldest first
        self.body_frames: list[int] = []  #: the size of each body frame
        self.publishers: list[tuple[asyncio.StreamWriter, int]] = []  #: every confirming channel, oldest first
        self.sent: list[tuple[tuple[asyncio.StreamWriter, int], str]] = []  #: where each publish came, and its id
        self.publishing: tuple[asyncio.StreamWriter, int] | None = None  #: the confirming channel opened last

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"amqp://guest:guest@127.0.0.1:{self._server.sockets[0].getsockname()[1]}/"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def ack(self, tag: int, *, multiple: bool = False, on: tuple[asyncio.StreamWriter, int] | None = None) -> None:
        writer, channel = on or self._publisher()
        writer.write(frame.Method(channel, spec.Basic.Ack(tag, multiple)).marshal())

    def return_(self, message_id: str) -> None:
        writer, channel = self._publisher()
        properties = BasicProperties(message_id=message_id)
        self._tell(spec.Basic.Return(312, "NO_ROUTE", "scripted.events", "test.happened"))
        writer.write(frame.Header(channel, 0, properties).marshal())

    def close_channel(self, code: int, text: str) -> None:
        self._tell(spec.Channel.Close(code, text, 60, 40))

    def block(self, is_blocked: bool) -> None:
        writer, _ = self._publisher()
        method = spec.Connection.Blocked("low on memory") if is_blocked else spec.Connection.Unblocked()
        writer.write(frame.Method(0, method).marshal())

    def drop_connections(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    def heartbeat(self) -> None:
        for writer in self._writers:
            writer.write(frame.Heartbeat().marshal())

    async def live_on(self, clock: ManualClock, seconds: float) -> None:
        """Let time pass while heartbeats come as they should."""
        while seconds > 0:
            self.heartbeat()
            step = min(4.0, seconds)
            await clock.advance(step)
            seconds -= step
        self.heartbeat()

    def _tell(self, method: Any) -> None:
        writer, channel = self._publisher()
        writer.write(frame.Method(channel, method).marshal())

    def _publisher(self) -> tuple[asyncio.StreamWriter, int]:
        assert self.publishing is not None, "nothing was confirmed-selected yet"
        return self.publishing

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            await self._converse(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            return
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = b""
        while chunk := await reader.read(65536):
            data += chunk
            while data:
                size, read = frame.decode_frame(data)
                if not size:
                    break
                data = data[size:]
                self._answer(read, writer)

    def _answer(self, read: Any, writer: asyncio.StreamWriter) -> None:
        if isinstance(read, frame.ProtocolHeader):
            self.connections += 1
            capabilities = {"publisher_confirms": True, "basic.nack": True, "connection.blocked": True}
            properties = {"version": self.version, "capabilities": capabilities}
            writer.write(frame.Method(0, spec.Connection.Start(0, 9, properties)).marshal())
        elif isinstance(read, frame.Header):
            self.published.append(read.properties.message_id)
            self.sent.append(((writer, read.channel_number), read.properties.message_id))
        elif isinstance(read, frame.Body):
            self.body_frames.append(len(read.fragment))
        elif isinstance(read, frame.Method):
            method = read.method
            if isinstance(method, spec.Basic.Consume):
                self.consumers.append((writer, read.channel_number, method.consumer_tag))
            self.asked.append(method)
            if isinstance(method, spec.Confirm.Select):
                self.publishing = (writer, read.channel_number)
                self.publishers.append(self.publishing)
                self.channels_opened += 1
            if self._refuses(method, read.channel_number, writer):
                return
            answer = ANSWERS.get(type(method))
            if answer is not None and type(method) not in self.held:
                reply = answer(method)
                if isinstance(reply, spec.Connection.Tune):
                    reply.frame_max = self.frame_max
                writer.write(frame.Method(read.channel_number, reply).marshal())

    def _refuses(self, method: Any, channel: int, writer: asyncio.StreamWriter) -> bool:
        if isinstance(method, spec.Basic.Consume) and method.queue in self.leaderless:
            writer.write(frame.Method(0, spec.Connection.Close(541, "INTERNAL_ERROR", 60, 20)).marshal())
            return True
        if isinstance(method, spec.Basic.Consume) and method.queue in self.kept_waiting:
            return True
        if isinstance(method, spec.Queue.Declare | spec.Exchange.Declare):
            name = method.queue if isinstance(method, spec.Queue.Declare) else method.exchange
            if name in self.missing and method.passive:
                writer.write(frame.Method(channel, spec.Channel.Close(404, f"NOT_FOUND - {name}", 50, 10)).marshal())
                return True
            if name in self.missing:
                self.missing.remove(name)
                self.made.append(name)
            return name in self.undeclarable
        return False


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    scripted = ScriptedServer()
    await scripted.start()
    yield scripted
    await scripted.stop()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


class Maker:
    """Makes brokers and stops them at the end."""

    def __init__(self) -> None:
        self._made: list[RabbitMQBroker] = []

    def __call__(self, *urls: str, clock: Clock, **options: Any) -> RabbitMQBroker:
        def spawn(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
            return asyncio.get_running_loop().create_task(work, name=name)

        values = {"retry_first_seconds": 0.01, "is_required": False, "rounds_max": 10, **options}
        broker = RabbitMQBroker(urls, clock=clock, random=system_random(), spawn=spawn, **values)
        self._made.append(broker)
        return broker

    async def stop(self) -> None:
        for broker in self._made:
            await broker.stop()


@pytest.fixture
async def make_broker(server: ScriptedServer) -> AsyncIterator[Maker]:
    maker = Maker()
    yield maker
    await maker.stop()


@pytest.fixture
async def broker(server: ScriptedServer, clock: ManualClock, make_broker: Maker) -> RabbitMQBroker:
    """A connected broker on a clock that stands still."""
    made = make_broker(server.url, clock=clock)
    await made.start(TOPOLOGY)
    assert await made.wait_for_room(5.0)
    return made
