"""A policy compiled: its parts as nodes, each around the next, the user's function in the middle.

Guards (breaker, rate limit, bulkhead) and the time limit between two other parts make one Segment: admitted in order,
left in reverse with one verdict. So a pipeline is as deep as it has parts that repeat or replace, not as it has parts,
and what a call pays is close to what a hand-written one would.

Each attempt is judged here and nowhere else. A call is unknown when any of its attempts was.
"""

from __future__ import annotations

from types import CoroutineType
from typing import Any

from spoolproof.errors import CallRejected, DeadlineExceeded, PolicyUsageError
from spoolproof.policies import events
from spoolproof.policies.call import Call
from spoolproof.policies.classifier import Classifier
from spoolproof.policies.cooldown import Cooldown
from spoolproof.policies.node import Guard, Node
from spoolproof.policies.retry import refuse_event_loop
from spoolproof.policies.threads import run_in_thread
from spoolproof.policies.timeout import await_it, finish, is_awaitable
from spoolproof.policies.verdict import SUCCESS, Kind, Status, Verdict


class Judge:
    """Gives every attempt its verdict. blame_seconds: a caller who gives up later than this blames the dependency."""

    __slots__ = ("blame_seconds", "classifier", "cooldown", "judges_results")

    def __init__(self, classifier: Classifier, cooldown: Cooldown, blame_seconds: float | None) -> None:
        self.classifier = classifier
        self.cooldown = cooldown
        self.judges_results = classifier.judges_results
        self.blame_seconds = blame_seconds

    def of_error(self, call: Call, error: BaseException) -> Verdict:
        """Return and note what an error of the attempt means; `call.now` is when it came."""
        verdict = self.classifier.of_error(
            error,
            has_started=call.has_started,
            elapsed_seconds=call.now - call.attempt_started_at,
            blame_seconds=self.blame_seconds,
        )
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


