"""A place in a queue, for a task of any event loop or for a thread. Woken from any thread; spurious wakes are harmless.

Not `asyncio.Semaphore`: that belongs to one event loop, and a policy does not.
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import Enum
from functools import partial
from types import TracebackType

from spoolproof.clock import Clock, is_replaced
from spoolproof.errors import DeadlineExceeded
from spoolproof.policies.call import Call, refuse_event_loop

NEVER = float("inf")
LATE_SECONDS_MAX = 0.1  #: after its time; one that is later stands still, and what it holds goes to the next


class Bell:
    """Of one task, on the event loop on which it is made. Rung twice it has rung once."""

    __slots__ = ("_future", "loop")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] = self.loop.create_future()

    def ring(self, _: object = None) -> None:
        """Let the task go on. Only on its own event loop."""
        if not self._future.done():
            self._future.set_result(None)

    def ring_from_afar(self, _: object = None) -> None:
        """The same from any thread. Raises RuntimeError if the event loop is closed."""
        self.loop.call_soon_threadsafe(self.ring)

    async def wait(self, clock: Clock, until: float | None) -> None:
        """Return once it has rung, or at `until`; then it is as new."""
        timer = None if until is None else clock.call_at(until, self.ring)
        try:
            await self._future
        finally:
            if timer is not None:
                timer.cancel()
        self._future = self.loop.create_future()


class Standing(Enum):
    """Where a waiter stands: in the queue, granted and not yet aware of it, or done with waiting."""

    QUEUED = "queued"
    GRANTED = "granted"
    OVER = "over"


class Waiter(ABC):
    """Somebody who waits. Everything but `wake` and `wait` is read and written under the lock of the line.

    ends_at: when it stops waiting. wakes_at: when it looks again by itself. deadline_at: of its caller.
    """

    __slots__ = ("cost", "deadline_at", "ends_at", "lane", "permit", "standing", "wakes_at")

    def __init__(self, call: Call, ends_at: float) -> None:
        self.lane = call.lane
        self.cost = call.cost
        self.deadline_at = NEVER if call.deadline_at is None else call.deadline_at
        self.ends_at = self.wakes_at = min(ends_at, self.deadline_at)
        self.permit: object = True
        self.standing = Standing.QUEUED

    def is_gone(self, now: float) -> bool:
        """Whether a grant would find nobody in time. Who is only a little late is there: it will look any moment."""
        return now >= self.deadline_at or now > self.ends_at + LATE_SECONDS_MAX

    @abstractmethod
    def wake(self) -> bool:
        """Let it look again, from whatever thread; False if it never will."""

    async def wait(self, clock: Clock) -> None:
        """Return once woken, or at `wakes_at`."""
        raise NotImplementedError


class TaskWaiter(Waiter):
    """A task on an event loop."""

    __slots__ = ("_bell",)

    def __init__(self, call: Call, ends_at: float) -> None:
        super().__init__(call, ends_at)
        self._bell = Bell()

    def is_gone(self, now: float) -> bool:
        """Also when its event loop is closed: the task was dropped with it."""
        return self._bell.loop.is_closed() or super().is_gone(now)

    def wake(self) -> bool:
        """Wake the task; at once on its own loop, where the detour over the selector would cost more than the wait."""
        if _running_loop() is self._bell.loop:
            self._bell.ring()
            return True
        try:
            self._bell.ring_from_afar()
        except RuntimeError:  # closed
            return False
        return True

    async def wait(self, clock: Clock) -> None:  # noqa: D102  as above
        await self._bell.wait(clock, self.wakes_at)


class ThreadWaiter(Waiter):
    """A thread that blocks. Raises PolicyUsageError on one that runs an event loop."""

    __slots__ = ("_event",)

    def __init__(self, call: Call, ends_at: float) -> None:
        super().__init__(call, ends_at)
        refuse_event_loop(f"policy {call.name!r}: waiting for admission")
        self._event = threading.Event()

    def wake(self) -> bool:
        """Wake the thread."""
        self._event.set()
        return True

    async def wait(self, clock: Clock) -> None:
        """The same, blocking. A test clock is slept on, so there a wake is seen only afterwards."""
        left = max(0.0, self.wakes_at - clock.monotonic())
        if is_replaced():
            if not self._event.is_set():
                clock.sleep_blocking(left)
        else:
            self._event.wait(left)
        self._event.clear()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class Line(ABC):
    """What a bulkhead and a rate limit have in common: who waits, who was granted, and what is done under the lock.

    A subclass says what is scarce. Its methods run inside a step, under the lock.
    """

    __slots__ = (
        "_granted", "_is_busy", "_late", "_now", "_told", "_wait_seconds_max", "key", "lock", "name", "queued",
    )  # fmt: skip

    def __init__(self, name: str, key: str | None, wait_seconds_max: float) -> None:
        self.name = name
        self.key = key
        self.queued = 0
        self.lock = threading.RLock()
        self._wait_seconds_max = wait_seconds_max
        self._now = 0.0
        self._is_busy = False
        self._granted: dict[Waiter, None] = {}  # bounded by what there is to grant
        self._told: list[Waiter] = []  # to be woken once the lock is released
        self._late: list[Callable[[], None]] = []  # came in the middle of a step

    # --- a guard of the pipeline -------------------------------------------------------------------------------------

    needs_time = False

    async def wait(self, call: Call) -> object:
        """Return a permit once admitted. Raises what `enter` raises, also when the wait is over; DeadlineExceeded;
        PolicyUsageError for a call that would block an event loop."""
        now = call.clock.monotonic()
        waiter = (ThreadWaiter if call.is_blocking else TaskWaiter)(call, now + self._wait_seconds_max)
        if self._join(waiter, call, now):
            return waiter.permit
        try:
            while not self._look(waiter, call.clock.monotonic()):
                await waiter.wait(call.clock)
        except BaseException:  # whatever ends the wait, what it was granted goes on to the next
            self._abandon(waiter)
            raise
        return waiter.permit

    # --- steps -------------------------------------------------------------------------------------------------------

    def _enter_late(self, call: Call, now: float) -> object | None:
        """Admit a call that found the way in closed; None if it has to wait. Raises the refusal."""
        if self._is_interrupted():  # a finaliser makes this call in the middle of our own step
            raise self._refusal(call.cost)
        with Step(self, now):
            permit = self._admit(call.cost)
            if permit is None:
                self._check_room(call.lane, call.cost)
            return permit

    def _join(self, waiter: Waiter, call: Call, now: float) -> bool:
        """Admit the waiter if that has become possible, else queue it. Raises the refusal when there is no room."""
        with Step(self, now):
            permit = self._admit(call.cost)
            if permit is not None:
                waiter.permit = permit
                return True
            self._check_room(call.lane, call.cost)
            self._enqueue(waiter)
            self.queued += 1
            return False

    def _look(self, waiter: Waiter, now: float) -> bool:
        """True when granted, False to wait on. Raises the refusal, or DeadlineExceeded, when the wait is over."""
        is_in_time = now < waiter.deadline_at
        if is_in_time and self._take_up(waiter):  # before the step, which would take back what is taken up late
            return True
        with Step(self, now):
            if is_in_time and self._take_up(waiter):
                return True
            if waiter.standing is Standing.QUEUED and now < waiter.ends_at:
                waiter.wakes_at = self._next_look(waiter)
                return False
            self._withdraw(waiter)
            if not is_in_time:
                raise DeadlineExceeded(policy=self.name, has_started=False)
            raise self._refusal(waiter.cost)

    def _take_up(self, waiter: Waiter) -> bool:
        with self.lock:
            if waiter.standing is not Standing.GRANTED:
                return False
            del self._granted[waiter]
            waiter.standing = Standing.OVER
            return True

    def _withdraw(self, waiter: Waiter) -> None:
        if waiter.standing is Standing.QUEUED:
            self._remove(waiter)
            self.queued -= 1
        elif waiter.standing is Standing.GRANTED:
            del self._granted[waiter]
            self._undo(waiter)
        waiter.standing = Standing.OVER

    def _give_back(self, undo: Callable[[], None], now: float = 0.0) -> None:
        """Run `undo` as a step, or at the end of the one under way on this thread."""
        if self._is_interrupted():
            self._late.append(undo)
            return
        with Step(self, now):
            undo()

    def _abandon(self, waiter: Waiter) -> None:
        """Forget a waiter that will not come back; what it was granted goes to the next."""
        self._give_back(partial(self._withdraw, waiter))

    def _is_interrupted(self) -> bool:
        """Whether this thread is in the middle of a step already."""
        with self.lock:
            return self._is_busy

    def _grant(self, waiter: Waiter) -> None:
        """Let a waiter that was just taken out of the queue have what it waits for."""
        waiter.standing = Standing.GRANTED
        self.queued -= 1
        self._granted[waiter] = None
        self._told.append(waiter)

    def _refuse(self, waiter: Waiter) -> None:
        """End the wait of one that was just taken out of the queue."""
        waiter.standing = Standing.OVER
        self.queued -= 1
        self._told.append(waiter)

    def _collect(self) -> None:
        """Take back what was granted to those who are gone."""
        for waiter in [waiter for waiter in self._granted if waiter.is_gone(self._now)]:
            self._withdraw(waiter)

    def _tell(self) -> None:
        """Wake those who were granted, refused or moved up; called without the lock."""
        while True:
            try:
                waiter = self._told.pop(0)
            except IndexError:  # that was the last, or another thread was quicker
                return
            if not waiter.wake():
                self._abandon(waiter)

    # --- what is scarce ----------------------------------------------------------------------------------------------

    @abstractmethod
    def _admit(self, cost: float) -> object | None:
        """Return a permit for somebody who is not in the queue, None if he has to go there."""

    @abstractmethod
    def _check_room(self, lane: str, cost: float) -> None:
        """Raise the refusal if the queue has no place."""

    @abstractmethod
    def _enqueue(self, waiter: Waiter) -> None:
        """Put a waiter into the queue."""

    @abstractmethod
    def _remove(self, waiter: Waiter) -> None:
        """Take a waiter out of the queue."""

    @abstractmethod
    def _serve(self) -> None:
        """Grant to the first in the queue, and the next, as far as it goes."""

    @abstractmethod
    def _undo(self, waiter: Waiter) -> None:
        """Take back a grant that nobody took up."""

    @abstractmethod
    def _gate(self, is_busy: bool) -> None:
        """Open or close the way in that needs no step: closed while somebody queues, and in the middle of a step."""

    @abstractmethod
    def _refusal(self, cost: float) -> Exception:
        """Return the error for somebody who is not admitted."""

    def _next_look(self, waiter: Waiter) -> float:
        """Return when a waiter should look again by itself."""
        return waiter.ends_at


class Step:
    """One change of a line: before it the dead are collected, after it whoever can be served is, then they are told."""

    __slots__ = ("_line", "_time")

    def __init__(self, line: Line, now: float) -> None:
        self._line = line
        self._time = now

    def __enter__(self) -> None:
        line = self._line
        line.lock.acquire()
        line._now = max(line._now, self._time)
        line._is_busy = True
        line._gate(True)
        if line._granted:
            line._collect()
        line._serve()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        line = self._line
        try:
            line._serve()
            while line._late:
                line._late.pop(0)()
                line._serve()
        finally:
            line._is_busy = False
            line._gate(False)
            line.lock.release()
        if line._told:
            line._tell()
