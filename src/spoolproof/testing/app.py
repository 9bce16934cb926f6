"""A service under test, whole and in one process: its handlers, relay, inbox, retries and dead letters, on a store and
a broker in memory, with the clock in the test's hand.

Nothing waits for real time: `settled` returns when nothing moves any more, `advance` lets time pass, and with it the
delays of retries. What a handler itself waits for (a thread, a socket) takes as long as it takes.

The broker confirms every event, whoever handles it, so what a service publishes for others is no dead letter.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, cast, overload

from pydantic import SecretStr

from spoolproof.brokers.memory import MemoryBroker, MemoryBrokerServer
from spoolproof.clock import SystemClock
from spoolproof.codec import TypeRegistry
from spoolproof.consumer.part import ConsumerPart
from spoolproof.destination import Kind
from spoolproof.errors import RegistrationError
from spoolproof.message import OWN_HEADERS, Message, Outgoing
from spoolproof.outbox.options import PublishOptions
from spoolproof.outbox.receipt import Receipt
from spoolproof.outbox.transaction import Transaction
from spoolproof.ports.broker import CONFIRMED, PublishOutcome, Returned, Topology
from spoolproof.ports.dead_letters import DeadLetterFilter, DeadLetterRecord, DeadLetterState
from spoolproof.ports.store import Store
from spoolproof.stores.memory import MemoryStore
from spoolproof.stores.sqlite import SqliteStore
from spoolproof.testing.clock import ManualClock
from spoolproof.testing.inline import InlineRunner
from spoolproof.wiring import PORTS

if TYPE_CHECKING:
    from spoolproof.service import Service

T = TypeVar("T")

STORES = ("memory", "sqlite")
_DEAD_LETTERS_MAX = 1000
_PATIENCE_SECONDS = 0.5
_LOOK_SECONDS = 0.001  #: real time between two looks while something waits for the world outside
_QUIET_LOOKS = 2  #: what one look finds in no place may be between two


class StillMoving(AssertionError):
    """The service was not at rest in time; the message says what still moved."""


class App:
    """A running service and what a test asks of it. Made by `service.test()`.

    clock: of everything in the service. dead_letters: those that are open, oldest first, as of the last `settled` or
    `advance`.
    """

    def __init__(self, service: Service, clock: ManualClock, server: _Server) -> None:
        self.service = service
        self.clock = clock
        self.dead_letters: Sequence[DeadLetterRecord] = ()
        self._server = server
        runtime = service.runtime
        self._store = runtime.store
        self._broker = cast(MemoryBroker, runtime.broker.inner)
        self._workers = runtime.part(ConsumerPart).workers
        self._movers = {"relay", *(lane.name for worker in self._workers for lane in worker.lanes)}

    async def publish(self, payload: object, **options: Unpack[PublishOptions]) -> Receipt:
        """Publish as the service itself would; also events of other services that this one handles."""
        return await self.service.publish(payload, **options)

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Open a transaction of the store: `tx.raw` is the handlers' dict on memory, SQL goes on SQLite."""
        return self.service.transaction()

    @property
    def messages(self) -> Sequence[Message]:
        """Everything that has left the outbox, in order, with its headers; retries and replays not again."""
        return tuple(self._server.published)

    @overload
    def published(self, kind: type[T]) -> list[T]: ...
    @overload
    def published(self, kind: str) -> list[dict[str, Any]]: ...
    def published(self, kind: type[Any] | str) -> list[Any]:
        """Return the payloads of this event that have left the outbox, in order; kind: its class, or a wire name."""
        registry = TypeRegistry()
        name = registry.add(kind).name
        return [registry.decode(message, name) for message in self._server.published if message.type == name]

    async def settled(self, seconds: float = 5.0) -> None:
        """Return when nothing moves: the outbox is empty, no message waits for a handler, no handler runs.

        What waits in a delay queue is at rest until `advance` makes it due; the wait before the second attempt, which
        follows in place, is skipped. Raises StillMoving after `seconds` of real time with what still moves.
        """
        moving = await self._rest(seconds)
        if moving:
            hint = (
                "a handler that waits for the clock, as a policy's back-off does, goes on with `await app.advance(…)`"
            )
            raise StillMoving(f"not at rest after {seconds:g} s: {'; '.join(moving)}; {hint}")

    async def advance(self, seconds: float) -> None:
        """Let time pass, and everything happen that falls due in it; each thing comes to rest before the next.

        Handlers that wait for the clock go on. For one that waits for the world half a second of real time is given.
        Raises StillMoving if something moves even then.
        """
        patience = _Patience(_PATIENCE_SECONDS)
        await self._rest(patience.left)
        until = self.clock.monotonic() + seconds
        while await self.clock.step(until):
            if self._moving():
                await self._rest(patience.left)
        await self.clock.advance(max(0.0, until - self.clock.monotonic()))
        await self.settled()

    async def _rest(self, seconds: float) -> list[str]:
        """Wait until nothing moves, or so long; returns what still does."""
        patience = _Patience(seconds)
        quiet = 0
        while quiet < _QUIET_LOOKS:
            await self.clock.rest()
            moving = self._moving() or await self._waiting()
            quiet = 0 if moving else quiet + 1
            if not moving:
                continue
            if not patience.left:
                return moving
            wakes = self.clock.wakes_at(self._movers)
            if wakes is None or not await self.clock.step(wakes):
                await asyncio.sleep(_LOOK_SECONDS)
        wanted = DeadLetterFilter(state=DeadLetterState.OPEN, limit=_DEAD_LETTERS_MAX)
        self.dead_letters = tuple(await self._store.dead_letters.search(wanted))
        return []

    def _moving(self) -> list[str]:
        moving = [f"handlers of queue {worker.queue!r} run" for worker in self._workers if worker.is_busy]
        return moving + self._broker.moving

    async def _waiting(self) -> list[str]:
        backlog = await self._store.outbox.backlog()
        rows = backlog.rows - backlog.deferred
        return [f"{rows} rows wait in the outbox"] if rows else []


