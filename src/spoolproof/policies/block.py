"""Protects a block of code: `permit()` for one that runs once, `attempts()` for one that may run again.

A block has no result that could be replaced or raced, so Fallback and Hedge do not apply to it. Every guard of the
policy is entered when the block begins and left when it ends; the timer is armed at once, because a block cannot be
stepped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any

from spoolproof.clock import AMBIENT
from spoolproof.errors import PolicyUsageError
from spoolproof.policies.call import Call, Held, _idempotency_key
from spoolproof.policies.compiled import Pipeline
from spoolproof.policies.deadline import ends_at
from spoolproof.policies.foreign import seconds_of
from spoolproof.policies.pipeline import Attempt
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
    """One run of a block under a policy."""

    def __init__(
        self, call: Call, segment: Attempt, timeout_seconds: float | None, begin: Callable[[Call], None] | None
    ) -> None:
        """segment: what guards it. begin: starts the call; None if it has begun, and another run may follow."""
        self._call = call
        self._begin = begin
        self._segment = segment
        self._timeout_seconds = timeout_seconds
        self._permits: list[object] = []
        self._permit = Permit(call)
        self._expiry: Expiry | None = None
        self._held: list[Held[Any]] = []
        self._is_used = False

    def use(self) -> None:
        """Take the block. Raises PolicyUsageError for one that was entered before: its permits are counted once."""
        if self._is_used:
            raise PolicyUsageError(
                f"policy {self._call.name!r}: this block was entered before; ask for another with permit() or "
                "attempts()"
            )
        self._is_used = True

    async def __aenter__(self) -> Permit:
        """Return once admitted. Raises CallRejected or DeadlineExceeded; PolicyUsageError the second time."""
        self.use()
        return await self.enter()

    async def enter(self) -> Permit:
        """Return once admitted."""
        call, segment = self._call, self._segment
        if self._begin is not None:
            self._begin(call)
        else:
            call.now = call.clock.monotonic()  # the block may be entered long after it was made
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
            call.attempt_started_at = call.now
            own_at = None if self._timeout_seconds is None else call.now + self._timeout_seconds
            ends = [at for at in (own_at, call.deadline_at) if at is not None]
            if ends:
                self._expiry = Expiry(call.clock, min(ends))
        except BaseException as error:
            segment.fail(call, self._permits, error)
            self._report(error)
            raise
        call.has_started = True
        if call.deadline_at is not None:
            self._held.append(Held(ends_at, call.deadline_at))
        if call.options is not None and call.options.idempotency_key is not None:
            self._held.append(Held(_idempotency_key, call.options.idempotency_key))
        if self._begin is None and call.attempts > 1:
            self._held.append(Held(is_repeating, True))
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
        self._report(error)
        return None

    def _report(self, error: BaseException | None) -> None:
        if self._begin is not None:
            self._call.on_end(self._call, error)

    def _translated(self, error: BaseException | None) -> BaseException | None:
        while self._held:
            self._held.pop().end()
        if self._expiry is None:
            return error
        if not isinstance(error, asyncio.CancelledError):
            self._expiry.disarm()
            return error
        if not self._expiry.claim():
            return error
        call, timeout_seconds = self._call, self._timeout_seconds
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

    def __init__(self, call: Call, pipeline: Pipeline, begin: Callable[[Call], None]) -> None:
        self._call = call
        self._begin = begin
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
            self._begin(call)
            if self._pipeline.whole_seconds is not None:
                ends = call.now + self._pipeline.whole_seconds
                call.deadline_at = ends if call.deadline_at is None else min(ends, call.deadline_at)
            if retry is not None:
                self._attempts_max = retry.begin(call)
        elif isinstance(self._step, Stop) or retry is None:
            raise StopAsyncIteration
        else:
            try:
                await retry.drain.sleep(call.clock, self._step.seconds)
            except BaseException as error:
                self.over(error)
                raise
            call.now = call.clock.monotonic()
            if retry.drain.is_draining:
                call.stop_reason = "draining"
                self.over(self._last)
                if self._last is not None:
                    raise self._last
                raise StopAsyncIteration
        self._step = Stop("")  # a run that is never entered is the last
        return _Attempt(self, Block(call, self._pipeline.block, self._pipeline.run_seconds, None))

    def ended(self, error: Exception | None) -> bool:
        """Take note of a run's end; True if its error is swallowed because another run follows."""
        call, retry = self._call, self._pipeline.retry
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


class _Attempt:
    """One run of the block of `attempts()`."""

    def __init__(self, attempts: Attempts, block: Block) -> None:
        self._attempts = attempts
        self._block = block

    async def __aenter__(self) -> Permit:
        self._block.use()
        try:
            return await self._block.enter()
        except Exception as error:
            raise self._attempts.rejected(error) from None
        except BaseException as error:
            self._attempts.over(error)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        try:
            await self._block.__aexit__(kind, error, traceback)
        except Exception as translated:
            if self._attempts.ended(translated):
                return True
            raise
        if error is not None and not isinstance(error, Exception):
            self._attempts.over(error)
            return False
        return self._attempts.ended(error)
