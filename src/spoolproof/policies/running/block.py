"""Protects a block of code: `permit()` for one that runs once, `attempts()` for one that may run again.

A block has no result that could be replaced or raced, so Fallback and Hedge do not apply to it. Every guard of the
policy is entered when the block begins and left when it ends; the timer is armed at once, because a block cannot be
stepped. On a thread there is no timer: nothing can cut a block off there."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any

from spoolproof.clock import AMBIENT
from spoolproof.errors import PolicyUsageError
from spoolproof.policies.call import Call, Held, _idempotency_key, is_repeating, refuse_event_loop, run_now
from spoolproof.policies.deadline import ends_at
from spoolproof.policies.judging.foreign import seconds_of
from spoolproof.policies.judging.verdict import SUCCESS, Kind, Verdict, verdict_of
from spoolproof.policies.running.attempt import Attempt
from spoolproof.policies.running.pipeline import Pipeline
from spoolproof.policies.running.retry import Stop, Wait, prefer
from spoolproof.policies.running.timeout import Expiry, expired


class Permit:
    """One admitted run of a block. Of `success`, `failure` and `neutral` the first call decides what the block meant,
    whatever it raises; without one its end does."""

    __slots__ = ("_call", "declared")

    def __init__(self, call: Call) -> None:
        self._call = call
        self.declared: Verdict | None = None

    @property
    def attempt(self) -> int:
        """Which run of the block this is, from 1."""
        return self._call.attempts

    def success(self) -> None:
        """The dependency did what it was asked to."""
        self._declare(SUCCESS)

    def failure(
        self, kind: str = "transient", *, is_unknown: bool = False, retry_after_seconds: float | None = None
    ) -> None:
        """The dependency failed. kind: a value of `Kind`. Raises PolicyUsageError for another.

        retry_after_seconds: how long it asked to be left alone; what is no number above 0 is ignored, as in headers."""
        try:
            verdict = verdict_of(
                Kind(kind),
                is_unknown=is_unknown,
                retry_after_seconds=seconds_of(retry_after_seconds, AMBIENT.now()),
                reason="declared by the block",
            )
        except ValueError:
            raise PolicyUsageError(f"failure({kind!r}): use one of {', '.join(Kind)}") from None
        self._declare(verdict)

    def neutral(self, reason: str = "declared by the block") -> None:
        """The run says nothing of the dependency."""
        self._declare(verdict_of(Kind.LOCAL, reason=reason))

    def _declare(self, verdict: Verdict) -> None:
        if self.declared is None:
            self.declared = verdict


class Block:
    """One run of a block under a policy. segment: what guards it. begin: starts the call."""

    def __init__(
        self, call: Call, segment: Attempt, timeout_seconds: float | None, begin: Callable[[Call], None]
    ) -> None:
        self._call = call
        self._begin = begin
        self._segment = segment
        self._timeout_seconds = timeout_seconds
        self._permits: list[object] = []
        self._permit = Permit(call)
        self._expiry: Expiry | None = None
        self._held: list[Held[Any]] = []
        self._is_used = False

    async def __aenter__(self) -> Permit:
        """Return once admitted. Raises CallRejected or DeadlineExceeded; PolicyUsageError the second time."""
        self._use()
        return await self._enter()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Judge the run and give everything back. Raises the error of a limit that has cut it off."""
        return self._leave(error)

    def __enter__(self) -> Permit:
        """The same on a thread. Nobody can cut the block off there: it is only told how long it has. Raises
        PolicyUsageError on a thread that runs an event loop: `async` was forgotten."""
        self._use()
        refuse_event_loop(f"policy {self._call.name!r}: `with` instead of `async with`")
        self._call.is_blocking = True
        return run_now(self._enter())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Judge the run and give everything back."""
        return self._leave(error)

    def _use(self) -> None:
        """Take the block. Raises PolicyUsageError for one that was entered before: its permits are counted once."""
        if self._is_used:
            raise PolicyUsageError(
                f"policy {self._call.name!r}: this block was entered before; ask for another with permit() or "
                "attempts()"
            )
        self._is_used = True

    async def _enter(self) -> Permit:
        call = self._call
        self._begin(call)
        try:
            self._segment.open(call)
            try:
                await self._segment.admit(call, self._permits)
                call.attempt_started_at = call.now
                limit_at = call.limit_at(self._timeout_seconds)
                if limit_at is not None and not call.is_blocking:
                    self._expiry = Expiry(call.clock, limit_at)
            except BaseException as error:
                self._segment.fail(call, self._permits, error)
                raise
        except BaseException as error:
            self._refused(error)
            raise
        self._hold(limit_at if call.is_blocking else call.deadline_at)
        return self._permit

    def _hold(self, told_at: float | None) -> None:
        """Note that the block runs, and tell what is inside when it has to end."""
        call = self._call
        call.has_started = True
        self._segment.counts.attempts += 1
        if told_at is not None:
            self._held.append(Held(ends_at, told_at))
        if call.options is not None and call.options.idempotency_key is not None:
            self._held.append(Held(_idempotency_key, call.options.idempotency_key))

    def _leave(self, error: BaseException | None) -> bool:
        cut_off = self._cut_off(error)
        self._judge(cut_off or error)
        if self._ended(cut_off or error):
            return True
        if cut_off is not None:
            raise cut_off
        return False

    def _cut_off(self, error: BaseException | None) -> TimeoutError | None:
        """Return the error of the limit that has cut the run off, if one has."""
        while self._held:
            self._held.pop().end()
        if self._expiry is None:
            return None
        if not isinstance(error, asyncio.CancelledError):
            self._expiry.disarm()
            return None
        if not self._expiry.claim():
            return None
        made = expired(self._call, self._timeout_seconds)
        made.__cause__ = error
        return made

    def _judge(self, error: BaseException | None) -> None:
        call, segment, declared = self._call, self._segment, self._permit.declared
        if declared is not None and not isinstance(error, asyncio.CancelledError):
            segment.conclude(call, self._permits, declared)
        elif error is None:
            segment.conclude(call, self._permits, SUCCESS)
        else:
            segment.fail(call, self._permits, error)

    def _refused(self, error: BaseException) -> None:
        """Take note of a run that was not admitted."""
        self._call.on_end(self._call, error)

    def _ended(self, error: BaseException | None) -> bool:
        """Take note of a run's end; True if its error is swallowed."""
        self._call.on_end(self._call, error)
        return False


