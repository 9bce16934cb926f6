"""What a person may do with a saga, and whoever acts for one: answer its question, cancel it, send it a signal.

Each is one transaction that locks the saga's row, so that of two answers one counts; its epoch rises, and whoever
worked on it is fenced out. A caller who has a transaction of his own passes it, and the answer commits with that.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import msgspec

from spoolproof.errors import Conflict, NotFound
from spoolproof.ports.sagas import Decision, Journal, Move, Phase, SagaRow, Sagas, SagaState, Signal, StepRow, StepState
from spoolproof.ports.store import Store
from spoolproof.ports.transaction import StoreTransaction
from spoolproof.saga.events import Decided
from spoolproof.saga.question import Kind, Question, read
from spoolproof.saga.step import Verdict
from spoolproof.saga.transitions import OVER, check_move
from spoolproof.telemetry.events import emit


async def find(sagas: Sagas, saga_id: str, tx: StoreTransaction | None = None) -> Journal:
    """Return everything of a saga. Raises NotFound."""
    found = await sagas.journal(saga_id, tx)
    if found is None:
        error = NotFound(f"no saga {saga_id!r}")
        error.hint = "spoolproof saga ls shows the ids"
        raise error
    return found


async def answer(
    store: Store,
    saga_id: str,
    action: str,
    *,
    actor: str,
    reason: str,
    output: Any = None,
    transaction: StoreTransaction | None = None,
) -> SagaState:
    """Answer the question of a saga in review; returns the state it goes on in.

    action: one of `Question.actions`. output: what landed, what a skipped step is to return, or what `edit` changed,
    JSON-ready. transaction: an open one of the store; default one of its own. Raises NotFound, and Conflict when it is
    not in review or that is no answer to its question.
    """
    async with _locked(store, saga_id, transaction) as (sagas, tx, found):
        saga = found.saga
        if saga.state is not SagaState.IN_REVIEW or saga.question is None:
            raise Conflict(f"saga {saga_id} is {saga.state.value} and asks nothing")
        question = read(saga.question)
        if action not in question.actions:
            raise Conflict(f"saga {saga_id} asks {question.kind.value}: answer {', '.join(question.actions)}")
        if action == "compensate" and saga.is_past_pivot:
            raise Conflict(f"saga {saga_id} is past its point of no return")
        row = _row_of(found, question)
        steps = [] if row is None else _answered(row, question, action, output, reason, actor)
        state = _state_after(saga, question, action)
        check_move(saga.state, state)
        cause = reason if action in ("compensate", "abandon") else None
        move = Move(state=state, cause=cause)
        crashes = 0 if question.kind is Kind.CRASH_LOOP else None
        await sagas.decide(Decision(saga_id=saga_id, move=move, steps=steps, crashes=crashes), tx)
    emit(Decided(action=action, actor=actor, id=saga_id, reason=reason))
    return state


async def retry(store: Store, saga_id: str, *, actor: str, reason: str) -> SagaState:
    """Try again: the answer `retry` for one in review, due at once for one that waits. Raises NotFound, Conflict."""
    found = await find(store.port(Sagas), saga_id)
    if found.saga.state is SagaState.IN_REVIEW:
        return await answer(store, saga_id, "retry", actor=actor, reason=reason)
    async with _locked(store, saga_id, None) as (sagas, tx, found):
        if found.saga.state in OVER or found.saga.state is SagaState.EXPECTED:
            raise Conflict(f"saga {saga_id} is {found.saga.state.value}")
        await sagas.decide(Decision(saga_id=saga_id, move=Move(state=found.saga.state)), tx)
    emit(Decided(action="wake", actor=actor, id=saga_id, reason=reason))
    return found.saga.state


async def cancel(store: Store, saga_id: str, *, actor: str, reason: str) -> None:
    """Have a running saga undone. Raises NotFound, and Conflict past its point of no return or if it is not running."""
    async with _locked(store, saga_id, None) as (sagas, tx, found):
        saga = found.saga
        if saga.state is not SagaState.RUNNING:
            raise Conflict(f"saga {saga_id} is {saga.state.value}; only a running one can be cancelled")
        if saga.is_past_pivot:
            raise Conflict(f"saga {saga_id} is past its point of no return")
        move = Move(state=SagaState.RUNNING)
        await sagas.decide(Decision(saga_id=saga_id, move=move, is_cancel_requested=True), tx)
    emit(Decided(action="cancel", actor=actor, id=saga_id, reason=reason))


async def signal(
    store: Store, saga_id: str, type: str, body: bytes, message_id: str, *, transaction: StoreTransaction | None = None
) -> bool:
    """Send a signal to a saga that exists; False if that message id came before. Raises NotFound."""
    sagas = store.port(Sagas)
    found = await find(sagas, saga_id)
    return await sagas.signal(found.saga, Signal(message_id=message_id, type=type, body=body), transaction)


@asynccontextmanager
async def _locked(
    store: Store, saga_id: str, transaction: StoreTransaction | None
) -> AsyncIterator[tuple[Sagas, StoreTransaction, Journal]]:
    sagas = store.port(Sagas)
    if transaction is not None:
        yield sagas, transaction, await find(sagas, saga_id, transaction)
        return
    async with store.transaction() as tx:
        yield sagas, tx, await find(sagas, saga_id, tx)


def _row_of(found: Journal, question: Question) -> StepRow | None:
    place = (question.phase, question.step, question.item)
    return next((row for row in found.steps if row.place == place), None)


def _answered(row: StepRow, question: Question, action: str, output: Any, reason: str, actor: str) -> list[StepRow]:
    done: Callable[[StepState, Any], StepRow] = lambda state, value: replace(  # noqa: E731
        row, state=state, output=msgspec.json.encode(value), error=f"decided by {actor}: {reason}"
    )
    if question.kind is Kind.APPROVAL:
        verdict = Verdict(action=action, reason=reason, actor=actor, payload=output)
        return [done(StepState.SUCCEEDED, verdict)]
    if action == "landed":
        return [done(StepState.SUCCEEDED, output)]
    if action in ("skip", "mark_compensated"):
        return [done(StepState.SKIPPED, output)]
    if action in ("retry", "not_landed"):
        if row.phase is Phase.FLOW:
            return [done(StepState.SUCCEEDED, None)]
        return [replace(row, state=StepState.UNAVAILABLE, attempts=0, charged=0)]
    return []


def _state_after(saga: SagaRow, question: Question, action: str) -> SagaState:
    if action == "abandon":
        return SagaState.ABANDONED
    if action == "mark_compensated" and question.kind is Kind.UNVERIFIED:
        return SagaState.COMPENSATED
    if action == "compensate" or saga.cause is not None:
        return SagaState.COMPENSATING
    return SagaState.RUNNING
