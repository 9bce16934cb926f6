"""At most so many calls at once, and a bounded queue of those who may wait a little.

A slot is granted by whoever leaves, straight to the first waiter of the highest lane; nobody who comes later can take
it in between. A waiter that is cancelled or gives up after its grant hands the slot on.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from functools import partial

from spoolproof.errors import BulkheadFull
from spoolproof.policies.call import LANES, Call
from spoolproof.policies.judging.verdict import Kind, Status, Verdict
from spoolproof.policies.machines.adaptive import AdaptiveLimit
from spoolproof.policies.machines.line import Line, Step, Waiter


class Slots(Line):
    """The slots of one policy and key. Thread-safe; a guard of the pipeline (see `node.Guard`).

    limit: how many may run now. running: how many do, grants on their way included. queued: how many wait.
    """

    __slots__ = ("_adaptive", "_lanes", "_open_below", "_queue_max", "limit", "running")

    def __init__(
        self,
        name: str,
        key: str | None,
        *,
        running_max: int,
        queue_max: int | None = None,
        wait_seconds_max: float = 1.0,
        limit: AdaptiveLimit | None = None,
    ) -> None:
        """limit: moves by itself and replaces running_max. queue_max: 2 × running_max if None."""
        super().__init__(name, key, wait_seconds_max)
        self._adaptive = limit
        self._queue_max = 2 * running_max if queue_max is None else queue_max
        self._lanes: tuple[OrderedDict[Waiter, None], ...] = ()  # in the order of LANES; bounded by queue_max
        self.limit: int = running_max if limit is None else limit.limit
        self.running = 0
        self._open_below = (
            self.limit
        )  #: while fewer run, anybody may enter; 0 while somebody waits or a step is under way

    def configure(
        self,
        *,
        running_max: int,
        queue_max: int | None = None,
        wait_seconds_max: float = 1.0,
        limits: Mapping[str, int] | None = None,
    ) -> None:
        """Change the bounds. Above a lowered limit nobody is admitted until enough have left; who waits may stay.

        limits: of a limit that moves by itself, as its `configure` takes them.
        """
        with Step(self, self._now):
            self._queue_max = 2 * running_max if queue_max is None else queue_max
            self._wait_seconds_max = wait_seconds_max
            if self._adaptive is None:
                self.limit = running_max
            elif limits is not None:
                self._adaptive.configure(**limits)
                self.limit = self._adaptive.limit

    def resize(self, limit: int) -> None:
        """Change the limit (1 or more); a raised one admits waiters at once."""
        self._give_back(partial(setattr, self, "limit", limit), self._now)

    # --- a guard of the pipeline -------------------------------------------------------------------------------------

    @property
    def needs_time(self) -> bool:  # type: ignore[override]
        """Only an adaptive limit measures."""
        return self._adaptive is not None

    def enter(self, call: Call, now: float) -> object | None:
        """Take a slot, or None if the call has to queue for one. Raises BulkheadFull."""
        with self.lock:
            if self.running < self._open_below:
                self.running += 1
                return True
        return self._enter_late(call, now)

    def leave(self, permit: object, call: Call, verdict: Verdict, now: float) -> None:
        """Give the slot back, to the next in line if there is one."""
        if self._adaptive is not None:
            self._learn(self._adaptive, call, verdict, now)
        with self.lock:
            if self._open_below:
                self._free()
                return
        self._give_back(self._free, now)

    def _learn(self, adaptive: AdaptiveLimit, call: Call, verdict: Verdict, now: float) -> None:
        if not call.has_started:
            return
        if verdict.status is Status.SUCCESS:
            adaptive.sample(now - call.attempt_started_at, self.running, now)
        elif verdict.kind is Kind.OVERLOADED or verdict.kind is Kind.TIMEOUT:
            adaptive.overload(self.running, now)
        else:
            return
        if adaptive.limit != self.limit:
            self.resize(adaptive.limit)

    # --- what is scarce ----------------------------------------------------------------------------------------------

    def _admit(self, cost: float) -> object | None:
        if self.queued or self.running >= self.limit:
            return None
        self.running += 1
        return True

    def _free(self) -> None:
        if self.running:  # 0 in a child that was forked inside the call
            self.running -= 1

    def _undo(self, waiter: Waiter) -> None:
        self.running -= 1

    def _gate(self, is_busy: bool) -> None:
        self._open_below = 0 if is_busy or self.queued else self.limit

    def _serve(self) -> None:
        while self.queued and self.running < self.limit:
            waiter, _ = next(lane for lane in self._lanes if lane).popitem(last=False)
            if waiter.is_gone(self._now):
                self._refuse(waiter)
                continue
            self.running += 1
            self._grant(waiter)

    def _check_room(self, lane: str, cost: float) -> None:
        """Raise BulkheadFull unless the queue has a place, or one of a lower lane can be refused for it."""
        if self._wait_seconds_max <= 0:
            raise self._refusal()
        if self.queued < self._queue_max:
            return
        for line in self._lanes:  # those who are gone and not noticed yet are oldest, so they are in front
            while line and (first := next(iter(line))).is_gone(self._now):
                del line[first]
                self._refuse(first)
        if self.queued < self._queue_max:
            return
        for line in reversed(self._lanes[LANES.index(lane) + 1 :]):
            if line:
                return
        raise self._refusal()

    def _enqueue(self, waiter: Waiter) -> None:
        if not self._lanes:
            self._lanes = tuple(OrderedDict() for _ in LANES)
        if self.queued >= self._queue_max:
            newest, _ = next(line for line in reversed(self._lanes) if line).popitem()
            self._refuse(newest)
        self._lanes[LANES.index(waiter.lane)][waiter] = None

    def _remove(self, waiter: Waiter) -> None:
        del self._lanes[LANES.index(waiter.lane)][waiter]

    def _refusal(self, cost: float = 1.0) -> BulkheadFull:
        return BulkheadFull(policy=self.name, running=self.running, queued=self.queued)
