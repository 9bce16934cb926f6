"""Protects a block of code: `permit()` for one that runs once, `attempts()` for one that may run again.

A block has no result that could be replaced or raced, so Fallback and Hedge do not apply to it. Every guard of the
policy is entered when the block begins and left when it ends; the timer is armed at once, because a block cannot be
stepped."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

from spoolproof.errors import PolicyUsageError
from spoolproof.policies.call import Call
from spoolproof.policies.compiled import Pipeline
from spoolproof.policies.deadline import ends_at
from spoolproof.policies.retry import Stop, Wait, is_repeating, prefer
from spoolproof.policies.timeout import Expiry, expired
from spoolproof.policies.verdict import SUCCESS, Kind, Verdict, verdict_of


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
        """The dependency failed. kind: a value of `Kind`. Raises PolicyUsageError for another."""
        try:
            verdict = verdict_of(
                Kind(kind),
                is_unknown=is_unknown,
                retry_after_seconds=retry_after_seconds,
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
    """One run of a block under a policy."""

    def __init__(self, call: Call, pipeline: Pipeline, *, is_whole_call: bool = True) -> None:
        """is_whole_call: False if its end is not yet the end of the call, which another run may follow."""
        self._call = call
        self._segment = pipeline.block
        self._is_whole_call = is_whole_call
        self._permits: list[object] = []
        self._permit = Permit(call)
        self._expiry: Expiry | None = None
        self._deadline: Any = None

    async def __aenter__(self) -> Permit:
        """Return once admitted. Raises CallRejected or DeadlineExceeded."""
        call, segment = self._call, self._segment
        try:
            segment.open(call)
        except BaseException as error:
            self._report(error)
            raise
        try:
            for guard in segment.guards:
                permit = guard.enter(call, call.now)
                if permit is None:
                    self._permits.append(await guard.wait(call))
                    segment.check_deadline(call)
                else:
                    self._permits.append(permit)
        except BaseException as error:
            segment.fail(call, self._permits, error)
            self._report(error)
            raise
        call.attempt_started_at = call.now
        call.has_started = True
        own_at = None if segment.timeout_seconds is None else call.now + segment.timeout_seconds
        ends = [at for at in (own_at, call.deadline_at) if at is not None]
        if ends:
            self._expiry = Expiry(call.clock, min(ends))
        if call.deadline_at is not None:
            self._deadline = ends_at.set(call.deadline_at)
        return self._permit

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        """Judge the run and give everything back."""
        translated = self._translated(error)
        if translated is not None and translated is not error:
            self._judge(translated)
            self._report(translated)
            raise translated from error
        self._judge(error)
        if error is not None:
            self._report(error)
        return None

    def _report(self, error: BaseException) -> None:
        if self._is_whole_call and self._call.on_failure is not None:
            self._call.on_failure(self._call, error)

    def _translated(self, error: BaseException | None) -> BaseException | None:
        if self._deadline is not None:
            ends_at.reset(self._deadline)
            self._deadline = None
        if self._expiry is None:
            return error
        is_ours = self._expiry.disarm()
        if not is_ours or not isinstance(error, asyncio.CancelledError):
            return error
        call, timeout_seconds = self._call, self._segment.timeout_seconds
        own_at = None if timeout_seconds is None else call.attempt_started_at + timeout_seconds
        return expired(call, own_at, timeout_seconds)

    def _judge(self, error: BaseException | None) -> None:
        call, segment, declared = self._call, self._segment, self._permit.declared
        if declared is not None and not isinstance(error, asyncio.CancelledError):
            segment.conclude(call, self._permits, declared)
        elif error is None:
            segment.succeed(call, self._permits, None, SUCCESS)
        else:
            segment.fail(call, self._permits, error)


class Attempts:
    """Runs of one block until one succeeds: `async for attempt in policy.attempts(): async with attempt: …`."""

    def __init__(self, call: Call, pipeline: Pipeline) -> None:
        self._call = call
        self._pipeline = pipeline
        self._step: Wait | Stop | None = None
        self._attempts_max = 1
        self._last: Exception | None = None

    def __aiter__(self) -> Attempts:
        return self

    async def __anext__(self) -> _Attempt:
        """Return the next run, after its back-off."""
        call, retry = self._call, self._pipeline.retry
        if self._step is None:
            if retry is not None:
                self._attempts_max = retry.begin(call)
        elif isinstance(self._step, Stop) or retry is None:
            raise StopAsyncIteration
        else:
            await retry.drain.sleep(call.clock, self._step.seconds)
            call.now = call.clock.monotonic()
            if retry.drain.is_draining and self._last is not None:
                call.stop_reason = "draining"
                raise self.failed(self._last)
        self._step = Stop("")  # a run that is never entered is the last
        return _Attempt(self, Block(call, self._pipeline, is_whole_call=False))

    def ended(self, error: Exception | None) -> bool:
        """Take note of a run's end; True if its error is swallowed because another run follows."""
        call, retry = self._call, self._pipeline.retry
        if retry is None or call.verdict is None:
            return False
        self._step = retry.after(call, self._attempts_max)
        self._last = error
        return isinstance(self._step, Wait)

    def rejected(self, error: Exception) -> Exception:
        """Return what to raise for a run that was not admitted."""
        last = self._last
        self.ended(error)
        return self.failed(error if last is None or self._call.stop_reason != "local" else prefer(last, error))

    def failed(self, error: Exception) -> Exception:
        """Keep on the error what is known of the call that ends with it."""
        if self._call.on_failure is not None:
            self._call.on_failure(self._call, error)
        return error


class _Attempt:
    """One run of the block of `attempts()`."""

    def __init__(self, attempts: Attempts, block: Block) -> None:
        self._attempts = attempts
        self._block = block
        self._repeating: Any = None

    async def __aenter__(self) -> Permit:
        try:
            permit = await self._block.__aenter__()
        except Exception as error:
            raise self._attempts.rejected(error) from None
        if permit.attempt > 1:
            self._repeating = is_repeating.set(True)
        return permit

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if self._repeating is not None:
            is_repeating.reset(self._repeating)
        try:
            await self._block.__aexit__(kind, error, traceback)
        except Exception as translated:
            if self._attempts.ended(translated):
                return True
            self._attempts.failed(translated)
            raise
        if error is not None and not isinstance(error, Exception):
            return False
        is_swallowed = self._attempts.ended(error)
        if error is not None and not is_swallowed:
            self._attempts.failed(error)
        return is_swallowed
