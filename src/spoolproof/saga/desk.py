"""What a person may do with a saga that asks nothing: cancel it, have it try now, send it a signal.

Each is one transaction that locks the saga's row; its epoch rises, and whoever worked on it is fenced out. Questions
are answered on their review items (`saga/decisions.py`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from spoolproof.errors import Conflict, NotFound
from spoolproof.ports.sagas import Decision, Journal, Move, Sagas, SagaState, Signal
from spoolproof.ports.store import Store
from spoolproof.ports.transaction import StoreTransaction
from spoolproof.saga.events import Decided
from spoolproof.saga.question import read
from spoolproof.saga.transitions import OVER
from spoolproof.telemetry.events import emit


async def find(sagas: Sagas, saga_id: str, tx: StoreTransaction | None = None) -> Journal:
    """Return everything of a saga. Raises NotFound."""
    found = await sagas.journal(saga_id, tx)
    if found is None:
        error = NotFound(f"no saga {saga_id!r}")
        error.hint = "spoolproof saga ls shows the ids"
        raise error
    return found


async def retry(store: Store, saga_id: str, *, actor: str, reason: str) -> SagaState:
    """Have one that waits try again now. Raises NotFound, and Conflict for one that is over, or asks a person."""
    async with _locked(store, saga_id) as (sagas, tx, found):
        if found.saga.state in (*OVER, SagaState.EXPECTED, SagaState.IN_REVIEW):
            error = Conflict(f"saga {saga_id} is {found.saga.state.value}")
            if found.saga.question is not None:
                error.hint = f"spoolproof review resolve {read(found.saga.question).review} retry"
            raise error
        await sagas.decide(Decision(saga_id=saga_id, move=Move(state=found.saga.state)), tx)
    emit(Decided(action="wake", actor=actor, id=saga_id, reason=reason))
    return found.saga.state


async def cancel(store: Store, saga_id: str, *, actor: str, reason: str) -> None:
    """Have a running saga undone. Raises NotFound, and Conflict past its point of no return or if it is not running."""
    async with _locked(store, saga_id) as (sagas, tx, found):
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
async def _locked(store: Store, saga_id: str) -> AsyncIterator[tuple[Sagas, StoreTransaction, Journal]]:
    sagas = store.port(Sagas)
    async with store.transaction() as tx:
        yield sagas, tx, await find(sagas, saga_id, tx)
