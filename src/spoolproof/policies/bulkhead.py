"""At most so many calls at once, and a bounded queue of those who may wait a little.

A slot is granted by whoever leaves, straight to the first waiter of the highest lane; nobody who comes later can take
it in between. A waiter that is cancelled or gives up after its grant hands the slot on."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, ClassVar

from spoolproof.errors import BulkheadFull, DeadlineExceeded
from spoolproof.policies.adaptive import Adaptive, AdaptiveLimit
from spoolproof.policies.call import LANES, Call
from spoolproof.policies.part import Part
from spoolproof.policies.verdict import SUCCESS, Kind, Verdict
from spoolproof.policies.waiter import TaskWaiter, ThreadWaiter, Waiter


class Bulkhead(Part):
    """Lets at most `running_max` (32) calls run at once; `queue_max` (2 × running_max) more wait up to
    `wait_seconds_max` (1), those of lane critical before normal before background. Else BulkheadFull.

    running_max: `Adaptive()` instead of a number finds the limit by itself.
    """

    kind: ClassVar[str] = "bulkhead"
    settings: ClassVar[tuple[str, ...]] = (
        "running_max",
        "queue_max",
        "wait_seconds_max",
        "limit_initial",
        "limit_min",
        "limit_max",
    )

    def __init__(
        self,
        running_max: int | Adaptive | None = None,
        *,
        queue_max: int | None = None,
        wait_seconds_max: float | None = None,
    ) -> None:
        self.adaptive = running_max if isinstance(running_max, Adaptive) else None
        given: dict[str, Any] = {"queue_max": queue_max, "wait_seconds_max": wait_seconds_max}
        if isinstance(running_max, Adaptive):
            given |= running_max.given
        else:
            given["running_max"] = running_max
        super().__init__(given)


class Slots:
    """The slots of one policy and key. Thread-safe."""

    __slots__ = (
        "_adaptive",
        "_key",
        "_lanes",
        "_name",
        "_queue_max",
        "_wait_seconds_max",
        "limit",
        "lock",
        "queued",
        "running",
    )

    def __init__(
        self,
        name: str,
        key: str | None,
        *,
        running_max: int,
        queue_max: int,
        wait_seconds_max: float,
        limit: AdaptiveLimit | None = None,
    ) -> None:
        self._name = name
        self._key = key
        self.lock = threading.Lock()
        self._lanes: dict[str, deque[Waiter]] = {}  # bounded by queue_max; made when first needed
        self._adaptive = limit
        self.limit: float = running_max if limit is None else limit.limit
        self._queue_max = queue_max
        self._wait_seconds_max = wait_seconds_max
        self.running = 0
        self.queued = 0

    def configure(self, *, running_max: int, queue_max: int, wait_seconds_max: float) -> None:
        """Change the bounds; above a lowered limit nobody is admitted until enough have left."""
        with self.lock:
            self._queue_max = queue_max
            self._wait_seconds_max = wait_seconds_max
            if self._adaptive is None:
                self.limit = running_max
            granted = self._grant()
        self._wake(granted)

    # --- a guard of the pipeline -------------------------------------------------------------------------------------

    @property
    def is_plain(self) -> bool:
        """Whether a success needs no more than its slot given back."""
        return self._adaptive is None

    def give_back(self) -> None:
        """Give a slot back, to the next in line if there is one."""
        with self.lock:
            self.running -= 1
            granted = self._grant()
        self._wake(granted)

    @property
    def needs_time(self) -> bool:
        """Only an adaptive limit measures."""
        return self._adaptive is not None

    def enter(self, call: Call, now: float) -> object | None:
        """Take a slot, or None if the call has to queue for one. Raises BulkheadFull."""
        with self.lock:
            if self.running < self.limit and not self.queued:
                self.running += 1
                return True
            if self.queued >= self._queue_max and not self._has_lower(call.lane):
                raise self._full()
        return None

    async def wait(self, call: Call) -> object:
        """Return with a slot. Raises BulkheadFull or DeadlineExceeded."""
        waiter = TaskWaiter()
        if self._join(waiter, call.lane):
            return True
        until = self._until(call)
        try:
            await waiter.wait(call.clock, until)
        except BaseException:
            self._abandon(waiter, call.lane)
            raise
        return self._granted(waiter, call, until)

    def wait_blocking(self, call: Call) -> object:
        """The same on a thread."""
        waiter = ThreadWaiter()
        if self._join(waiter, call.lane):
            return True
        until = self._until(call)
        try:
            waiter.wait(call.clock, until)
        except BaseException:
            self._abandon(waiter, call.lane)
            raise
        return self._granted(waiter, call, until)

    def leave(self, permit: object, call: Call, verdict: Verdict, now: float) -> None:
        """Give the slot back, to the next in line if there is one."""
        adaptive = self._adaptive
        if adaptive is None:
            with self.lock:
                self.running -= 1
                if not self.queued:
                    return
                granted = self._grant()
            self._wake(granted)
            return
        with self.lock:
            change = None
            if call.has_started:
                if verdict is SUCCESS:
                    change = adaptive.sample(now - call.attempt_started_at, self.running, now)
                elif verdict.kind in (Kind.OVERLOADED, Kind.TIMEOUT):
                    change = adaptive.overload(self.running, now)
                self.limit = adaptive.limit
            self.running -= 1
            granted = self._grant()
        self._wake(granted)
        if change is not None:
            adaptive.announce(change)

    # --- the queue ---------------------------------------------------------------------------------------------------

    def _until(self, call: Call) -> float:
        until = call.clock.monotonic() + self._wait_seconds_max
        return until if call.deadline_at is None else min(until, call.deadline_at)

    def _join(self, waiter: Waiter, lane: str) -> bool:
        """Queue up; True if a slot was free after all. Raises BulkheadFull."""
        refused: Waiter | None = None
        with self.lock:
            if self.running < self.limit and not self.queued:
                self.running += 1
                return True
            if self.queued >= self._queue_max:
                refused = self._take_lowest(lane)
                if refused is None:
                    raise self._full()
                refused.is_refused = True
                self.queued -= 1
            if not self._lanes:
                self._lanes = {name: deque() for name in LANES}
            self._lanes[lane].append(waiter)
            self.queued += 1
        if refused is not None:
            refused.wake()
        return False

    def _granted(self, waiter: Waiter, call: Call, until: float) -> object:
        with self.lock:
            if waiter.is_granted:
                return True
            if not waiter.is_refused:
                self._lanes[call.lane].remove(waiter)
                self.queued -= 1
            error = self._full()
        if not waiter.is_refused and call.deadline_at is not None and until >= call.deadline_at:
            raise DeadlineExceeded(policy=self._name, has_started=False)
        raise error

    def _abandon(self, waiter: Waiter, lane: str) -> None:
        granted: list[Waiter] = []
        with self.lock:
            if waiter.is_granted:
                self.running -= 1
                granted = self._grant()
            elif not waiter.is_refused:
                self._lanes[lane].remove(waiter)
                self.queued -= 1
        self._wake(granted)

    def _grant(self) -> list[Waiter]:
        """Give every free slot to whoever is first."""
        granted: list[Waiter] = []
        while self.queued and self.running < self.limit:
            waiter = next(lane for lane in self._lanes.values() if lane).popleft()
            waiter.is_granted = True
            self.queued -= 1
            self.running += 1
            granted.append(waiter)
        return granted

    def _wake(self, granted: list[Waiter]) -> None:
        while granted:
            lost = [waiter for waiter in granted if not waiter.wake()]
            if not lost:
                return
            with self.lock:  # they died with their event loop: their slots go to the next
                for waiter in lost:
                    waiter.is_granted, waiter.is_refused = False, True
                self.running -= len(lost)
                granted = self._grant()

    def _has_lower(self, lane: str) -> bool:
        return any(self._lanes.get(name) for name in LANES[LANES.index(lane) + 1 :])

    def _take_lowest(self, lane: str) -> Waiter | None:
        for name in reversed(LANES[LANES.index(lane) + 1 :]):
            if self._lanes.get(name):
                return self._lanes[name].pop()
        return None

    def _full(self) -> BulkheadFull:
        return BulkheadFull(policy=self._name, running=self.running, queued=self.queued)
