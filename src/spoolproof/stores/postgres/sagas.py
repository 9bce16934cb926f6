"""Sagas on PostgreSQL, due by the server's clock.

A write of a run is one statement, and the transaction of a tx step is ended by the server when it stands still: a
process that is frozen must not hold the rows of its sagas, or those of its steps, past its lease.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from spoolproof.ports.sagas import Seen, StepRow, Write
from spoolproof.ports.transaction import StoreTransaction
from spoolproof.statements import load_statements
from spoolproof.stores.postgres.store import PostgresStore
from spoolproof.stores.sagas import SqlSagas, statements_of

T = TypeVar("T")

_SQL = statements_of(
    {
        "saga": "spoolproof.saga",
        "process": "spoolproof.process",
        # not clock_timestamp(), which is volatile: no index would be used
        "now": "coalesce(cast($1 as timestamptz), now())",
        "second": "interval '1 s'",
        "alive": "clock_timestamp()",
        "lock": "for no key update",
        "skip": "for update skip locked",
        "skip_s": "for update of s skip locked",
        "bytes": "bytea",
    }
)


_OWN = load_statements(__package__, "sagas.sql")


class PostgresSagas(SqlSagas):
    def __init__(self, store: PostgresStore) -> None:
        super().__init__(_SQL)
        self._store = store

    async def _in_one(self, do: Callable[[StoreTransaction], Coroutine[Any, Any, T]]) -> T:
        async with self._store.transaction() as tx:
            return await do(tx)

    async def _read(self, sql: str, *args: object) -> Sequence[Mapping[str, Any]]:
        return await self._store.work.fetch(sql, *args)

    def _now(self) -> object:
        return None

    async def _once(self, sql: str, *args: object) -> Sequence[Mapping[str, Any]]:
        return await self._store.work.fetch(sql, *args)

    async def guard(self, tx: StoreTransaction, seconds: float) -> None:
        await tx.fetch(_OWN["guard"], f"{seconds:.0f}s")

    async def write(self, write: Write, tx: StoreTransaction | None = None) -> Seen | None:
        rows = [_columns(step) for step in write.steps]
        arrays = [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(12)]
        move = write.move
        values = (None,) * 4 if move is None else (move.state.value, move.cause, move.question, move.waiting_for)
        flags = (False, False) if move is None else (move.is_past_pivot, move.is_released)
        times = (0, None) if move is None else (move.signals_seen, move.wake_seconds)
        found = await (self._once if tx is None else tx.fetch)(
            _OWN["write"],
            *(write.saga_id, write.owner, write.epoch, *arrays, write.has_progress, *values, *flags, *times),
        )
        if not found:
            return None
        return Seen(is_cancel_requested=found[0]["is_cancel_requested"], signals=found[0]["signals"])


def _columns(step: StepRow) -> tuple[object, ...]:
    return (
        *(step.phase.value, step.name, step.item, step.state.value, step.seq, step.attempts, step.charged),
        *(step.is_maybe_landed, step.epoch, step.arguments, step.output, step.error),
    )
