"""Tries again what failed for a moment, and knows when not to.

Delay: full jitter, so that callers who failed together do not come back together. What the dependency asks for with
Retry-After is a minimum, never shortened; beyond a bound the call ends instead and says when to come back. A budget
shared by everything under one policy name bounds what retries add to the load of a dependency that is down.

Retries add, they never multiply: inside another Retry's second attempt, or inside a message that is delivered again, a
Retry makes one attempt.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from typing import Any

from spoolproof.backoff import RandomSource
from spoolproof.clock import Clock, is_replaced
from spoolproof.errors import PolicyUsageError
from spoolproof.policies import events
from spoolproof.policies.call import Call, Held, Node, current, is_delivery, is_repeating, refuse_event_loop
from spoolproof.policies.deadline import ends_at
from spoolproof.policies.functions import OnDiscard
from spoolproof.policies.judging.report import add_note
from spoolproof.policies.judging.verdict import Kind, Verdict
from spoolproof.policies.machines.budget import Budget, Cooldown
from spoolproof.policies.machines.line import Bell
from spoolproof.policies.machines.memory import Counts
from spoolproof.policies.parts.ranges import Settings
from spoolproof.policies.running.timeout import discard

PUT_OFF = frozenset({"draining", "inline"})
"""Reasons to stop that say nothing of the work: it is done later, and not counted."""

_EXPONENT_MAX = 16  #: 2**n stays finite however often somebody tries


@dataclass(frozen=True, slots=True)
class Stop:
    """No further attempt."""

    reason: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Another attempt after `seconds`."""

    seconds: float


def delay_seconds(settings: Settings, attempt: int, source: RandomSource) -> float:
    """Return the wait after failed attempt `attempt` (from 1), uniform from 0 to a bound that grows up to the
    maximum."""
    exponent = min(attempt - 1, _EXPONENT_MAX)
    return source.uniform(
        0.0, min(settings.delay_seconds_max, settings.delay_seconds * settings.delay_factor**exponent)
    )


def next_step(
    settings: Settings,
    call: Call,
    verdict: Verdict,
    attempts_max: int,
    source: RandomSource,
    cooldown_seconds: float = 0.0,
) -> Stop | Wait:
    """Decide what follows an attempt that ended with `verdict`; everything but the budget and draining.

    cooldown_seconds: for how long every attempt is refused; the wait after a 429 that asked for no time."""
    reason = _reason_to_stop(verdict, call, attempts_max, settings)
    if reason:
        return Stop(reason)
    delay = delay_seconds(settings, call.tries, source)
    asked = verdict.retry_after_seconds
    if asked is None and verdict.kind is Kind.RATE_LIMITED and cooldown_seconds > 0:
        asked = cooldown_seconds
    left = float("inf") if call.deadline_at is None else call.deadline_at - call.now
    if asked is not None:
        if asked > min(settings.retry_after_seconds_max, left):
            return Stop("retry_after")
        delay = max(delay, asked * source.uniform(1.0, 1.1))
    if delay >= left:
        return Stop("deadline")
    if delay > settings.inline_seconds_max and current(is_delivery):
        return Stop("inline")
    return Wait(delay)


def _reason_to_stop(verdict: Verdict, call: Call, attempts_max: int, settings: Settings) -> str:
    match verdict.kind:
        case Kind.LOCAL:
            return "local"
        case Kind.CANCELLED:
            return "cancelled"
        case Kind.DEADLINE:
            return "deadline"
        case Kind.PERMANENT | Kind.BUG | None:
            return "permanent"
    if verdict.is_unknown and not call.is_idempotent:
        return "unknown"
    if call.tries >= attempts_max:
        return "attempts" if attempts_max == settings.attempts else "nested"
    return ""


class Drain:
    """Ends the back-off of every call when its registry drains: what waits is better deferred than half done."""

    def __init__(self) -> None:
        self.is_draining = False
        self._event = threading.Event()
        self._lock = threading.RLock()
        self._sleepers: set[Bell] = set()

    def start(self) -> None:
        """Let nobody wait any longer; no retry or hedge starts from now on."""
        with self._lock:
            self.is_draining = True
            sleepers = list(self._sleepers)
        self._event.set()
        for sleeper in sleepers:
            with suppress(RuntimeError):  # its event loop is closed, and the sleeper gone with it
                sleeper.ring_from_afar()

    def end(self) -> None:
        """Let calls be tried again and wait, because a service of this process starts."""
        with self._lock:
            self.is_draining = False
            self._event.clear()

    async def sleep(self, clock: Clock, seconds: float) -> None:
        """Return after `seconds`, or at once when the drain begins."""
        bell = Bell()
        with self._lock:
            if self.is_draining:
                return
            self._sleepers.add(bell)
        try:
            await bell.wait(clock, clock.monotonic() + seconds)
        finally:
            with self._lock:
                self._sleepers.discard(bell)

    def sleep_blocking(self, clock: Clock, seconds: float) -> None:
        """The same on a thread. Raises PolicyUsageError on one that runs an event loop."""
        refuse_event_loop("a back-off")
        if is_replaced():
            clock.sleep_blocking(seconds)
        else:
            self._event.wait(seconds)