class Segment:
    """Guards in order, a time limit, and what they protect: further nodes, or the function itself."""

    __slots__ = ("_has_threads", "guards", "inner", "judge", "timeout_seconds")

    def __init__(
        self,
        guards: tuple[Guard, ...],
        inner: Node | None,
        *,
        judge: Judge,
        timeout_seconds: float | None,
        has_threads: bool,
    ) -> None:
        """inner: None for the innermost segment, whose runs are the attempts. has_threads: sync attempts with a limit
        run in a thread of their own."""
        self.guards = guards
        self.inner = inner
        self.judge = judge
        self.timeout_seconds = timeout_seconds
        self._has_threads = has_threads

    # --- one attempt -------------------------------------------------------------------------------------------------

    async def run(self, call: Call) -> Any:
        """Run the rest once, admitted and within its limit."""
        inner = self.inner
        if inner is None:
            self.open_attempt(call)
        permits: list[object] = []
        try:
            for guard in self.guards:
                permit = guard.enter(call, call.now)
                if permit is None:
                    permit = await guard.wait(call)
                    permits.append(permit)
                    self.check_deadline(call)
                else:
                    permits.append(permit)
            if inner is None:
                call.attempt_started_at = call.now
                call.has_started = True
                result = call.function(*call.args, **call.kwargs)
                if type(result) is not CoroutineType:
                    if not is_awaitable(result):
                        return self.succeed(call, permits, result)
                    result = await_it(result)
            else:
                result = inner.run(call)
            if self.timeout_seconds is None and call.deadline_at is None:
                result = await result
            else:
                try:
                    waited_for = result.send(None)
                except StopIteration as end:
                    result = end.value
                else:
                    result = await finish(call, result, waited_for, self.timeout_seconds)
        except BaseException as error:
            self.fail(call, permits, error)
            raise
        return self.succeed(call, permits, result)

    def run_sync(self, call: Call) -> Any:
        """The same on a thread."""
        inner = self.inner
        if inner is None:
            self.open_attempt(call)
        permits: list[object] = []
        try:
            for guard in self.guards:
                permit = guard.enter(call, call.now)
                if permit is None:
                    refuse_event_loop(f"policy {call.name!r}: waiting for admission")
                    permit = guard.wait_blocking(call)
                    permits.append(permit)
                    self.check_deadline(call)
                else:
                    permits.append(permit)
            if inner is not None:
                result = inner.run_sync(call)
            else:
                call.attempt_started_at = call.now
                has_limit = self.timeout_seconds is not None or call.deadline_at is not None
                if has_limit and self._has_threads:
                    result = run_in_thread(call, self.timeout_seconds)
                else:
                    call.has_started = True
                    result = call.function(*call.args, **call.kwargs)
                if is_awaitable(result):
                    refuse_awaitable(call, result)
        except BaseException as error:
            self.fail(call, permits, error)
            raise
        return self.succeed(call, permits, result)

    # --- its beginning and its end -----------------------------------------------------------------------------------

    def open_attempt(self, call: Call) -> None:
        """Begin an attempt. Raises what refuses every attempt for now: the deadline, the cooldown."""
        call.attempts += 1
        call.verdict = None
        call.has_started = False
        cooldown = self.judge.cooldown
        if cooldown.until > call.now or (call.deadline_at is not None and call.now >= call.deadline_at):
            self._refuse(call)

    @staticmethod
    def check_deadline(call: Call) -> None:
        """Raise DeadlineExceeded for a call that was admitted too late to begin."""
        call.now = call.clock.monotonic()
        if call.deadline_at is not None and call.now >= call.deadline_at:
            raise DeadlineExceeded(policy=call.name, has_started=False)

    def _refuse(self, call: Call) -> None:
        try:
            if call.deadline_at is not None and call.now >= call.deadline_at:
                raise DeadlineExceeded(policy=call.name, has_started=False)
            self.judge.cooldown.check(call.now)
        except BaseException as error:
            self.fail(call, [], error)
            raise

    def succeed(self, call: Call, permits: list[object], result: Any) -> Any:
        """End with a result, which the classifier may call a failure; returns it."""
        now = call.now = call.owner.clock.monotonic()
        verdict = SUCCESS
        if self.judge.judges_results:
            verdict = self.judge.of_result(call, result) if self.inner is None else (call.verdict or SUCCESS)
        if permits:
            self._leave(call, permits, verdict, now)
        if events.listeners and self.inner is None:
            self._announce(call, verdict)
        return result

    def conclude(self, call: Call, permits: list[object], verdict: Verdict) -> None:
        """End with a verdict that the block itself gave."""
        call.now = call.owner.clock.monotonic()
        if verdict.status is not Status.SUCCESS:
            self.judge.note(call, verdict)
        self._leave(call, permits, verdict, call.now)
        if events.listeners:
            self._announce(call, verdict)

    def fail(self, call: Call, permits: list[object], error: BaseException) -> None:
        """End with an error: judge it and give every permit back."""
        now = call.now = call.owner.clock.monotonic()
        verdict = call.verdict
        if verdict is None or self.inner is None:
            verdict = self.judge.of_error(call, error)
        self._leave(call, permits, verdict, now)
        if events.listeners:
            if isinstance(error, CallRejected) and len(permits) < max(1, len(self.guards)) and not call.has_started:
                self._announce_rejection(call, error)
            elif self.inner is None:
                self._announce(call, verdict)

    def _leave(self, call: Call, permits: list[object], verdict: Verdict, now: float) -> None:
        guards = self.guards
        for index in range(len(permits) - 1, -1, -1):
            guards[index].leave(permits[index], call, verdict, now)

    @staticmethod
    def _announce(call: Call, verdict: Verdict) -> None:
        events.emit(
            events.AttemptEnded(
                policy=call.name,
                key=call.key,
                attempt=call.attempts,
                verdict=verdict,
                elapsed_seconds=call.now - call.attempt_started_at if call.has_started else 0.0,
            )
        )

    @staticmethod
    def _announce_rejection(call: Call, error: CallRejected) -> None:
        events.emit(events.CallRejectedBy(policy=call.name, key=call.key, by=error.by, reason=str(error)))


def refuse_awaitable(call: Call, awaitable: Any) -> None:
    """Raise TypeError for a sync function that gave an awaitable: awaited later, it would run unprotected."""
    close = getattr(awaitable, "close", None)
    if close is not None:
        close()
    raise TypeError(
        f"policy {call.name!r}: {call.function!r} returned {type(awaitable).__name__}, which nobody awaits under "
        "protection; make it `async def`, or use `await policy.call(…)`"
    )


def refuse_generator(function: Any) -> None:
    """Raise PolicyUsageError for what `call` cannot protect."""
    raise PolicyUsageError(f"{function!r} yields; protect the block that reads it with `async with policy.permit()`")
