"""Undoes a saga, last step first, one at a time, and finds what lands after its undo.

The journal says what there is to undo, never the flow. A step is undone if it succeeded or may have landed, the one
that failed included. An undo is repeated under one key until it is done; when it is refused, or has had its day, a
person is asked before anything older is undone: a halt in the middle is a state that can be described.

A call that timed out may arrive after its undo. Where nobody keeps it from having an effect (`tombstone`), the probe
looks twice, a minute and an hour later; what landed is undone again, under a new key. The probe of a step that was
unavailable looks, too: that nothing had landed was somebody's word. What can be neither probed nor ruled out is shown
to a person.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from spoolproof import limits
from spoolproof.ports.sagas import FINAL, Phase, StepRow, StepState
from spoolproof.saga.attempt import Attempts, Work, about
from spoolproof.saga.definition import SagaDefinition, StepDefinition
from spoolproof.saga.errors import Refused
from spoolproof.saga.halt import Ask, Release
from spoolproof.saga.outcome import Effect
from spoolproof.saga.question import Kind, Question
from spoolproof.saga.record import Record
from spoolproof.saga.step import Landed, NotLanded
from spoolproof.saga.values import decode, encode

_MAY_HAVE_LANDED = frozenset({StepState.SUCCEEDED, StepState.STARTED, StepState.UNKNOWN})
_SETTLE = "settle"


class Undoing:
    """The way back of one saga."""

    def __init__(self, record: Record, definition: SagaDefinition, attempts: Attempts) -> None:
        self._record = record
        self._definition = definition
        self._attempts = attempts

    async def undo(self) -> None:
        """Undo everything there is. Raises a Halt."""
        rows = [row for row in self._record.rows.values() if _is_to_undo(row)]
        for row in sorted(rows, key=lambda row: -row.seq):
            step = self._definition.find(row.name)
            if step is not None and step.effect is not Effect.READ and step.undo is not None:
                await self._undo(step, row)

    async def _undo(self, step: StepDefinition, row: StepRow) -> None:
        known = self._undone(row)
        undo = known[-1] if known else replace(_undo_row(row), item=row.item)
        if undo.state in FINAL and undo.state is not StepState.REFUSED:
            return
        assert step.undo is not None
        if row.state in (StepState.STARTED, StepState.UNKNOWN) and not known:
            said = await self._attempts.probe(step, row)
            if isinstance(said, Landed):  # known from here on: nothing to look for afterwards
                output = encode(said.output, step.output, f"what the probe of {step.name!r} found")
                row = self._record.put(replace(row, state=StepState.SUCCEEDED, output=output))
        work = Work(
            row=undo,
            definition=step,
            effect=Effect.TX if step.is_undone_in_tx else Effect.KEYED,
            call=step.undo,
            arguments=(decode(row.output, step.output),),
            output=Any,
            retry_seconds=limits.SAGA_UNDO_RETRY_SECONDS,
        )
        try:
            if undo.state is StepState.REFUSED:
                raise Refused(undo.error)
            await self._attempts.finish(work)
        except Refused as error:
            raise Ask(about(Kind.COMPENSATION_FAILED, undo, f"{row.name}: its undo was refused: {error}")) from None

    def _undone(self, row: StepRow) -> list[StepRow]:
        """Return the undos of a row, the first first."""
        found = [
            one
            for one in self._record.rows.values()
            if one.phase is Phase.COMPENSATE and one.name == row.name and one.item.partition("/")[0] == row.item
        ]
        return sorted(found, key=lambda one: int(one.item.partition("/")[2] or 1))

    # --- late landings -----------------------------------------------------------------------------------------------

    async def settle(self) -> bool:
        """Look, when it is time, whether something landed after its undo; True when nothing did, False when there is
        something to undo again. Raises a Halt."""
        doubtful = [pair for row in self._record.rows.values() if (pair := self._doubt(row)) is not None]
        probed = [(step, row) for step, row in doubtful if step.prober is not None]
        unclear = [row for step, row in doubtful if step.prober is None and row.is_maybe_landed]
        for number, least in enumerate(limits.SAGA_SETTLE_SECONDS if probed else (), 1):
            check = self._check(number)
            if check.state in FINAL:
                continue
            longest = max(step.timeout_seconds for step, _ in probed)
            left = max(least, 2 * longest) - self._record.age_seconds(check.started_at)
            if left > 0:
                raise Release(left, "timer")
            still: list[StepRow] = []
            for step, row in probed:
                said = await self._attempts.probe(step, row)
                if isinstance(said, Landed):
                    self._landed(step, row, said)
                    return False
                if not isinstance(said, NotLanded):
                    still.append(row)
            self._record.put(replace(check, state=StepState.SUCCEEDED))
            if number == len(limits.SAGA_SETTLE_SECONDS):
                unclear += still
        if unclear:
            names = ", ".join(f"{row.name} ({row.item})" for row in unclear)
            text = f"undone, but it is not known whether this landed afterwards: {names}"
            raise Ask(Question(kind=Kind.UNVERIFIED, text=text))
        return True

    def _doubt(self, row: StepRow) -> tuple[StepDefinition, StepRow] | None:
        step = self._definition.find(row.name) if row.phase is Phase.DO else None
        if step is None or step.effect in (Effect.READ, Effect.TX) or step.tombstone or step.undo is None:
            return None
        was_answered = row.state in (StepState.SUCCEEDED, StepState.SKIPPED) or len(self._undone(row)) > 1
        may_land = row.is_maybe_landed or row.state in (StepState.UNAVAILABLE, StepState.UNKNOWN, StepState.STARTED)
        return (step, row) if may_land and not was_answered else None

    def _check(self, number: int) -> StepRow:
        row = StepRow(phase=Phase.FLOW, name=_SETTLE, item=str(number), state=StepState.STARTED, seq=0)
        return self._record.rows.get(row.place) or self._record.put(row)

    def _landed(self, step: StepDefinition, row: StepRow, said: Landed[Any]) -> None:
        output = encode(said.output, step.output, f"what the probe of {step.name!r} found")
        again = len(self._undone(row)) + 1
        item = row.item if again == 1 else f"{row.item}/{again}"
        self._record.put(replace(row, state=StepState.SUCCEEDED, output=output, is_maybe_landed=True))
        self._record.put(replace(_undo_row(row), item=item))


def _is_to_undo(row: StepRow) -> bool:
    return row.phase is Phase.DO and (row.state in _MAY_HAVE_LANDED or row.is_maybe_landed)


def _undo_row(row: StepRow) -> StepRow:
    return StepRow(phase=Phase.COMPENSATE, name=row.name, item=row.item, state=StepState.STARTED, seq=row.seq)