@dataclass(slots=True, eq=False)
class RetryNode:
    """Runs the rest until it succeeds or there is a reason to stop."""

    inner: Node
    settings: Settings
    _: KW_ONLY
    allows_nesting: bool
    budget: Budget
    cooldown: Cooldown
    counts: Counts
    drain: Drain
    random: RandomSource
    on_discard: OnDiscard | None

    async def run(self, call: Call) -> Any:
        """Return the first success, or the last result; raise the last error of the dependency."""
        attempts_max = self.begin(call)
        last: Exception | None = None
        repeating = None
        try:
            while True:
                try:
                    value = await self.inner.run(call)
                except Exception as error:
                    step = self.after(call, attempts_max)
                    if isinstance(step, Stop):
                        if last is not None and call.stop_reason == "local":
                            raise prefer(last, error) from None
                        raise
                    last = error
                else:
                    if call.verdict is None:
                        return value
                    step = self.after(call, attempts_max)
                    if isinstance(step, Stop):
                        return value
                    await discard(value, self.on_discard, call)
                    last = None
                await self.pause(call, step.seconds, last)
                if self._drained(call):
                    if last is None:
                        return value
                    raise last
                call.verdict = None  # of the attempt before; what rejects the next one further out is judged afresh
                if repeating is None:
                    repeating = Held(is_repeating, True)
        finally:
            last = None  # a traceback that refers to itself would live until the next collection
            if repeating is not None:
                repeating.end()

    async def pause(self, call: Call, seconds: float, last: Exception | None) -> None:
        """Wait before the next attempt. last: the error of the one before."""
        if not call.is_blocking:
            return await self.drain.sleep(call.clock, seconds)
        try:
            self.drain.sleep_blocking(call.clock, seconds)
        except PolicyUsageError as error:
            call.verdict = None  # a mistake of ours, which nothing may pass off as the dependency's
            raise error from last

    def begin(self, call: Call) -> int:
        """Count a call; return how many attempts it may make."""
        self.budget.note_call(call.now)
        if (
            is_repeating.get() is not None
            and current(is_repeating)
            and not self.allows_nesting
            and self.settings.attempts > 1
        ):
            if events.listeners:
                events.emit(events.RetryNested(call.name, call.key))
            return 1
        return self.settings.attempts

    def after(self, call: Call, attempts_max: int) -> Stop | Wait:
        """Decide what follows the attempt that just ended, and say so. A Wait is paid for from the budget."""
        call.tries += 1
        call.attempts_max = attempts_max
        verdict = call.verdict
        if verdict is None:  # an error from a place that judges nothing, such as a guard's own bug
            return self._stop(call, "permanent")
        cooldown_seconds = self.cooldown.until - call.now
        step = next_step(self.settings, call, verdict, attempts_max, self.random, cooldown_seconds)
        if isinstance(step, Wait):
            if self.drain.is_draining:
                step = Stop("draining")
            elif not self.budget.spend(call.now):
                step = Stop("budget")
        if isinstance(step, Stop):
            return self._stop(call, step.reason)
        self.counts.note_retry()
        if events.listeners:
            events.emit(
                events.RetryScheduled(
                    call.name, call.key, attempt=call.attempts + 1, delay_seconds=step.seconds, verdict=verdict
                )
            )
        return step

    def _drained(self, call: Call) -> bool:
        call.now = call.clock.monotonic()
        if self.drain.is_draining:
            self._stop(call, "draining")
            return True
        return False

    def _stop(self, call: Call, reason: str) -> Stop:
        call.stop_reason = reason
        self.counts.note_stop(reason)
        if events.listeners:
            events.emit(events.RetryStopped(call.name, call.key, reason=reason, attempts=call.attempts))
        return Stop(reason)


def prefer(last: Exception, rejection: Exception) -> Exception:
    """Return the dependency's last error for a call whose later attempt was rejected by ourselves, with a note of
    that."""
    add_note(last, f"a further attempt was rejected: {rejection}")
    return last


@dataclass(slots=True, eq=False)
class DeadlineNode:
    """Sets the moment before which everything inside has to end. Every wait inside keeps to it."""

    inner: Node
    seconds: float

    def shorten(self, call: Call) -> None:
        """Give the call this deadline unless it has a nearer one."""
        at = call.now + self.seconds
        if call.deadline_at is None or at < call.deadline_at:
            call.deadline_at = at

    def begin(self, call: Call) -> Held[float]:
        """Put a call, and what it calls, under the deadline until the end of what is returned."""
        self.shorten(call)
        return Held(ends_at, call.deadline_at)

    async def run(self, call: Call) -> Any:
        """Run the rest under the deadline."""
        held = self.begin(call)
        try:
            return await self.inner.run(call)
        finally:
            held.end()
