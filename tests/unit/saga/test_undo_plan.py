"""The way back as a plan: whatever the journal holds, and wherever an undo stops it."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from spoolproof import Service
from spoolproof.errors import InvariantViolated
from spoolproof.ports.sagas import FINAL, Phase, SagaState, StepRow, StepState
from spoolproof.saga import Step
from spoolproof.saga.attempt import Attempts, Work
from spoolproof.saga.definition import SagaDefinition
from spoolproof.saga.errors import Refused
from spoolproof.saga.halt import Ask
from spoolproof.saga.record import Record
from spoolproof.saga.transitions import OVER, TRANSITIONS, check_move
from spoolproof.saga.undo import Undoing

EFFECTS = ("keyed", "once", "tx", "read", "kept")  #: kept: an effect that needs no undo
ROW = st.tuples(st.sampled_from(EFFECTS), st.sampled_from(list(StepState)), st.booleans())


def defined() -> SagaDefinition:
    definition = Service("plan").saga("order", version=1)

    async def call(step: Step, given: object) -> None: ...

    async def call_tx(step: Step, given: object, tx: object) -> None: ...

    async def undo(step: Step, given: object, output: object) -> None: ...

    for name in EFFECTS:
        effect: Any = "keyed" if name == "kept" else name
        step = definition.step(effect=effect, name=name, why="it stays" if name == "kept" else "")(
            call_tx if name == "tx" else call
        )
        if name in ("keyed", "once", "tx"):
            step.compensate(undo)
    return definition


class Journal:
    """What an undo needs of a record."""

    def __init__(self, rows: list[StepRow]) -> None:
        self.rows = {row.place: row for row in rows}

    def put(self, row: StepRow) -> StepRow:
        self.rows[row.place] = row
        return row


class Calls:
    """Notes what is undone; refuses the undo with that number."""

    def __init__(self, refused_at: int) -> None:
        self.undone: list[tuple[str, str]] = []
        self._refused_at = refused_at

    async def probe(self, step: object, row: StepRow) -> None:
        return None

    async def finish(self, work: Work) -> None:
        self.undone.append((work.row.name, work.row.item))
        if len(self.undone) == self._refused_at:
            raise Refused("closed")


@settings(max_examples=300, deadline=None)
@given(st.lists(ROW, max_size=8), st.integers(1, 9), st.randoms(use_true_random=False))
def test_it_undoes_what_may_have_landed_last_first_and_halts_where_it_is_refused(
    steps: list[tuple[str, StepState, bool]], refused_at: int, draw: Any
) -> None:
    """SA3: the order of the journal's rows does not matter, their place in the flow does."""
    rows = [
        StepRow(phase=Phase.DO, name=name, item=str(n), state=state, seq=n, is_maybe_landed=maybe, attempts=1)
        for n, (name, state, maybe) in enumerate(steps, 1)
    ]
    may_have_landed = (StepState.SUCCEEDED, StepState.STARTED, StepState.UNKNOWN)
    due = [
        (row.name, row.item)
        for row in reversed(rows)
        if row.name in ("keyed", "once", "tx") and (row.state in may_have_landed or row.is_maybe_landed)
    ]
    draw.shuffle(rows)
    calls, asked = Calls(refused_at), []

    try:
        asyncio.run(Undoing(cast(Record, Journal(rows)), defined(), cast(Attempts, calls)).undo())
    except Ask as halt:
        asked.append((halt.question.step, halt.question.item))

    assert due[:refused_at] == calls.undone
    assert due[refused_at - 1 : refused_at] == asked


@given(st.lists(st.sampled_from(list(SagaState)), max_size=12))
def test_a_saga_that_is_over_stays_over_and_every_other_can_end(moves: list[SagaState]) -> None:
    """SA3: what is not in the table raises; after the end nothing is in it."""
    state = SagaState.EXPECTED
    for after in moves:
        try:
            check_move(state, after)
        except InvariantViolated:
            assert after not in TRANSITIONS[state]
            continue
        assert state not in OVER or after is state
        assert not (state is SagaState.COMPENSATING and after in (SagaState.RUNNING, SagaState.COMPLETED))
        state = after

    reached, edge = {state}, {state}
    while edge := {after for one in edge for after in TRANSITIONS[one]} - reached:
        reached |= edge
    assert reached & OVER
    assert FINAL.isdisjoint({StepState.STARTED, StepState.UNKNOWN, StepState.UNAVAILABLE})