def _memory_folder() -> str | None:
    """Return a folder in memory, where an fsync costs nothing, if this machine has one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


class _Patience:
    """Real time that is left to wait."""

    def __init__(self, seconds: float) -> None:
        self._clock = SystemClock()
        self._until = self._clock.monotonic() + seconds

    @property
    def left(self) -> float:
        return max(0.0, self._until - self._clock.monotonic())


class _Server(MemoryBrokerServer):
    """Keeps what was published, and takes what nobody in this process has a queue for."""

    def __init__(self) -> None:
        super().__init__()
        self.published: list[Message] = []

    def publish(self, outgoing: Outgoing, topology: Topology, now: float) -> PublishOutcome:
        outcome = super().publish(outgoing, topology, now)
        if outgoing.destination.kind is Kind.DELAY or OWN_HEADERS & outgoing.message.headers.keys():
            return outcome
        self.published.append(outgoing.message)
        return CONFIRMED if isinstance(outcome, Returned) else outcome


@asynccontextmanager
async def run(service: Service, *, store: str, clock: ManualClock | None) -> AsyncIterator[App]:
    """Start a service on a fresh store, and stop it after the block. See `Service.test`."""
    if store not in STORES:
        raise RegistrationError(f"service.test(store={store!r}): one of {', '.join(STORES)}")
    clock = clock or ManualClock()
    server = _Server()
    with ExitStack() as block:
        block.enter_context(clock.active())
        make_store: Callable[..., Store] = MemoryStore
        url = "memory://"
        if store == "sqlite":
            folder = tempfile.TemporaryDirectory(prefix="spoolproof-", dir=_memory_folder())
            path = Path(block.enter_context(folder)) / "store.db"
            url = f"sqlite:///{path}"
            make_store = partial(SqliteStore, path, make_runner=InlineRunner)
        await service._start_under_test(
            {"store": SecretStr(url), "broker": SecretStr("memory://")},
            clock,
            make_store=lambda settings, *, clock, ids, spawn, service: make_store(
                clock=clock, ids=ids, outbox_rows_max=settings.outbox_rows_max, ports=PORTS
            ),
            make_broker=lambda settings, *, clock, ids, random, spawn: MemoryBroker(
                clock=clock, spawn=spawn, server=server
            ),
        )
        try:
            yield App(service, clock, server)
        finally:
            await service.stop()