class Attempts:
    """Runs of one block until one succeeds: `async for attempt in policy.attempts(): async with attempt: …`, or without
    both `async` on a thread."""

    def __init__(self, call: Call, pipeline: Pipeline, begin: Callable[[Call], None]) -> None:
        self._call = call
        self._begin = begin
        self._pipeline = pipeline
        self._step: Wait | Stop | None = None
        self._attempts_max = 1
        self._last: Exception | None = None
        self.is_ignored = False  # a run was handed out, and is not entered yet

    def __aiter__(self) -> Attempts:
        return self

    async def __anext__(self) -> Block:
        """Return the next run, after its back-off."""
        run = await self._next()
        if run is None:
            raise StopAsyncIteration
        return run

    def __iter__(self) -> Attempts:
        return self

    def __next__(self) -> Block:
        """The same on a thread. Raises PolicyUsageError on one that runs an event loop."""
        refuse_event_loop(f"policy {self._call.name!r}: `for` instead of `async for`")
        self._call.is_blocking = True
        run = run_now(self._next())
        if run is None:
            raise StopIteration
        return run

    async def _next(self) -> Block | None:
        call, retry, step = self._call, self._pipeline.retry, self._next_step()
        if retry is not None and isinstance(step, Wait):
            try:
                await retry.pause(call, step.seconds, self._last)
            except BaseException as error:
                self.over(error)
                raise
        return self._next_run() if self._goes_on(step) else None

    def _next_step(self) -> Wait | Stop | None:
        """Return what comes before the next run: nothing before the first, a back-off, or the end."""
        call, retry = self._call, self._pipeline.retry
        if self.is_ignored:
            self.is_ignored = False  # told once
            raise PolicyUsageError(_NOT_ENTERED.format(name=call.name))
        if self._step is None:
            self._begin(call)
            call.deadline_at = call.limit_at(self._pipeline.whole_seconds)
            if retry is not None:
                self._attempts_max = retry.begin(call)
        return self._step

    def _goes_on(self, step: Wait | Stop | None) -> bool:
        """Whether another run follows. Raises the last error if a drain has cut the back-off short."""
        call, retry = self._call, self._pipeline.retry
        if isinstance(step, Stop) or (step is not None and retry is None):
            return False
        if step is None or retry is None:
            return True
        call.now = call.clock.monotonic()
        if not retry.drain.is_draining:
            return True
        call.stop_reason = "draining"
        self.over(self._last)
        if self._last is not None:
            raise self._last
        return False

    def _next_run(self) -> Block:
        self._step = Stop("")
        self.is_ignored = True
        return _Run(self, self._call, self._pipeline)

    def ended(self, error: BaseException | None) -> bool:
        """Take note of a run's end; True if its error is swallowed because another run follows."""
        call, retry = self._call, self._pipeline.retry
        if error is not None and not isinstance(error, Exception):
            self.over(error)
            return False
        if retry is not None and call.verdict is not None:
            self._step = retry.after(call, self._attempts_max)
            self._last = error
            if isinstance(self._step, Wait):
                return True
        self.over(error)
        return False

    def rejected(self, error: Exception) -> Exception:
        """Return what to raise for a run that was not admitted."""
        call, retry, last = self._call, self._pipeline.retry, self._last
        if retry is not None:
            retry.after(call, self._attempts_max)
            if last is not None and call.stop_reason == "local":
                error = prefer(last, error)
        self.over(error)
        return error

    def over(self, error: BaseException | None) -> None:
        """Tell how the call ended, and keep on its error what is known of it."""
        self._call.on_end(self._call, error)


_NOT_ENTERED = (
    "policy {name!r}: a run of attempts() was not entered, so what it did was not protected; write "
    "`async with attempt:` (or `with attempt:`) around it"
)


class _Run(Block):
    """One run of the block of `attempts()`; another may follow."""

    def __init__(self, attempts: Attempts, call: Call, pipeline: Pipeline) -> None:
        super().__init__(call, pipeline.block, pipeline.run_seconds, _look_at_clock)
        self._attempts = attempts

    def __del__(self) -> None:
        if self._attempts.is_ignored and not self._is_used:  # left at once; an error would reach nobody
            warnings.warn(_NOT_ENTERED.format(name=self._call.name), RuntimeWarning, stacklevel=1)

    def _use(self) -> None:
        super()._use()
        self._attempts.is_ignored = False

    def _hold(self, told_at: float | None) -> None:
        super()._hold(told_at)
        if self._call.attempts > 1:
            self._held.append(Held(is_repeating, True))

    def _refused(self, error: BaseException) -> None:
        if isinstance(error, Exception):
            raise self._attempts.rejected(error) from None
        self._attempts.over(error)

    def _ended(self, error: BaseException | None) -> bool:
        return self._attempts.ended(error)


def _look_at_clock(call: Call) -> None:
    call.now = call.clock.monotonic()  # the block may be entered long after it was made
