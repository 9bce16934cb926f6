"""At most so many calls a second, with bursts: GCRA, the leaky bucket kept as one moment in time.

Waiters stand in line and take their tokens when they are granted, so one that is cancelled has nothing to give back,
and a large request is served in its turn. Source: the generic cell rate algorithm, ITU-T I.371."""

from __future__ import annotations

import threading
from collections import deque
from typing import ClassVar

from spoolproof.errors import DeadlineExceeded, RateLimited
from spoolproof.policies.call import Call
from spoolproof.policies.part import Part
from spoolproof.policies.verdict import Verdict
from spoolproof.policies.waiter import TaskWaiter, ThreadWaiter, Waiter

_ROUNDING = 1e-9  #: seconds by which sums of floats may be off


class RateLimit(Part):
    """Lets `rate` calls through each `per_seconds` (1), and `burst` (= rate) at once after a pause. Further ones wait
    up to `wait_seconds_max` (1), at most `queue_max` (64) of them; then RateLimited with the time to come back.

    A call counts as `using(cost=…)` tokens, 1 by default. Raises ValueError for a cost above the burst.
    """

    kind: ClassVar[str] = "rate_limit"
    settings: ClassVar[tuple[str, ...]] = ("rate", "per_seconds", "burst", "wait_seconds_max", "queue_max")

    def __init__(
        self,
        rate: float | None = None,
        *,
        per_seconds: float | None = None,
        burst: float | None = None,
        wait_seconds_max: float | None = None,
        queue_max: int | None = None,
    ) -> None:
        super().__init__(
            {
                "rate": rate,
                "per_seconds": per_seconds,
                "burst": burst,
                "wait_seconds_max": wait_seconds_max,
                "queue_max": queue_max,
            }
        )


class Tokens:
    """The tokens of one policy and key. Thread-safe."""

    __slots__ = (
        "_at",
        "_burst",
        "_burst_seconds",
        "_interval",
        "_key",
        "_lock",
        "_name",
        "_queue",
        "_queue_max",
        "_wait_seconds_max",
    )

    def __init__(
        self,
        name: str,
        key: str | None,
        *,
        rate: float,
        per_seconds: float,
        burst: float,
        wait_seconds_max: float,
        queue_max: int,
    ) -> None:
        self._name = name
        self._key = key
        self._lock = threading.Lock()
        self._queue: deque[Waiter] = deque()  # bounded by queue_max
        self._at = 0.0  # when the bucket would be full again
        self.configure(
            rate=rate, per_seconds=per_seconds, burst=burst, wait_seconds_max=wait_seconds_max, queue_max=queue_max
        )

    def configure(
        self, *, rate: float, per_seconds: float, burst: float, wait_seconds_max: float, queue_max: int
    ) -> None:
        """Change the rate; what was taken stays taken."""
        with self._lock:
            self._interval = per_seconds / rate
            self._burst = burst
            self._burst_seconds = burst * self._interval
            self._wait_seconds_max = wait_seconds_max
            self._queue_max = queue_max

    # --- a guard of the pipeline -------------------------------------------------------------------------------------

    needs_time = False

    def enter(self, call: Call, now: float) -> object | None:
        """Take the call's tokens, or None if it has to wait. Raises RateLimited, ValueError for a cost above the
        burst."""
        cost = call.cost
        if cost > self._burst:
            raise ValueError(
                f"policy {self._name!r}: cost={cost:g} is above burst={self._burst:g}; it could never be granted"
            )
        with self._lock:
            if not self._queue and self._wait_seconds(cost, now) <= 0:
                self._grant(cost, now)
                return True
            wait = self._wait_seconds(cost + sum(waiter.cost for waiter in self._queue), now)
            if wait > self._wait_seconds_max or len(self._queue) >= self._queue_max:
                raise RateLimited(policy=self._name, retry_after_seconds=max(wait, _ROUNDING))
        return None

    is_plain = True

    def take(self, now: float) -> object | None:
        """Take one token if there is one now."""
        with self._lock:
            at = (self._at if self._at > now else now) + self._interval
            if at - now > self._burst_seconds or self._queue:
                return None
            self._at = at
            return True

    async def wait(self, call: Call) -> object:
        """Return with the tokens. Raises RateLimited or DeadlineExceeded."""
        waiter = TaskWaiter(call.cost)
        until = self._join(waiter, call)
        try:
            while (at := self._look(waiter, call, until)) is not None:
                await waiter.wait(call.clock, at)
        except BaseException:
            self._withdraw(waiter)
            raise
        return True

    def wait_blocking(self, call: Call) -> object:
        """The same on a thread."""
        waiter = ThreadWaiter(call.cost)
        until = self._join(waiter, call)
        try:
            while (at := self._look(waiter, call, until)) is not None:
                waiter.wait(call.clock, at)
        except BaseException:
            self._withdraw(waiter)
            raise
        return True

    def leave(self, permit: object, call: Call, verdict: Verdict, now: float) -> None:
        """Give the tokens of a call back that was rejected further in, before it reached the dependency."""
        if call.has_started:
            return
        with self._lock:
            self._at -= call.cost * self._interval
            first = self._queue[0] if self._queue else None
        if first is not None:
            first.wake()

    # --- the queue ---------------------------------------------------------------------------------------------------

    def _join(self, waiter: Waiter, call: Call) -> float:
        until = call.clock.monotonic() + self._wait_seconds_max
        with self._lock:
            self._queue.append(waiter)
        return until if call.deadline_at is None else min(until, call.deadline_at)

    def _look(self, waiter: Waiter, call: Call, until: float) -> float | None:
        """Take the tokens and return None, or return until when to wait. Raises when the wait is over."""
        now = call.clock.monotonic()
        following: Waiter | None = None
        with self._lock:
            is_first = self._queue[0] is waiter
            wait = self._wait_seconds(waiter.cost, now)
            if is_first and wait <= 0:
                self._grant(waiter.cost, now)
                self._queue.popleft()
                waiter.is_granted = True
                following = self._queue[0] if self._queue else None
        if waiter.is_granted:
            if following is not None and not following.wake():
                self._withdraw(following)
            return None
        if now >= until:
            if call.deadline_at is not None and until >= call.deadline_at:
                raise DeadlineExceeded(policy=self._name, has_started=False)
            raise RateLimited(policy=self._name, retry_after_seconds=max(wait, self._interval))
        return min(until, now + wait + _ROUNDING) if is_first else until

    def _withdraw(self, waiter: Waiter) -> None:
        """Leave the queue without tokens; whoever is first now looks again."""
        first: Waiter | None = waiter
        while first is not None:
            with self._lock:
                if first in self._queue:
                    self._queue.remove(first)
                first = self._queue[0] if self._queue else None
            if first is None or first.wake():
                return

    def _wait_seconds(self, cost: float, now: float) -> float:
        wait = max(self._at, now) + cost * self._interval - self._burst_seconds - now
        return 0.0 if wait <= _ROUNDING else wait

    def _grant(self, cost: float, now: float) -> None:
        self._at = max(self._at, now) + cost * self._interval
