"""Sagas on a database: the same statements on each, with the words in which their dialects differ."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar
from uuid import UUID

from spoolproof.ports.sagas import (
    Begun,
    Count,
    Decision,
    Journal,
    Phase,
    SagaFilter,
    SagaRow,
    SagaState,
    Seen,
    Signal,
    StepRow,
    StepState,
    Write,
)
from spoolproof.ports.transaction import StoreTransaction
from spoolproof.statements import load_statements

T = TypeVar("T")

_COLUMNS = ", ".join(field.name for field in fields(SagaRow))


def statements_of(words: Mapping[str, str]) -> dict[str, str]:
    """Return the statements in one dialect."""
    return load_statements(__package__, "sagas.sql", {"columns": _COLUMNS, **words})


class SqlSagas(ABC):
    """Base of the adapters on SQL. statements: by name."""

    looks_first = False  #: whether a look that finds nothing is cheaper than a write that does nothing

    def __init__(self, statements: Mapping[str, str]) -> None:
        self._sql = statements

    @abstractmethod
    async def _in_one(self, do: Callable[[StoreTransaction], Coroutine[Any, Any, T]]) -> T:
        """Run statements in a transaction of their own."""

    @abstractmethod
    async def _read(self, sql: str, *args: object) -> Sequence[Mapping[str, Any]]:
        """Run a query outside any transaction."""

    @abstractmethod
    def _now(self) -> object:
        """Return what statements take for the time; None for the server's own."""

    def _read_row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row with instants as datetimes and the rest as Python has it."""
        return dict(row)

    def _process(self, id: UUID) -> object:
        return id

    async def _once(self, sql: str, *args: object) -> Sequence[Mapping[str, Any]]:
        """Run one statement that writes, and commit it."""
        return await self._in_one(lambda tx: tx.fetch(sql, *args))

    async def guard(self, tx: StoreTransaction, seconds: float) -> None:
        return None

    async def start(
        self, saga: SagaRow, given: StepRow, deadline_seconds: float | None, tx: StoreTransaction | None
    ) -> bool:
        if tx is None:
            return await self._in_one(lambda own: self.start(saga, given, deadline_seconds, own))
        values = (saga.saga_id, saga.service, saga.name, saga.version, saga.key, deadline_seconds)
        if not await tx.fetch(self._sql["start"], self._now(), *values):
            return False
        await self._put(tx, saga.saga_id, [given])
        return True

    async def claim(self, service: str, runs: Sequence[tuple[str, int]], owner: UUID, limit: int) -> Sequence[SagaRow]:
        claimed: list[SagaRow] = []
        for name, version in runs:
            if len(claimed) >= limit:
                break
            if self.looks_first:
                (look,) = await self._read(self._sql["has_due"], self._now(), service, name, version)
                if not look["found"]:
                    continue
            values = (service, name, version, self._process(owner), limit - len(claimed))
            claimed += map(self._saga, await self._once(self._sql["claim"], self._now(), *values))
        return claimed

    async def write(self, write: Write, tx: StoreTransaction | None = None) -> Seen | None:
        if tx is None:
            return await self._in_one(lambda own: self.write(write, own))
        found = await tx.fetch(self._sql["own"], write.saga_id, self._process(write.owner), write.epoch)
        if not found:
            return None
        await self._put(tx, write.saga_id, write.steps)
        if write.has_progress:
            await tx.execute(self._sql["progress"], write.saga_id)
        if write.move is not None:
            move = write.move
            await tx.execute(
                self._sql["move"],
                *(self._now(), write.saga_id, move.state.value, move.cause, move.question, move.waiting_for),
                *(move.is_past_pivot, move.is_released, move.signals_seen, move.wake_seconds),
            )
        return Seen(is_cancel_requested=bool(found[0]["is_cancel_requested"]), signals=found[0]["signals"])

    async def _put(self, tx: StoreTransaction, saga_id: str, steps: Sequence[StepRow]) -> None:
        for one in steps:
            await tx.execute(
                self._sql["step"],
                *(self._now(), saga_id, one.phase.value, one.name, one.item, one.state.value, one.seq),
                *(one.attempts, one.charged, one.is_maybe_landed, one.epoch, one.arguments, one.output, one.error),
            )

    async def rescue(self, service: str, delays_seconds: Sequence[float]) -> Sequence[SagaRow]:
        if self.looks_first:
            (look,) = await self._read(self._sql["has_orphan"], service)
            if not look["found"]:
                return []
        rows = await self._once(self._sql["rescue"], self._now(), service, *delays_seconds)
        return [self._saga(row) for row in rows]

    async def signal(self, saga: SagaRow, signal: Signal, tx: StoreTransaction | None) -> bool:
        if tx is None:
            return await self._in_one(lambda own: self.signal(saga, signal, own))
        values = (saga.saga_id, signal.message_id, signal.type, signal.body)
        if not await tx.execute(self._sql["keep_signal"], self._now(), *values):
            return False
        await tx.execute(self._sql["wake_for_signal"], self._now(), saga.saga_id, saga.service, saga.name, saga.key)
        return True

    async def wake(self, service: str, waiting_for: str, limit: int) -> int:
        return len(await self._once(self._sql["wake"], self._now(), service, waiting_for, limit))

    async def journal(self, saga_id: str, tx: StoreTransaction | None = None) -> Journal | None:
        read = self._read if tx is None else tx.fetch
        rows = await read(self._sql["saga" if tx is None else "locked"], self._now(), saga_id)
        if not rows:
            return None
        row = self._read_row(rows[0])
        return Journal(
            now=row.pop("now"),
            saga=self._saga(row, is_read=True),
            steps=[self._step(one) for one in await read(self._sql["steps"], saga_id)],
            signals=[Signal(**one) for one in await read(self._sql["signals"], saga_id)],
        )

    async def decide(self, decision: Decision, tx: StoreTransaction) -> None:
        move = decision.move
        await self._put(tx, decision.saga_id, decision.steps)
        await tx.execute(
            self._sql["decide"],
            *(self._now(), decision.saga_id, move.state.value, move.cause, move.question, move.is_past_pivot),
            *(decision.is_cancel_requested, decision.crashes, move.wake_seconds or 0.0),
        )

    async def search(self, wanted: SagaFilter) -> Sequence[SagaRow]:
        state = None if wanted.state is None else wanted.state.value
        rows = await self._read(self._sql["search"], wanted.service, wanted.name, state, wanted.limit)
        return [self._saga(row) for row in rows]

    async def counts(self, service: str) -> Sequence[Count]:
        rows = map(self._read_row, await self._read(self._sql["counts"], self._now(), service))
        return [
            Count(
                name=row["name"],
                version=row["version"],
                state=SagaState(row["state"]),
                sagas=row["sagas"],
                oldest_at=row["oldest_at"],
                late_seconds=0.0 if row["due_at"] is None else max(0.0, (row["now"] - row["due_at"]).total_seconds()),
                strange=row["strange"],
            )
            for row in rows
        ]

    async def begun(self, service: str) -> Sequence[Begun]:
        return [Begun(**row) for row in await self._read(self._sql["begun"], service)]

    def _saga(self, row: Mapping[str, Any], *, is_read: bool = False) -> SagaRow:
        values = dict(row) if is_read else self._read_row(row)
        values["state"] = SagaState(values["state"])
        values["owner"] = None if values["owner"] is None else UUID(str(values["owner"]))
        for name in ("is_past_pivot", "is_cancel_requested"):
            values[name] = bool(values[name])
        return SagaRow(**values)

    def _step(self, row: Mapping[str, Any]) -> StepRow:
        values = self._read_row(row)
        values["phase"], values["state"] = Phase(values["phase"]), StepState(values["state"])
        values["is_maybe_landed"] = bool(values["is_maybe_landed"])
        return StepRow(**values)
