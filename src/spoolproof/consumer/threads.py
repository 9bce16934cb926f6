"""Runs handlers that are plain functions, in threads of this service, so that they may block.

A handler's thread is one of a bounded number; they are made when needed and kept, so that what hangs on a thread (a
database connection of Django's) lasts. Whatever such a handler asks of the event loop, a statement or a publish, is
done by its lane, in the lane's own task: its time limit, its cancellation and its context are those of any handler.

A thread cannot be ended from outside. One whose attempt is over (its time limit, a drain) is abandoned: it is counted
until it ends, keeps its place among the threads, and all it asks for is refused. What it did in the world is unknown,
as it is when any handler is cut off. Threads are daemons: one that hangs for ever keeps no process from ending.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import queue
import sys
import threading
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from spoolproof.caught import error_line
from spoolproof.consumer.delivery import Delivery
from spoolproof.consumer.events import ThreadEndedLate
from spoolproof.consumer.handler import Handler
from spoolproof.errors import NotInTransaction
from spoolproof.outbox.publish import Running
from spoolproof.outbox.sync_transaction import SyncTransaction
from spoolproof.outbox.transaction import Transaction
from spoolproof.outcome import Defer
from spoolproof.telemetry.events import emit

T = TypeVar("T")

_BUSY_SECONDS = 15.0  #: how long a delivery stays away that found no thread


class HandlerThreads:
    """The threads of one service. maximum: of those that run or hang."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._slots = asyncio.Semaphore(maximum)
        self._idle: list[_Thread] = []
        self._made = 0
        self._is_closed = False
        self.abandoned: Counter[str] = Counter()  #: by handler, those whose attempt is over and which still run

    @property
    def issue(self) -> str | None:
        """A sentence about threads that hang, or None."""
        total = self.abandoned.total()
        if not total:
            return None
        names = ", ".join(sorted(self.abandoned)[:3])
        return f"{total} of {self._maximum} handler threads run on after their time limit: {names}"

    @asynccontextmanager
    async def place(self, seconds: float) -> AsyncIterator[Place]:
        """Wait for a thread, before anything is opened that must not wait. Raises Defer, uncounted, after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._slots.acquire()
        except TimeoutError:
            text = f"all {self._maximum} handler threads are busy, {self.abandoned.total()} of them abandoned"
            raise Defer(_BUSY_SECONDS, f"{text}; SPOOLPROOF_CONSUMER_THREADS sets how many there are") from None
        place = Place(self)
        try:
            yield place
        finally:
            if place.thread is None:
                self._slots.release()

    def close(self) -> None:
        """Let every thread end that does not run."""
        self._is_closed = True
        while self._idle:
            self._idle.pop().work.put(None)

    def _take(self) -> _Thread:
        if self._idle:
            return self._idle.pop()
        self._made += 1
        return _Thread(f"spoolproof-handler-{self._made}")

    def _free(self, thread: _Thread) -> None:
        self._slots.release()
        if self._is_closed:
            thread.work.put(None)
        else:
            self._idle.append(thread)


class Place:
    """The right to one thread for one run."""

    def __init__(self, threads: HandlerThreads) -> None:
        self._threads = threads
        self.thread: _Thread | None = None

    async def run(
        self,
        running: Running,
        handler: Handler,
        payload: object,
        delivery: Delivery | None,
        tx: Transaction | None,
        others: Mapping[str, object],
    ) -> object:
        """Return what the handler returns. Raises what it raises."""
        bridge = running.bridge = Bridge()
        sync_tx = None if tx is None else SyncTransaction(tx, bridge)
        run = _Run(handler.name, lambda: handler.call(payload, delivery, sync_tx, others), bridge, self._threads)
        run.thread = self.thread = self._threads._take()
        self.thread.work.put(run)
        try:
            return await run.serve()
        except BaseException:
            run.abandon()
            raise


class Bridge:
    """How a handler's thread has the event loop do something: by its lane, in the lane's task."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._requests: deque[_Request] = deque()  # at most one: the thread waits for its answer
        self._stirred = asyncio.Event()
        self._is_over = False

    def __call__(self, make: Callable[[], Awaitable[T]]) -> T:
        """Return what the coroutine that `make` makes returns. Raises what it raises; NotInTransaction once the attempt
        is over. For the handler's thread, and threads it has started."""
        request = _Request(make)
        self._loop.call_soon_threadsafe(self._ask, request)
        request.answered.wait()
        if request.error is not None:
            raise request.error
        result: T = request.value
        return result

    async def answer(self) -> None:
        """Do what was asked for, or wait for the next thing to happen."""
        await self._stirred.wait()
        self._stirred.clear()
        while self._requests:
            await self._requests[0].answer()
            self._requests.popleft()

    def stir(self) -> None:
        """Something happened."""
        self._stirred.set()

    def end(self) -> None:
        """Refuse what is asked for from now on."""
        self._is_over = True
        while self._requests:
            self._requests.popleft().refuse()

    def _ask(self, request: _Request) -> None:
        if self._is_over:
            request.refuse()
        else:
            self._requests.append(request)
            self.stir()


