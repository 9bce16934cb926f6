"""Running items: one attempt, and, for a batch that is run here and now, all of them to their ends.

Here and now means that nothing survives this process, so nothing waits past the deadline: what was not reached by then
is pending, and what was cut off in an attempt is unknown.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec

from spoolproof import limits
from spoolproof.backoff import full_jitter_seconds
from spoolproof.caught import before, class_name, error_text, is_failure
from spoolproof.consumer.delivery import Delivery
from spoolproof.consumer.jobs.definition import Envelope, Job, JobContext, key_of
from spoolproof.consumer.jobs.events import ITEMS
from spoolproof.consumer.jobs.problem import Checked, shown
from spoolproof.consumer.threads import HandlerThreads
from spoolproof.errors import Action, CallRejected, CodecError
from spoolproof.lifecycle.entry import Context
from spoolproof.outbox.publish import Publisher, Running, handling
from spoolproof.outbox.transaction import Transaction, unit_of_work
from spoolproof.outcome import DeadLetter, Defer, Outcome, Park, RetryLater
from spoolproof.policies import Kind, report
from spoolproof.policies.running.timeout import within
from spoolproof.ports.batches import Item, ItemState
from spoolproof.telemetry.metrics import METER

_REJECTED_SECONDS = 0.25  #: until a call that was not let through is made again


@dataclass(frozen=True, slots=True)
class Done:
    """What an attempt returned, and how long it took."""

    value: object
    seconds: float


class Runs:
    """Runs items in one process."""

    def __init__(self, of: Context) -> None:
        self._of = of
        self._threads: dict[str, HandlerThreads] = {}

    def close(self) -> None:
        """Let every thread end that does not run."""
        for threads in self._threads.values():
            threads.close()

    @property
    def issues(self) -> list[str]:
        """Sentences about threads that hang."""
        return [f"job {name}: {threads.issue}" for name, threads in self._threads.items() if threads.issue]

    async def of_message(self, job: Job, given: Envelope, delivery: Delivery, tx: Transaction | None) -> Done:
        """Make one attempt for an item's message. Raises what the job raises, DeadLetter for what it cannot read."""
        try:
            value = job.decode(bytes(given.item))
        except (msgspec.MsgspecError, CodecError, ValueError) as error:
            raise DeadLetter(f"the item cannot be read: {error_text(error)}") from error
        return await self._attempt(job, value, given.batch, given.id, delivery.attempt, tx)

    async def _attempt(
        self, job: Job, value: object, batch_id: str, item_id: str, attempt: int, tx: Transaction | None
    ) -> Done:
        clock = self._of.clock
        key = key_of(batch_id, item_id)
        deadline = clock.now() + timedelta(seconds=job.timeout_seconds)
        context: Any = JobContext(key=key, attempt=attempt, deadline=deadline, batch_id=batch_id, item_id=item_id)
        policy = job.policy.using(idempotency_key=None if job.effect == "once" else key)
        began = clock.monotonic()
        if job.inner.is_sync:
            threads = self._threads.setdefault(job.name, HandlerThreads(job.concurrency))
            async with threads.place(job.timeout_seconds) as place:
                running = handling.get() or Running(None, tx)
                began = clock.monotonic()
                returned = await policy.call(place.run, running, job.inner, value, context, tx, {})
        else:
            returned = await policy.call(job.inner.call, value, context, tx)
        if isinstance(returned, Outcome):
            raise returned
        return Done(returned, clock.monotonic() - began)

    # --- here and now ------------------------------------------------------------------------------------------------

    async def all(self, job: Job, batch_id: str, items: Sequence[Checked], seconds: float) -> list[Item]:
        """Bring items to their ends within so many seconds; returns what became of each, in order."""
        until = self._of.clock.monotonic() + seconds
        ended = {one.item.n: one.item for one in items}
        waiting = deque(one for one in items if one.is_valid)

        async def lane() -> None:
            while waiting and self._of.clock.monotonic() < until:
                one = waiting.popleft()
                item = ended[one.item.n] = await self._to_end(job, batch_id, one, until)
                METER.add(ITEMS, (job.name, item.state.value))

        lanes = [self._of.spawn(lane(), f"batch {job.name}") for _ in range(min(job.concurrency, len(waiting)))]
        try:
            await asyncio.gather(*lanes)
        finally:
            for task in lanes:
                task.cancel()
        return [
            msgspec.structs.replace(item, reason="the deadline came first") if item.reason == "queued" else item
            for item in (ended[n] for n in sorted(ended))
        ]

    async def _to_end(self, job: Job, batch_id: str, one: Checked, until: float) -> Item:
        clock, item = self._of.clock, one.item
        attempts = 0
        while (left := until - clock.monotonic()) > 0:
            if not await job.policy.wait_admission(left):
                return msgspec.structs.replace(item, reason=f"policy {job.policy.name} is {job.policy.state}")
            then = before()
            try:
                left = until - clock.monotonic()
                done = await within(self._once(job, one, batch_id, attempts + 1), max(0.0, left), clock)
            except BaseException as error:
                if not is_failure(error, then):
                    raise
                failed = failure_of(item, error, attempts + 1)
                if clock.monotonic() >= until and isinstance(error, TimeoutError):
                    return msgspec.structs.replace(failed, state=ItemState.UNKNOWN, error=f"cut off: {failed.error}")
                if failed.state is not ItemState.PENDING:
                    return failed
                attempts += _counts(error)
                if attempts >= job.attempts:
                    return msgspec.structs.replace(failed, state=ItemState.FAILED, reason="")
                item = failed
                await self._wait(error, attempts, until)
            else:
                return succeeded(item, done.value, attempts + 1, done.seconds, is_kept=False)
        return item

    async def _once(self, job: Job, one: Checked, batch_id: str, attempt: int) -> Done:
        async with AsyncExitStack() as stack:
            tx = None
            if job.wants_transaction:
                unit = unit_of_work(self._of.store, self._of.the(Publisher))
                tx = await stack.enter_async_context(unit)
            return await self._attempt(job, one.value, batch_id, one.item.id, attempt, tx)

    async def _wait(self, error: BaseException, attempts: int, until: float) -> None:
        first, cap = limits.JOB_BACK_OFF_SECONDS
        seconds = full_jitter_seconds(max(1, attempts), base_seconds=first, cap_seconds=cap, source=self._of.random)
        if isinstance(error, Defer | RetryLater):
            seconds = error.after_seconds
        elif not _counts(error):
            seconds = max(_REJECTED_SECONDS, seconds)
        await self._of.clock.sleep(min(seconds, max(0.0, until - self._of.clock.monotonic())))


