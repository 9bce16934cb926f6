"""What a person's decision does to a saga, in the transaction that resolves the review item.

The saga's row is locked after the item's. An answer to the question that a saga stands in review with moves it on,
under a new epoch; the verdict of an approval is a signal to a saga that need not stand still.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from spoolproof.errors import CodecError, Conflict, InvalidMessage
from spoolproof.ports.reviews import Reviews
from spoolproof.ports.sagas import Decision, Journal, Move, Phase, SagaRow, Sagas, SagaState, Signal, StepRow, StepState
from spoolproof.ports.store import Store
from spoolproof.ports.units import Unit
from spoolproof.review import actions as review
from spoolproof.saga.definition import Definitions
from spoolproof.saga.desk import find
from spoolproof.saga.errors import Unreadable
from spoolproof.saga.question import ACTIONS, PREFIX, Asking, Kind, Question, approvals, read, signal_of
from spoolproof.saga.step import Verdict
from spoolproof.saga.transitions import OVER, check_move
from spoolproof.saga.values import decode, encode

_OUTPUT = ("landed", "skip", "mark_compensated")


class Decisions:
    """The effects of all actions on all kinds of items that sagas open. definitions: what types an output has; of a
    process without the code none are known, and the saga asks again when it cannot read one."""

    def __init__(self, store: Store, asking: Asking, definitions: Definitions) -> None:
        self._sagas = store.port(Sagas)
        self._asking = asking
        self._definitions = definitions

    def register(self, actions: review.Actions) -> None:
        """Add them to a registry."""
        for kind in Kind:
            for action in ACTIONS[kind]:
                actions.own(PREFIX + kind, action, self.decide)

    async def decide(self, decision: review.Decision, tx: Unit) -> None:
        """Apply a decision. Raises Conflict, NotFound, InvalidMessage."""
        saga_id = decision.item.evidence["saga"]
        if decision.item.kind == PREFIX + Kind.APPROVAL:
            await self._approve(saga_id, decision, tx)
            return
        state = _state_after(decision)
        if state in OVER:  # items are locked before the saga
            known = await find(self._sagas, saga_id)
            await self._asking.close(tx.inner, approvals(known.steps), f"the saga is {state}")
        found = await find(self._sagas, saga_id, tx.inner)
        question = _question(found.saga)
        if question is None or question.review != decision.item.id:
            raise Conflict(f"saga {saga_id} is {found.saga.state} and does not ask that any more")
        if state is None:
            state = SagaState.RUNNING if found.saga.cause is None else SagaState.COMPENSATING
        check_move(found.saga.state, state)
        cause = decision.reason if decision.action in ("compensate", "abandon") else None
        crashes = 0 if question.kind is Kind.CRASH_LOOP else None
        steps = self._steps(found, question, decision)
        move = Move(state=state, cause=cause)
        await self._sagas.decide(Decision(saga_id=saga_id, move=move, steps=steps, crashes=crashes), tx.inner)

    async def _approve(self, saga_id: str, decision: review.Decision, tx: Unit) -> None:
        if decision.action == "edit" and "payload" not in decision.values:
            raise InvalidMessage("payload", None, "edit is an approval with another payload: give it")
        found = await find(self._sagas, saga_id, tx.inner)
        payload = decision.values.get("payload")
        verdict = Verdict(action=decision.action, reason=decision.reason, actor=decision.actor, payload=payload)
        signal = signal_of(decision.item.evidence["name"])
        made = Signal(message_id=decision.item.id, type=signal, body=msgspec.json.encode(verdict))
        await self._sagas.signal(found.saga, made, tx.inner)

    def _steps(self, found: Journal, question: Question, decision: review.Decision) -> Sequence[StepRow]:
        place = (question.phase, question.step, question.item)
        row = next((row for row in found.steps if row.place == place), None)
        if row is None:
            return ()
        action, told = decision.action, f"decided by {decision.actor}: {decision.reason}"
        if action in _OUTPUT:
            state = StepState.SUCCEEDED if action == "landed" else StepState.SKIPPED
            return [replace(row, state=state, output=self._output(found.saga, row, decision), error=told)]
        if action not in ("retry", "not_landed"):
            return ()
        if row.phase is Phase.FLOW:
            return [replace(row, state=StepState.SUCCEEDED, output=b"null", error=told)]
        return [replace(row, state=StepState.UNAVAILABLE, attempts=0, charged=0)]

    def _output(self, saga: SagaRow, row: StepRow, decision: review.Decision) -> bytes:
        value: Any = decision.values.get("output")
        definition = self._definitions.sagas.get((saga.name, saga.version))
        step = None if definition is None or row.phase is not Phase.DO else definition.find(row.name)
        body = msgspec.json.encode(value)
        if step is None:
            return body
        try:
            return encode(decode(body, step.output), step.output, f"output of step {step.name!r}")
        except (CodecError, Unreadable) as error:
            why = error.__cause__ or error
            raise InvalidMessage("output", value, f"is not what step {step.name!r} returns: {why}") from error


def _question(saga: SagaRow) -> Question | None:
    return None if saga.state is not SagaState.IN_REVIEW or saga.question is None else read(saga.question)


def _state_after(decision: review.Decision) -> SagaState | None:
    """Return where a decision leads; None: on, in the direction it had."""
    if decision.action == "abandon":
        return SagaState.ABANDONED
    if decision.action == "mark_compensated" and decision.item.kind == PREFIX + Kind.UNVERIFIED:
        return SagaState.COMPENSATED
    return SagaState.COMPENSATING if decision.action == "compensate" else None


async def open_item_of(sagas: Sagas, reviews: Reviews, saga_id: str) -> str:
    """Return the id of the item that is open about a saga. Raises NotFound, Conflict."""
    found = await find(sagas, saga_id)
    question = _question(found.saga)
    for id in [question.review] if question is not None else approvals(found.steps):
        details = await reviews.get(id)
        if details is not None and details.item is not None and details.item.resolved_at is None:
            return id
    raise Conflict(f"saga {saga_id} is {found.saga.state} and asks nothing")
