"""Where each attempt is made and judged, here and nowhere else. A call is unknown when any of its attempts was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import CoroutineType
from typing import Any

from spoolproof.errors import CallRejected, DeadlineExceeded
from spoolproof.policies import events
from spoolproof.policies.call import Call, Guard, Held, Node, current
from spoolproof.policies.deadline import ends_at
from spoolproof.policies.functions import await_it, close_it, is_awaitable
from spoolproof.policies.judging.classifier import Classifier, text_of
from spoolproof.policies.judging.report import add_note
from spoolproof.policies.judging.verdict import SUCCESS, Kind, Status, Verdict, verdict_of
from spoolproof.policies.machines.budget import Cooldown
from spoolproof.policies.machines.memory import Abandoned, Counts
from spoolproof.policies.running.timeout import finish, run_in_thread, run_limited


@dataclass(slots=True, eq=False)
class Judge:
    """Gives every attempt its verdict. blame_seconds: a caller who gives up later than this blames the dependency."""

    classifier: Classifier
    cooldown: Cooldown
    blame_seconds: float | None
    judges_results: bool = field(init=False)

    def __post_init__(self) -> None:
        self.judges_results = self.classifier.judges_results

    def of_error(self, call: Call, error: BaseException) -> Verdict:
        """Return and note what an error of the attempt means; `call.now` is when it came."""
        try:
            verdict = self.classifier.of_error(
                error,
                has_started=call.has_started,
                elapsed_seconds=call.now - call.attempt_started_at,
                blame_seconds=self.blame_seconds,
            )
        except Exception as mistake:  # a rule of the user's; permits must be given back all the same
            add_note(error, f"a classifier rule of policy {call.name!r} raised {text_of(mistake)}")
            verdict = verdict_of(Kind.BUG, is_unknown=call.has_started, reason="a classifier rule raised")
        return self.note(call, verdict)

    def of_result(self, call: Call, value: object) -> Verdict:
        """Return and note what a result means."""
        verdict = self.classifier.of_result(value)
        return SUCCESS if verdict.status is Status.SUCCESS else self.note(call, verdict)

    def note(self, call: Call, verdict: Verdict) -> Verdict:
        """Keep a verdict that is no success on the call, and obey a dependency that asks for less."""
        call.verdict = verdict
        if verdict.is_unknown and not call.is_unknown:
            call.is_unknown = True
        if verdict.kind is Kind.RATE_LIMITED:
            self.cooldown.start(call.now, verdict.retry_after_seconds)
        return verdict


@dataclass(slots=True, eq=False, kw_only=True)
class Gate:
    """Guards in order, and a time limit inside them."""

    guards: tuple[Guard, ...]
    timeout_seconds: float | None
    judge: Judge
    counts: Counts
    monotonic: Callable[[], float]
    _enters: tuple[tuple[Callable[[Call, float], object], Guard], ...] = field(init=False)
    _leaves: tuple[Callable[[object, Call, Verdict, float], None], ...] = field(init=False)
    _needs_time: bool = field(init=False)

    def __post_init__(self) -> None:
        self._enters = tuple((guard.enter, guard) for guard in self.guards)
        self._leaves = tuple(guard.leave for guard in reversed(self.guards))
        self._needs_time = any(guard.needs_time for guard in self.guards)

    async def admit(self, call: Call, permits: list[object]) -> None:
        """Pass every guard, waiting where one says so."""
        for enter, guard in self._enters:
            permit = enter(call, call.now)
            if permit is None:
                permits.append(await guard.wait(call))
                self.check_deadline(call)
            else:
                permits.append(permit)

    def check_deadline(self, call: Call) -> None:
        """Raise DeadlineExceeded for a call that was admitted too late to begin."""
        call.now = self.monotonic()
        if call.deadline_at is not None and call.now >= call.deadline_at:
            raise DeadlineExceeded(policy=call.name, has_started=False)

    def leave(self, call: Call, permits: list[object], verdict: Verdict) -> None:
        """Give back the permits there are."""
        for index in range(len(permits) - 1, -1, -1):
            self.guards[index].leave(permits[index], call, verdict, call.now)


@dataclass(slots=True, eq=False, kw_only=True)
class Segment(Gate):
    """Guards and a time limit around further nodes."""

    inner: Node

    async def run(self, call: Call) -> Any:
        """Run the rest once, admitted and within its limit."""
        permits: list[object] = []
        try:
            await self.admit(call, permits)
            if self.timeout_seconds is None:
                result = await self.inner.run(call)
            elif call.is_blocking:
                result = await self._run_blocking(call, self.timeout_seconds)
            else:
                call.attempt_started_at = call.now
                result = await run_limited(call, self.inner.run(call), self.timeout_seconds)
        except BaseException as error:
            self.fail(call, permits, error)
            raise
        if self._needs_time:
            call.now = self.monotonic()
        self.leave(call, permits, call.verdict or SUCCESS)
        return result

    async def _run_blocking(self, call: Call, timeout_seconds: float) -> Any:
        """Run the rest on a thread: the limit only keeps further attempts from starting."""
        deadline_at = call.deadline_at
        call.deadline_at = call.limit_at(timeout_seconds)
        try:
            return await self.inner.run(call)
        finally:
            call.deadline_at = deadline_at  # the limit was this run's; another may follow

    def fail(self, call: Call, permits: list[object], error: BaseException) -> None:
        """End with an error: judge it and give every permit back."""
        call.now = self.monotonic()
        verdict = call.verdict
        if verdict is None or (verdict.kind is Kind.CANCELLED and isinstance(error, Exception)):
            verdict = self.judge.of_error(call, error)  # what was cut off inside was cut off by the limit out here
        if call.attempts > 1:
            call.has_started = True  # the last attempt may have been rejected; the one before was made
        self.leave(call, permits, verdict)
        if isinstance(error, CallRejected) and len(permits) < len(self.guards):
            note_rejection(self.counts, call, error)


@dataclass(slots=True, eq=False, kw_only=True)
class Attempt(Gate):
    """The innermost segment: each run is an attempt, judged once, by which every part around it goes.

    abandoned: sync attempts with a Timeout run in threads of their own, and this counts those that hang."""

    abandoned: Abandoned

    async def run(self, call: Call) -> Any:
        """Make one attempt."""
        now = call.now
        call.attempts += 1  # `open` written out
        if call.attempts > 1:
            call.verdict = None
            call.has_started = False
        if self.judge.cooldown.until > now or (call.deadline_at is not None and now >= call.deadline_at):
            self._refuse(call)
        permits: list[object] = []
        try:
            for enter, guard in self._enters:  # `admit` written out
                permit = enter(call, now)
                if permit is None:
                    permit = await guard.wait(call)
                    permits.append(permit)
                    self.check_deadline(call)
                    now = call.now
                else:
                    permits.append(permit)
            call.attempt_started_at = now
            if call.is_blocking:
                result = self._run_blocking(call)
            else:
                call.has_started = True
                self.counts.attempts += 1
                result = call.function(*call.args, **call.kwargs)
                if type(result) is CoroutineType or is_awaitable(result, call.function):
                    coroutine = result if type(result) is CoroutineType else await_it(result)
                    if self.timeout_seconds is None and call.deadline_at is None:
                        result = await coroutine
                    else:
                        try:
                            waited_for = coroutine.send(None)
                        except StopIteration as end:
                            result = end.value
                        else:
                            limit_at = call.limit_at(self.timeout_seconds)
                            result = await finish(call, coroutine, waited_for, limit_at, self.timeout_seconds)
            verdict = self.judge.of_result(call, result) if self.judge.judges_results else SUCCESS
        except BaseException as error:
            self.fail(call, permits, error)
            raise
        if self._needs_time or events.listeners:
            now = call.now = self.monotonic()
        for leave in self._leaves:
            leave(permits.pop(), call, verdict, now)
        if events.listeners:
            announce(call, verdict)
        return result

    def _run_blocking(self, call: Call) -> Any:
        """Run the function on this thread, or in one of its own if it has a Timeout. A deadline alone moves nothing:
        whatever is bound to this thread (a transaction, a connection) would be out of reach."""
        abandoned = self.abandoned
        if abandoned.maximum and self.timeout_seconds is not None:
            result = run_in_thread(call, self.timeout_seconds, abandoned, self.counts)
        else:
            call.has_started = True
            self.counts.attempts += 1
            result = self._run_here(call)
        if is_awaitable(result, call.function):
            refuse_awaitable(call, result)
        return result

    def _run_here(self, call: Call) -> Any:
        """Run the function on this thread, which nobody can cut off: it is only told how long it has."""
        limit_at = call.limit_at(self.timeout_seconds)
        if limit_at == current(ends_at):  # said already, or there is none
            return call.function(*call.args, **call.kwargs)
        held = Held(ends_at, limit_at)
        try:
            return call.function(*call.args, **call.kwargs)
        finally:
            held.end()

    def sample(self, most: int, seconds: list[float]) -> None:
        """Note how long successes take, until there are `most`; does nothing without a guard, or while it does so.

        What gives a permit back is replaced until then, so that calls which nobody measures pay nothing.
        """
        plain, needs_time = self._leaves, self._needs_time
        if not plain or getattr(plain[0], "is_sampling", False):
            return

        def told(permit: object, call: Call, verdict: Verdict, now: float) -> None:
            plain[0](permit, call, verdict, now)
            if verdict is SUCCESS:
                seconds.append(now - call.attempt_started_at)
            if len(seconds) >= most:
                self._leaves, self._needs_time = plain, needs_time

        told.is_sampling = True  # type: ignore[attr-defined]
        self._needs_time = True
        self._leaves = (told, *plain[1:])

    def open(self, call: Call) -> None:
        """Begin an attempt. Raises what refuses every attempt for now: the deadline, the cooldown."""
        call.attempts += 1
        if call.attempts > 1:
            call.verdict = None
            call.has_started = False
        if self.judge.cooldown.until > call.now or (call.deadline_at is not None and call.now >= call.deadline_at):
            self._refuse(call)

    def _refuse(self, call: Call) -> None:
        try:
            if call.deadline_at is not None and call.now >= call.deadline_at:
                raise DeadlineExceeded(policy=call.name, has_started=False)
            self.judge.cooldown.check(call.now)
        except (DeadlineExceeded, CallRejected) as error:
            self.fail(call, [], error)
            raise

    def conclude(self, call: Call, permits: list[object], verdict: Verdict) -> None:
        """End a block with a verdict: what it said of itself, or a success."""
        call.now = self.monotonic()
        if verdict.status is not Status.SUCCESS:
            self.judge.note(call, verdict)
        self.leave(call, permits, verdict)
        if events.listeners:
            announce(call, verdict)

    def fail(self, call: Call, permits: list[object], error: BaseException) -> None:
        """End with an error: judge it and give every permit back."""
        call.now = self.monotonic()
        verdict = self.judge.of_error(call, error)
        self.leave(call, permits, verdict)
        if isinstance(error, CallRejected) and not call.has_started:
            note_rejection(self.counts, call, error)
        elif events.listeners:
            announce(call, verdict)


def announce(call: Call, verdict: Verdict) -> None:
    """Tell of an attempt's end."""
    elapsed = call.now - call.attempt_started_at if call.has_started else 0.0
    events.emit(
        events.AttemptEnded(call.name, call.key, attempt=call.attempts, verdict=verdict, elapsed_seconds=elapsed)
    )


def note_rejection(counts: Counts, call: Call, error: CallRejected) -> None:
    """Count an attempt that was not made, and tell of it."""
    counts.note_rejection(error.by)
    if events.listeners:
        events.emit(events.CallRejectedBy(call.name, call.key, by=error.by, reason=str(error)))


def refuse_awaitable(call: Call, awaitable: Any) -> None:
    """Raise TypeError for a sync function that gave an awaitable: awaited later, it would run unprotected."""
    close_it(awaitable)
    # no repr: that of a partial shows its arguments
    function = getattr(call.function, "__qualname__", type(call.function).__qualname__)
    raise TypeError(
        f"policy {call.name!r}: {function!r} returned {type(awaitable).__name__}, which nobody awaits under "
        "protection; make it `async def`, or use `await policy.call(…)`"
    )