def succeeded(item: Item, value: object, attempts: int, seconds: float, *, is_kept: bool) -> Item:
    """Return an item that is done. is_kept: its result is stored, if it is not too large for that."""
    omitted = ""
    if is_kept:
        try:
            dumped = value.model_dump(mode="json") if hasattr(value, "model_dump") else value
            encoded = msgspec.json.encode(dumped)
            value = msgspec.json.decode(encoded)
            if len(encoded) > limits.BATCH_VALUE_BYTES_MAX:
                value, omitted = None, f"{len(encoded)} bytes, at most {limits.BATCH_VALUE_BYTES_MAX}"
        except (TypeError, ValueError, msgspec.MsgspecError) as error:  # the effect is there all the same
            value, omitted = None, f"no JSON: {error_text(error, 100)}"
    return Item(
        n=item.n,
        id=item.id,
        state=ItemState.SUCCEEDED,
        attempts=attempts,
        seconds=round(seconds, 6),
        value=value,
        value_omitted=omitted,
    )


def failure_of(item: Item, error: BaseException, attempts: int) -> Item:
    """Return an item after an attempt that raised: failed, unknown, or pending if it may run again."""
    state = ItemState.PENDING
    if isinstance(error, DeadLetter):
        state = ItemState.FAILED
    elif isinstance(error, Park):
        state = ItemState.UNKNOWN
    elif not isinstance(error, Outcome):
        told = report(error)
        action = None if told.disposition is None else told.disposition.action
        if action is Action.PARK:
            state = ItemState.UNKNOWN
        elif action is Action.DEAD_LETTER or told.verdict.kind is Kind.BUG:
            state = ItemState.FAILED
    return Item(
        n=item.n,
        id=item.id,
        state=state,
        attempts=attempts if state is not ItemState.PENDING or _counts(error) else attempts - 1,
        error_class=class_name(error),
        error=shown(error_text(error)),
        reason="waits for its next attempt" if state is ItemState.PENDING else "",
    )


def _counts(error: BaseException) -> bool:
    """Whether an attempt counts that ended so: one that an outage or a limit of ours kept from running does not."""
    if isinstance(error, CallRejected | Defer):
        return False
    told = None if isinstance(error, Outcome) else report(error)
    return told is None or told.is_breaker_closed or told.verdict.kind is not Kind.TRANSIENT
