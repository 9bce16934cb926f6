"""At most so many calls a second, with bursts: GCRA, the leaky bucket kept as one moment in time.

Waiters stand in line and take their tokens when they are granted, so a large request is served in its turn. A call that
is rejected further in gives its tokens back, as far as the bucket has not been full since: what has run over is gone,
else more than `burst + rate × span` could pass. Source: the generic cell rate algorithm, ITU-T I.371.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

from spoolproof.errors import RateLimited
from spoolproof.policies.call import Call
from spoolproof.policies.judging.verdict import Verdict
from spoolproof.policies.machines.line import Line, Step, Waiter

QUEUE_MAX = 64  #: as a bulkhead of the default size
_ROUNDING = 1e-9  #: seconds by which a sum of floats may be off
_LOOK_SECONDS_MIN = 0.001  #: between two looks of one whose turn is late
_LOWS_MAX = 32  #: moments kept of how far from full the bucket was; fewer only cost tokens, never add any


class Tokens(Line):
    """The tokens of one policy and key. Thread-safe; a guard of the pipeline (see `node.Guard`).

    A permit is the number of its grant. Inside, tokens are kept as seconds of refill: `per_seconds / rate` each.
    """

    __slots__ = (
        "_burst", "_full_at", "_full_grant", "_grants", "_interval", "_is_open", "_lows", "_queue", "_queue_max",
        "_queued_cost", "_span",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        key: str | None,
        *,
        rate: float,
        per_seconds: float = 1.0,
        burst: float | None = None,
        wait_seconds_max: float = 1.0,
        queue_max: int | None = None,
    ) -> None:
        """burst: = rate if None. queue_max: 64 if None."""
        super().__init__(name, key, wait_seconds_max)
        self._queue: OrderedDict[Waiter, None] = OrderedDict()  # bounded by queue_max
        self._queued_cost = 0.0
        self._full_at = 0.0  # when the bucket will be full if nobody takes more
        self._grants = 0
        self._full_grant = 0  # the latest grant that found the bucket full
        self._lows: list[
            tuple[int, float]
        ] = []  # of grants since: how far from full they found it, least of the rest first
        self._is_open = True
        self._interval = per_seconds / rate
        self.configure(
            rate=rate, per_seconds=per_seconds, burst=burst, wait_seconds_max=wait_seconds_max, queue_max=queue_max
        )

    def configure(
        self,
        *,
        rate: float,
        per_seconds: float = 1.0,
        burst: float | None = None,
        wait_seconds_max: float = 1.0,
        queue_max: int | None = None,
    ) -> None:
        """Change the rate; tokens that were taken stay taken."""
        with Step(self, self._now):
            factor = (per_seconds / rate) / self._interval
            self._interval = per_seconds / rate
            self._burst = rate if burst is None else burst
            self._span = self._burst * self._interval
            taken = (self._full_at - self._now) * factor
            self._lows = [(number, low * factor) for number, low in self._lows]
            if taken > self._span:  # of a larger bucket: this one is empty, and what comes back to it is not of it
                taken = self._span
                self._full_grant = self._grants + 1
            self._full_at = self._now + taken
            self._wait_seconds_max = wait_seconds_max
            self._queue_max = QUEUE_MAX if queue_max is None else queue_max

    def available(self, now: float) -> float:
        """Return how many tokens are there."""
        with self.lock:
            return self._burst - max(0.0, self._full_at - now) / self._interval

    # --- a guard of the pipeline -------------------------------------------------------------------------------------

    def enter(self, call: Call, now: float) -> object | None:
        """Take the call's tokens, or None if it has to wait. Raises RateLimited; ValueError if cost > burst."""
        with self.lock:
            if self._is_open:
                permit = self._take(call.cost, now)
                if permit:
                    return permit
        return self._enter_late(call, now)

    def leave(self, permit: object, call: Call, verdict: Verdict, now: float) -> None:
        """Give the tokens of a call back that was rejected further in, before it reached the dependency."""
        if not call.has_started:
            self._give_back(partial(self._refund, permit, call.cost), now)

    # --- the bucket --------------------------------------------------------------------------------------------------

    def _take(self, cost: float, now: float) -> int:
        """Take tokens and return the number of the grant; 0, and nothing taken, if there are not enough."""
        if now < self._now:
            now = self._now
        full_at = self._full_at
        low = full_at - now
        if low <= 0:
            full_at = now
        full_at += cost * self._interval
        if full_at - now > self._span + _ROUNDING:
            return 0
        self._now = now
        self._full_at = full_at
        self._grants = number = self._grants + 1
        if low <= 0:
            self._full_grant = number
        else:
            self._note_low(number, low)
        return number

    def _note_low(self, number: int, low: float) -> None:
        lows = self._lows
        while lows and lows[-1][1] >= low:
            lows.pop()
        lows.append((number, low))
        if len(lows) > _LOWS_MAX:
            lows[:2] = [(lows[1][0], lows[0][1])]

    def _refund(self, permit: object, cost: float) -> None:
        """Give back what grant `permit` took: the bucket becomes what it would be without it."""
        if not isinstance(permit, int) or permit < self._full_grant:
            return
        lows = [(number, low) for number, low in self._lows if number != permit]
        back = min([cost * self._interval, *(low for number, low in lows if number > permit)])
        self._full_at -= back
        kept: list[tuple[int, float]] = []
        for number, low in reversed(lows):
            left = low - back if number > permit else low
            if not kept or left < kept[-1][1]:
                kept.append((number, left))
        self._lows = kept[::-1]

    # --- what is scarce ----------------------------------------------------------------------------------------------

    def _admit(self, cost: float) -> object | None:
        if cost > self._burst:
            raise self._refusal(cost)
        return None if self.queued else (self._take(cost, self._now) or None)

    def _check_room(self, lane: str, cost: float) -> None:
        """Raise RateLimited when the queue is full, or its end cannot come in time."""
        if (
            self.queued >= self._queue_max
            or self._wait_seconds(self._queued_cost + cost) > self._wait_seconds_max + _ROUNDING
        ):
            raise self._refusal(cost)

    def _wait_seconds(self, cost: float) -> float:
        """Return how long until `cost` tokens have been there, those of others included."""
        return max(self._full_at - self._now, 0.0) + cost * self._interval - self._span

    def _enqueue(self, waiter: Waiter) -> None:
        self._queue[waiter] = None
        self._queued_cost += waiter.cost
        waiter.wakes_at = min(waiter.ends_at, self._now + self._wait_seconds(self._queued_cost))

    def _remove(self, waiter: Waiter) -> None:
        del self._queue[waiter]
        self._queued_cost = self._queued_cost - waiter.cost if self._queue else 0.0

    def _next_look(self, waiter: Waiter) -> float:
        """When its turn should come. Everybody has a timer, not only the first, whose event loop may stand still."""
        at = waiter.wakes_at
        if next(iter(self._queue)) is waiter:
            at = self._now + self._wait_seconds(waiter.cost)
        elif at <= self._now:
            at = self._now + max(waiter.cost * self._interval, _LOOK_SECONDS_MIN)
        return min(waiter.ends_at, at)

    def _serve(self) -> None:
        while self.queued:
            first = next(iter(self._queue))
            if first.is_gone(self._now) or first.cost > self._burst:
                self._remove(first)
                self._refuse(first)
                continue
            permit = self._take(first.cost, self._now)
            if not permit:
                due = self._now + self._wait_seconds(first.cost)
                if due + _ROUNDING < first.wakes_at:  # somebody before it left, or tokens came back: it is woken to see
                    first.wakes_at = due
                    self._told.append(first)
                return
            first.permit = permit
            self._remove(first)
            self._grant(first)

    def _undo(self, waiter: Waiter) -> None:
        self._refund(waiter.permit, waiter.cost)

    def _gate(self, is_busy: bool) -> None:
        self._is_open = not (is_busy or self.queued)

    def _refusal(self, cost: float) -> RateLimited | ValueError:
        if cost > self._burst:
            return ValueError(
                f"policy {self.name!r}: cost={cost:g} is above burst={self._burst:g} and could never be granted; "
                "raise burst or split the call"
            )
        wait = self._wait_seconds(self._queued_cost + cost)
        return RateLimited(policy=self.name, retry_after_seconds=max(wait, self._interval, _ROUNDING))
