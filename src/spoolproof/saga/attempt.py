"""Brings one step, or one compensation, to a known end: attempt after attempt, however many processes that takes.

Before a call of a `keyed` or `once` step its intent is durable; a `tx` step commits with its record; a `read` needs
neither. A row that says `started` when a saga is taken up means that a process died in the call: that is unknown.
What is unknown is probed; a keyed step is then called again under its key, a `once` step never without a verdict.

The count of attempts and the time of the first one are durable. Waits up to 5 s are waited here; longer ones release
the saga and leave nothing but its row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from spoolproof import limits
from spoolproof.backoff import RandomSource, spread_seconds
from spoolproof.caught import before, error_line, is_failure
from spoolproof.clock import Clock
from spoolproof.errors import CodecError, StoreUnavailable
from spoolproof.failpoints import failpoint
from spoolproof.outbox.publish import Publisher
from spoolproof.outbox.transaction import Transaction, unit_of_work
from spoolproof.policies import report, within_delivery
from spoolproof.ports.sagas import Phase, StepRow, StepState
from spoolproof.ports.store import Store
from spoolproof.saga.definition import StepDefinition
from spoolproof.saga.errors import Refused
from spoolproof.saga.events import ATTEMPT_SECONDS, StepFailed
from spoolproof.saga.halt import Ask, Release, Reload, Undo
from spoolproof.saga.outcome import Effect, Outcome, outcome_of
from spoolproof.saga.question import Asking, Kind, Question, approval, mark
from spoolproof.saga.record import Record
from spoolproof.saga.step import Landed, NotLanded, Step
from spoolproof.saga.values import decode, encode
from spoolproof.saga.watch import Watch
from spoolproof.telemetry.events import emit
from spoolproof.telemetry.metrics import METER

_PROBE_AGAIN_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What every run of this process works with. is_trusted: this process may believe that it still owns what it
    claimed. is_draining: it is about to end. watch: who waits for news of sagas."""

    store: Store
    publisher: Publisher
    clock: Clock
    random: RandomSource
    asking: Asking
    is_trusted: Callable[[], bool]
    is_draining: Callable[[], bool]
    watch: Watch


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One thing to bring to its end. call: makes one attempt, with a transaction where `effect` is tx."""

    row: StepRow
    definition: StepDefinition
    effect: Effect
    call: Callable[..., Awaitable[Any]]
    arguments: tuple[Any, ...]
    output: Any
    retry_seconds: tuple[float, float]

    @property
    def is_undo(self) -> bool:
        """Whether it undoes."""
        return self.row.phase is Phase.COMPENSATE


class Attempts:
    """Makes attempts for one saga. may_go_on: raises a Halt when no further call may be made for it now."""

    def __init__(self, tools: Tools, record: Record, given: object, may_go_on: Callable[[], Awaitable[None]]) -> None:
        self._tools = tools
        self._record = record
        self._given = given
        self._may_go_on = may_go_on
        self.is_alone = True  #: no other branch of the flow runs

    async def finish(self, work: Work) -> Any:
        """Return what it returns in the end. Raises Refused, or a Halt."""
        row, last = work.row, Outcome(state=work.row.state, text=work.row.error)
        if row.state is StepState.STARTED and row.attempts:
            is_known = work.effect in (Effect.TX, Effect.READ)
            last = Outcome(
                state=StepState.UNAVAILABLE if is_known else StepState.UNKNOWN, text="the process ended during the call"
            )
            row = self._failed(work, row, last)
        is_first = True
        while True:
            is_asked_first = work.effect is Effect.ONCE and row.state is StepState.UNKNOWN
            if row.attempts and not is_first and not is_asked_first:
                await self._wait(work, row, last)
            is_first = False
            if row.state is StepState.UNKNOWN:
                found = await self._resolve(work, row)
                if found is not None:
                    return decode(self._record.put(found).output, work.output)
            await self._may_go_on()
            begun_at = self._tools.clock.monotonic()
            row, last = await self._attempt(work, row)
            told = (self._record.saga.name, work.definition.name, row.phase.value, row.state.value)
            METER.spread(ATTEMPT_SECONDS, *told).observe(self._tools.clock.monotonic() - begun_at)
            if row.state is StepState.SUCCEEDED:
                return decode(row.output, work.output)
            if row.state is StepState.REFUSED:
                raise Refused(row.error)
            self._check_budget(work, row, last)

    # --- one attempt -------------------------------------------------------------------------------------------------

    async def _attempt(self, work: Work, row: StepRow) -> tuple[StepRow, Outcome]:
        row = replace(row, state=StepState.STARTED, attempts=row.attempts + 1, error="")
        is_tx = work.effect is Effect.TX
        if not is_tx and work.effect is not Effect.READ:
            row = self._record.put(row)
        if not is_tx or not self.is_alone:
            await self._record.flush()
        failpoint("saga.after_intent")
        while not self._tools.is_trusted():
            await self._tools.clock.sleep(0.5)
            self._record.put(row)
            await self._record.flush()  # whoever took the saga over has raised its epoch
        then = before()
        try:
            output = await (self._call_in_tx(work, row) if is_tx else self._call(work, row))
        except BaseException as error:
            if not is_failure(error, then):
                raise
            if isinstance(error, Reload):
                raise
            return self._judge(work, row, error)
        done = replace(row, state=StepState.SUCCEEDED, output=output)
        if is_tx:
            return done, Outcome(state=done.state, text="")
        failpoint("saga.after_call")
        done = self._record.put(done)
        if work.effect is Effect.ONCE:
            await self._record.flush()
        return done, Outcome(state=done.state, text="")

    async def _call(self, work: Work, row: StepRow) -> bytes:
        step, policy = self.step_of(row), work.definition.policy
        with within_delivery(is_again=row.attempts > 1):
            async with asyncio.timeout(work.definition.timeout_seconds):
                if policy is None or work.is_undo:
                    value = await work.call(step, self._given, *work.arguments)
                else:
                    key = step.key if work.effect is Effect.KEYED else None
                    value = await policy.using(idempotency_key=key).call(work.call, step, self._given, *work.arguments)
        return encode(value, work.output, f"output of step {work.definition.name!r}")

    async def _call_in_tx(self, work: Work, row: StepRow) -> bytes:
        has_returned = False
        try:
            async with asyncio.timeout(work.definition.timeout_seconds):
                async with unit_of_work(self._tools.store, self._tools.publisher) as tx:
                    await self._record.guard(tx.inner, work.definition.timeout_seconds)
                    opened: list[StepRow] = []
                    step = replace(self.step_of(row), _open=partial(self._open, tx, opened))
                    value = await work.call(step, self._given, *work.arguments, tx=tx)
                    output = encode(value, work.output, f"output of step {work.definition.name!r}")
                    done = replace(row, state=StepState.SUCCEEDED, output=output)
                    failpoint("saga.before_commit")
                    write = await self._record.write_in(tx.inner, done, opened)
                    has_returned = True
        except (StoreUnavailable, TimeoutError):
            if has_returned:  # perhaps committed, and perhaps not
                raise Reload from None
            raise
        failpoint("saga.after_commit")
        self._record.committed(write)
        return output

    async def _open(self, own: Transaction, opened: list[StepRow], name: str, tx: object, **more: Any) -> None:
        if tx is not own:
            raise RuntimeError(f"open_review({name!r}) takes the tx of its step, and no other transaction")
        question = approval(self._record.saga.saga_id, name, **more)
        opened.append(mark(name, await self._tools.asking.open(own.inner, self._record.saga, question)))

    def step_of(self, row: StepRow) -> Step:
        """Return what the author gets."""
        saga_id = self._record.saga.saga_id
        item, _, again = row.item.partition("/")
        forward = key = f"{saga_id}/{row.name}/{item}"
        if row.phase is Phase.COMPENSATE:
            key = f"{forward}/compensate/{again or 1}"
        return Step(
            saga_id=saga_id,
            name=row.name,
            item=item,
            key=key,
            forward_key=forward,
            attempt=row.attempts,
            epoch=self._record.saga.epoch,
        )

    def _judge(self, work: Work, row: StepRow, error: BaseException) -> tuple[StepRow, Outcome]:
        is_conflict = work.effect is Effect.TX and self._tools.store.is_conflict(error)
        outcome = replace(
            outcome_of(error, work.effect, is_conflict=is_conflict), may_have_landed=report(error).is_unknown_any
        )
        if isinstance(error, CodecError):
            outcome = replace(outcome, state=StepState.UNKNOWN, is_bug=True, is_charged=True)
        if work.effect is Effect.READ and work.definition.has_fallback and outcome.state is not StepState.REFUSED:
            output = encode(work.definition.fallback, work.output, f"fallback of step {work.definition.name!r}")
            row = self._record.put(replace(row, state=StepState.SUCCEEDED, output=output, error=outcome.text))
            return row, outcome
        saga = self._record.saga
        emit(
            StepFailed(
                saga=saga.name,
                step=work.definition.name,
                phase=work.row.phase.value,
                outcome=outcome.state.value,
                id=saga.saga_id,
                attempt=row.attempts,
                error=outcome.text,
            ),
            error=error if outcome.is_bug else None,
        )
        return self._failed(work, row, outcome), outcome

    def _failed(self, work: Work, row: StepRow, outcome: Outcome) -> StepRow:
        is_known = work.effect in (Effect.TX, Effect.READ)
        state = StepState.UNAVAILABLE if is_known and outcome.state is StepState.UNKNOWN else outcome.state
        return self._record.put(
            replace(
                row,
                state=state,
                charged=row.charged + outcome.is_charged,
                is_maybe_landed=row.is_maybe_landed
                or state is StepState.UNKNOWN
                or (outcome.may_have_landed and not is_known),
                error=outcome.text,
            )
        )

    # --- between attempts --------------------------------------------------------------------------------------------

    def _check_budget(self, work: Work, row: StepRow, last: Outcome) -> None:
        """Raise a Halt when there is no further attempt."""
        step, record = work.definition, self._record
        budget = limits.SAGA_UNDO_SECONDS if work.is_undo else step.give_up_seconds
        is_late = budget is not None and record.age_seconds(row.started_at) >= budget
        is_spent = row.charged >= step.attempts_max and (last.is_bug or not work.is_undo)
        if not is_late and not is_spent:
            return
        if work.effect is Effect.ONCE and row.state is StepState.UNKNOWN:
            return  # a probe, or a person, has the word
        why = f"{step.name}: given up after {row.attempts} attempts: {row.error}"
        if work.is_undo:
            raise Ask(about(Kind.COMPENSATION_FAILED, row, why))
        if record.is_past_pivot:
            raise Ask(about(Kind.PAST_PIVOT, row, why))
        if last.is_bug or step.on_exhausted == "review":
            raise Ask(about(Kind.EXHAUSTED, row, why))
        raise Undo(why)

    async def _wait(self, work: Work, row: StepRow, last: Outcome) -> None:
        first, cap = work.retry_seconds
        doubled = 2 ** min(row.attempts - 1, 30)
        seconds, least = min(cap, first * doubled), 0.0
        if last.after_seconds is not None:  # its own word counts, and doubles as well: it may always say the same
            least = min(last.after_seconds, cap)
            seconds = min(seconds, least * doubled)
        seconds = max(least, spread_seconds(seconds, ratio=0.2, source=self._tools.random))
        policy = work.definition.policy
        if seconds > limits.SAGA_IN_PLACE_SECONDS or self._tools.is_draining() or not self.is_alone:
            # a call that timed out says as much about its system as one that was refused
            raise Release(seconds, "timer" if policy is None or last.is_bug else f"dependency:{policy.name}")
        await self._record.flush()
        await self._tools.clock.sleep(seconds)

    async def _resolve(self, work: Work, row: StepRow) -> StepRow | None:
        """Find out whether an unknown attempt landed: the row if it did; None to attempt again. Raises a Halt where
        that may not be."""
        said = await self.probe(work.definition, row) if not work.is_undo else None
        if isinstance(said, Landed):
            output = encode(said.output, work.output, f"what the probe of {work.definition.name!r} found")
            return replace(row, state=StepState.SUCCEEDED, output=output)
        if work.effect is not Effect.ONCE or work.is_undo:
            return None
        age = self._record.age_seconds(row.finished_at)
        if isinstance(said, NotLanded):
            late = 2 * work.definition.timeout_seconds - age  # until then the request may still arrive
            if late > 0:
                raise Release(late, "timer")
            self._check_budget(
                work, replace(row, state=StepState.UNAVAILABLE), Outcome(state=row.state, text=row.error)
            )
            return None
        if said is not None and age < limits.SAGA_PROBE_SECONDS:
            raise Release(_PROBE_AGAIN_SECONDS, "timer")
        text = f"{row.name}: it is not known whether the call took effect: {row.error}"
        raise Ask(about(Kind.UNKNOWN_OUTCOME, row, text))

    async def probe(self, step: StepDefinition, row: StepRow) -> object:
        """Return what the probe of a step says; None without one. One that fails knows nothing."""
        if step.prober is None:
            return None
        then = before()
        try:
            async with asyncio.timeout(step.timeout_seconds):
                return await step.prober(self.step_of(replace(row, phase=Phase.DO)), self._given)
        except BaseException as error:
            if not is_failure(error, then):
                raise
            return error_line(error, limits.SAGA_ERROR_CHARACTERS_MAX)


def about(kind: Kind, row: StepRow, text: str) -> Question:
    """Return a question about a row of the journal."""
    evidence = {"attempts": row.attempts, "is_maybe_landed": row.is_maybe_landed, "error": row.error}
    return Question(kind=kind, text=text, phase=row.phase, step=row.name, item=row.item, evidence=evidence)