class _Request:
    def __init__(self, make: Callable[[], Awaitable[Any]]) -> None:
        self._make = make
        self.answered = threading.Event()
        self.value: Any = None
        self.error: BaseException | None = None

    async def answer(self) -> None:
        try:
            self.value = await self._make()
        except asyncio.CancelledError:
            raise  # the attempt is over, and whoever ends it refuses this
        except BaseException as error:
            self.error = error
        self.answered.set()

    def refuse(self) -> None:
        if not self.answered.is_set():
            self.error = NotInTransaction("the attempt is over, its time limit or the service's end: nothing was done")
            self.answered.set()


class _Run:
    """One run of a handler in a thread; on the event loop but for `in_thread`."""

    thread: _Thread

    def __init__(self, name: str, function: Callable[[], object], bridge: Bridge, threads: HandlerThreads) -> None:
        self._name = name
        self._function = function
        self._bridge = bridge
        self._threads = threads
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self._has_ended = False
        self._is_abandoned = False
        self._value: object = None
        self._error: BaseException | None = None

    async def serve(self) -> object:
        """Do what the thread asks for until it has ended; returns or raises what it did."""
        while not self._has_ended:
            await self._bridge.answer()
        self._bridge.end()
        error, self._error = self._error, None
        if error is None:
            return self._value
        try:
            raise error
        finally:
            del error  # a traceback that refers to itself would live until the next collection

    def abandon(self) -> None:
        """Leave the thread to itself, unless it has ended."""
        self._bridge.end()
        if not self._has_ended:
            self._is_abandoned = True
            self._threads.abandoned[self._name] += 1

    def in_thread(self) -> None:
        """Run the handler and say so."""
        try:
            self._value = self._context.run(self._call)
        except BaseException as error:  # whatever it is, it belongs to the attempt
            self._error = error
        try:
            self._loop.call_soon_threadsafe(self._ended)
        except RuntimeError:  # the event loop is closed, and nobody waits
            return

    def _call(self) -> object:
        _close_old_connections()
        try:
            value = self._function()
        finally:
            _close_old_connections()
        if inspect.iscoroutine(value):
            value.close()
            raise TypeError(f"{self._name} is a plain function and returned a coroutine; make it `async def`")
        return value

    def _ended(self) -> None:
        self._has_ended = True
        self._bridge.stir()
        self._threads._free(self.thread)
        if self._is_abandoned:
            self._threads.abandoned -= Counter([self._name])  # and without those at 0
            how = "done" if self._error is None else error_line(self._error)
            emit(ThreadEndedLate(handler=self._name, end=how))


def _close_old_connections() -> None:
    """Let Django close connections that are broken or too old, as it does around a request."""
    conf, db = sys.modules.get("django.conf"), sys.modules.get("django.db")
    if conf is not None and db is not None and conf.settings.configured:
        db.close_old_connections()


class _Thread:
    """A thread that runs what it is given, one after the other."""

    def __init__(self, name: str) -> None:
        self.work: queue.Queue[_Run | None] = queue.Queue(maxsize=2)  # one run, or the end
        threading.Thread(target=self._loop, name=name, daemon=True).start()

    def _loop(self) -> None:
        while (run := self.work.get()) is not None:
            run.in_thread()
            del run  # or the last one would keep what it refers to alive until the next
