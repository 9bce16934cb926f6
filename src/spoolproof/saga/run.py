"""One claimed saga, from the claim until it is over, asleep, in review or somebody else's.

Forward it is the flow that leads, on the way back the journal. Whatever ends a run is one write: what is pending, and
the move.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from spoolproof import limits
from spoolproof.caught import before, error_line, is_failure
from spoolproof.errors import StoreUnavailable
from spoolproof.failpoints import failpoint
from spoolproof.ports.sagas import STRANGE, Journal, Phase, SagaRow, Sagas, SagaState, StepRow, StepState, Write
from spoolproof.ports.transaction import StoreTransaction
from spoolproof.saga.attempt import Attempts, Tools
from spoolproof.saga.definition import SagaDefinition
from spoolproof.saga.errors import Refused, Unreadable
from spoolproof.saga.events import DURATION_SECONDS, Compensating, InReview, SagaFinished, StepStrange, WasFenced
from spoolproof.saga.flow import Flow
from spoolproof.saga.halt import Ask, Fenced, Halt, Release, Reload, Undo
from spoolproof.saga.question import Kind, Question, approvals, mark, written
from spoolproof.saga.record import Beside, Record
from spoolproof.saga.undo import Undoing
from spoolproof.saga.values import decode, encode
from spoolproof.telemetry.events import emit
from spoolproof.telemetry.metrics import METER

INPUT = (Phase.FLOW, "input", "1")
RESULT = (Phase.FLOW, "result", "1")
_DEADLINE = (Phase.FLOW, "deadline", "1")
_AGAIN_SECONDS = 1.0


class Run:
    """The life of one saga in this process. row: as it was claimed."""

    def __init__(self, tools: Tools, sagas: Sagas, row: SagaRow, definition: SagaDefinition) -> None:
        self._tools = tools
        self._sagas = sagas
        self._row = row
        self._definition = definition
        self._record: Record | None = None

    async def live(self) -> None:
        """Do all that can be done now. Ends also when the saga was taken over."""
        failpoint("saga.after_claim")
        while True:
            try:
                record = self._record = await self._load()
                await self._turn(record)
                return
            except Fenced:
                emit(WasFenced(saga=self._row.name, id=self._row.saga_id))
                return
            except Reload:
                await self._tools.clock.sleep(_AGAIN_SECONDS)

    async def release(self, seconds: float) -> None:
        """Give it back, due in so many seconds. Raises StoreUnavailable, Fenced."""
        record = self._record
        if record is not None and record.saga.state not in (SagaState.IN_REVIEW, *_ENDS):
            await record.flush(record.move_to(record.saga.state, is_released=True, wake_seconds=seconds))

    async def _load(self) -> Record:
        while True:
            try:
                journal = await self._sagas.journal(self._row.saga_id)
                break
            except StoreUnavailable:
                await self._tools.clock.sleep(_AGAIN_SECONDS)
        saga = None if journal is None else journal.saga
        if journal is None or saga is None or (saga.owner, saga.epoch) != (self._row.owner, self._row.epoch):
            raise Fenced
        pivot = frozenset(name for step in self._definition.steps.values() if step.pivot for name in step.names)
        tools = self._tools
        record = Record(
            *(tools.store, self._sagas, self._row, journal), pivot=pivot, clock=tools.clock, watch=tools.watch
        )
        if self._record is not None:
            record.adopt(self._record)
        return record

    async def _turn(self, record: Record) -> None:
        if strange := self._strange(record):
            await self._leave_to_others(record, strange)
            return
        try:
            if record.saga.crashes > limits.SAGA_CRASHES_MAX:
                text = f"{record.saga.crashes} processes have died while they worked on it"
                raise Ask(Question(kind=Kind.CRASH_LOOP, text=text))
            given = decode(record.rows[INPUT].output, self._definition.input)
            if record.saga.state is SagaState.RUNNING:
                await self._forward(record, given)
            if record.saga.state in (SagaState.COMPENSATING, SagaState.SETTLING):
                await self._back(record, given)
        except Release as halt:
            await self._sleep(record, halt)
        except Ask as halt:
            await self._ask(record, halt.question)
        except Unreadable as error:
            evidence = error.body[: limits.REVIEW_TEXT_MAX].decode(errors="replace")
            await self._ask(record, Question(kind=Kind.UNREADABLE, text=str(error), evidence=evidence))
        failpoint("saga.after_turn")

    def _strange(self, record: Record) -> str:
        """Return the name of a step that this code does not know, if there is one: a newer release has begun it."""
        steps = (row.name for row in record.rows.values() if row.phase is Phase.DO)
        return next((name for name in steps if self._definition.find(name) is None), "")

    async def _leave_to_others(self, record: Record, strange: str) -> None:
        saga, seconds = record.saga, limits.SAGA_STRANGE_SECONDS
        move = record.move_to(saga.state, is_released=True, wake_seconds=seconds, waiting_for=STRANGE)
        await record.flush(move)
        emit(StepStrange(saga=saga.name, step=strange, id=saga.saga_id))

    # --- forward -----------------------------------------------------------------------------------------------------

    async def _forward(self, record: Record, given: Any) -> None:
        attempts = Attempts(self._tools, record, given, lambda: self._may_go_on(record))
        flow = Flow(self._tools, record, self._definition, attempts)
        then = before()
        try:
            result = await self._flow(record, flow, given)
            flow.check_over()
            output = encode(result, self._definition.result, f"result of saga {self._definition.name!r}")
        except Refused as error:
            await self._refused(record, str(error))
        except Undo as halt:
            await self._compensate(record, halt.cause)
        except Unreadable:
            raise
        except BaseException as error:
            if isinstance(error, Halt) or not is_failure(error, then):
                raise
            text = f"the flow failed: {error_line(error, limits.SAGA_ERROR_CHARACTERS_MAX)}"
            raise Ask(Question(kind=Kind.FLOW_FAILED, text=text)) from error
        else:
            phase, name, item = RESULT
            record.put(StepRow(phase=phase, name=name, item=item, state=StepState.SUCCEEDED, seq=0, output=output))
            await self._end(record, SagaState.COMPLETED)

    async def _flow(self, record: Record, flow: Flow, given: Any) -> Any:
        assert self._definition.function is not None
        try:
            return await self._definition.function(flow, given)
        except Release:
            await self._may_go_on(record)  # what waits hears of a cancel and of its deadline, too
            raise

    async def _may_go_on(self, record: Record) -> None:
        """Raise a Halt when nothing more may be begun. On the way back neither a cancel nor the deadline counts."""
        saga = record.saga
        if self._tools.is_draining():
            raise Release(0.0, "timer")
        if saga.state is not SagaState.RUNNING:
            return
        is_late = saga.deadline_at is not None and record.now >= saga.deadline_at
        if record.is_past_pivot:
            phase, name, item = _DEADLINE
            known = record.rows.get(_DEADLINE)
            if is_late and (known is None or known.state is not StepState.SUCCEEDED):
                record.put(StepRow(phase=phase, name=name, item=item, state=StepState.STARTED, seq=0))
                text = "its deadline is over, and the point of no return behind it"
                raise Ask(Question(kind=Kind.DEADLINE, text=text, phase=phase, step=name, item=item))
        elif record.is_cancelled:
            raise Undo("cancelled")
        elif is_late:
            raise Undo("its deadline is over")

    async def _refused(self, record: Record, cause: str) -> None:
        if record.is_past_pivot:
            refused = [row for row in record.rows.values() if row.state is StepState.REFUSED]
            text = f"refused after the point of no return: {cause}"
            last = refused[-1] if refused else None
            raise Ask(
                Question(
                    kind=Kind.PAST_PIVOT,
                    text=text,
                    phase=None if last is None else last.phase,
                    step="" if last is None else last.name,
                    item="" if last is None else last.item,
                )
            )
        await self._compensate(record, cause)

    async def _compensate(self, record: Record, cause: str) -> None:
        saga = record.saga
        await record.flush(record.move_to(SagaState.COMPENSATING, cause=cause), self._closing(record, cause))
        emit(Compensating(saga=saga.name, id=saga.saga_id, key=saga.key, cause=cause))
        failpoint("saga.after_turn_back")

    # --- back --------------------------------------------------------------------------------------------------------

    async def _back(self, record: Record, given: Any) -> None:
        attempts = Attempts(self._tools, record, given, lambda: self._may_go_on(record))
        undoing = Undoing(record, self._definition, attempts)
        while True:
            await undoing.undo()
            try:
                is_over = await undoing.settle()
            except Release as halt:
                await self._sleep(record, halt, SagaState.SETTLING)
                return
            if is_over:
                await self._end(record, SagaState.COMPENSATED)
                return
            if record.saga.state is not SagaState.COMPENSATING:
                await record.flush(record.move_to(SagaState.COMPENSATING))

    # --- the end of a run --------------------------------------------------------------------------------------------

    async def _end(self, record: Record, state: SagaState) -> None:
        await record.flush(record.move_to(state, is_released=True), self._closing(record, f"the saga is {state}"))
        saga = record.saga
        METER.spread(DURATION_SECONDS, saga.name, state.value).observe(record.age_seconds(saga.created_at))
        emit(SagaFinished(saga=saga.name, outcome=state.value, id=saga.saga_id, key=saga.key, cause=saga.cause or ""))

    async def _sleep(self, record: Record, halt: Release, state: SagaState | None = None) -> None:
        seconds, saga = halt.seconds, record.saga
        if saga.state is SagaState.RUNNING and saga.deadline_at is not None:
            known = record.rows.get(_DEADLINE)
            if known is None:
                left = max(0.0, (saga.deadline_at - record.now).total_seconds())
                seconds = left if seconds is None else min(seconds, left)
        move = record.move_to(state or saga.state, is_released=True, wake_seconds=seconds, waiting_for=halt.waiting_for)
        await record.flush(move, self._opening(record) if record.asks else None)
        failpoint("saga.after_sleep")

    def _opening(self, record: Record) -> Beside:
        async def beside(tx: StoreTransaction, write: Write) -> Write:
            asked = [mark(one.name, await self._tools.asking.open(tx, record.saga, one)) for one in record.asks]
            return replace(write, steps=[*write.steps, *asked])

        return beside

    def _closing(self, record: Record, reason: str) -> Beside | None:
        ids = approvals(record.rows.values())

        async def beside(tx: StoreTransaction, write: Write) -> Write:
            await self._tools.asking.close(tx, ids, reason)
            return write

        return beside if ids else None

    async def _ask(self, record: Record, question: Question) -> None:
        saga = record.saga
        move = record.move_to(SagaState.IN_REVIEW, is_released=True, waiting_for="review")

        async def beside(tx: StoreTransaction, write: Write) -> Write:
            asked = written(
                question, await self._tools.asking.open(tx, replace(saga, is_past_pivot=record.is_past_pivot), question)
            )
            return replace(write, move=replace(write.move or move, question=asked))

        await record.flush(move, beside)
        failpoint("saga.after_review")
        emit(InReview(saga=saga.name, kind=question.kind.value, id=saga.saga_id, key=saga.key, question=question.text))


_ENDS = (SagaState.COMPLETED, SagaState.COMPENSATED, SagaState.ABANDONED)


def input_of(journal: Journal) -> StepRow | None:
    """Return the row a saga was started with; None before its start."""
    return next((row for row in journal.steps if row.place == INPUT), None)
