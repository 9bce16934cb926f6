"""The memory store's sagas."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from spoolproof.ports.sagas import (
    FINAL,
    STRANGE,
    Begun,
    Count,
    Decision,
    Journal,
    Move,
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
from spoolproof.stores.memory.leases import PROCESSES
from spoolproof.stores.memory.store import MemoryStore
from spoolproof.stores.memory.transaction import MemoryTransaction, own

SAGAS, STEPS, SIGNALS = "saga", "saga_step", "saga_signal"
_OVER = (SagaState.COMPLETED, SagaState.COMPENSATED, SagaState.ABANDONED)
_MOVING = (SagaState.RUNNING, SagaState.COMPENSATING, SagaState.SETTLING)
_RESCUED_MAX = 1000


class MemorySagas:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    @asynccontextmanager
    async def _own(self, tx: StoreTransaction | None) -> AsyncIterator[MemoryTransaction]:
        if tx is not None:
            yield own(self._store, tx)
        else:
            async with self._store.transaction() as mine:
                yield mine

    @property
    def _now(self) -> datetime:
        return self._store.clock.now()

    def _in(self, seconds: float | None) -> datetime | None:
        return None if seconds is None else self._now + timedelta(seconds=seconds)

    async def start(
        self, saga: SagaRow, given: StepRow, deadline_seconds: float | None, tx: StoreTransaction | None
    ) -> bool:
        async with self._own(tx) as mine:
            known: SagaRow | None = mine.table(SAGAS).get(saga.saga_id)
            if known is not None and known.state is not SagaState.EXPECTED:
                return False
            mine.table(SAGAS)[saga.saga_id] = replace(
                saga,
                state=SagaState.RUNNING,
                signals=0 if known is None else known.signals,
                wake_at=self._now,
                deadline_at=self._in(deadline_seconds),
                created_at=self._now,
            )
            self._put(mine, saga.saga_id, [given])
            return True

    async def claim(self, service: str, runs: Sequence[tuple[str, int]], owner: UUID, limit: int) -> Sequence[SagaRow]:
        known = self._store.table(SAGAS).values()
        if not any(self._is_due(row, service, runs) for row in known):
            return []
        async with self._own(None) as tx:
            if not self._lives(tx, owner):
                return []
            due = [row for row in tx.table(SAGAS).values() if self._is_due(row, service, runs)]
            due.sort(key=lambda row: row.wake_at)
            claimed = [replace(row, owner=owner, epoch=row.epoch + 1, waiting_for=None) for row in due[:limit]]
            tx.table(SAGAS).update((row.saga_id, row) for row in claimed)
            return claimed

    def _is_due(self, row: SagaRow, service: str, runs: Sequence[tuple[str, int]]) -> bool:
        is_due = row.owner is None and row.wake_at is not None and row.wake_at <= self._now
        return is_due and row.service == service and (row.name, row.version) in runs

    def _lives(self, tx: MemoryTransaction, process: UUID | None) -> bool:
        beat = tx.table(PROCESSES).get(process)
        return beat is not None and beat.expires_at > self._now

    async def guard(self, tx: StoreTransaction, seconds: float) -> None:
        return None

    async def write(self, write: Write, tx: StoreTransaction | None = None) -> Seen | None:
        async with self._own(tx) as mine:
            row: SagaRow | None = mine.table(SAGAS).get(write.saga_id)
            if row is None or (row.owner, row.epoch) != (write.owner, write.epoch):
                return None
            self._put(mine, write.saga_id, write.steps)
            seen = Seen(is_cancel_requested=row.is_cancel_requested, signals=row.signals)
            if write.has_progress:
                row = replace(row, crashes=0)
            if write.move is not None:
                row = self._moved(row, write.move)
            mine.table(SAGAS)[write.saga_id] = row
            return seen

    def _moved(self, row: SagaRow, move: Move) -> SagaRow:
        is_called = row.signals > move.signals_seen or (row.is_cancel_requested and move.state is SagaState.RUNNING)
        wake_at = self._now if is_called else self._in(move.wake_seconds)
        return replace(
            row,
            state=move.state,
            cause=row.cause if row.cause is not None else move.cause,
            question=move.question,
            waiting_for=move.waiting_for,
            is_past_pivot=row.is_past_pivot or move.is_past_pivot,
            owner=None if move.is_released else row.owner,
            wake_at=None if move.state in (*_OVER, SagaState.IN_REVIEW) else wake_at,
            finished_at=self._now if move.state in _OVER else None,
        )

    def _put(self, tx: MemoryTransaction, saga_id: str, steps: Iterable[StepRow]) -> None:
        kept: dict[tuple[Phase, str, str], StepRow] = dict(tx.table(STEPS).get(saga_id, {}))
        for one in steps:
            before = kept.get(one.place)
            if before is not None and before.state in FINAL:
                continue
            is_anew = before is None or (one.attempts == 0 and one.phase is not Phase.FLOW)
            kept[one.place] = replace(
                one,
                is_maybe_landed=one.is_maybe_landed or (before is not None and before.is_maybe_landed),
                seq=one.seq if before is None else before.seq,
                arguments=one.arguments if before is None else before.arguments,
                started_at=self._now if before is None or is_anew else before.started_at,
                finished_at=None if one.state is StepState.STARTED else self._now,
            )
        tx.table(STEPS)[saga_id] = kept

    async def rescue(self, service: str, delays_seconds: Sequence[float]) -> Sequence[SagaRow]:
        rescued: list[SagaRow] = []
        if not any(row.owner is not None for row in self._store.table(SAGAS).values()):
            return rescued
        async with self._own(None) as tx:
            for row in list(tx.table(SAGAS).values()):
                if row.owner is None or row.service != service or self._lives(tx, row.owner):
                    continue
                delay = delays_seconds[min(row.crashes, len(delays_seconds) - 1)]
                freed = replace(row, owner=None, epoch=row.epoch + 1, crashes=row.crashes + 1, wake_at=self._in(delay))
                tx.table(SAGAS)[row.saga_id] = freed
                rescued.append(freed)
                if len(rescued) == _RESCUED_MAX:
                    break
        return rescued

    async def signal(self, saga: SagaRow, signal: Signal, tx: StoreTransaction | None) -> bool:
        async with self._own(tx) as mine:
            kept: tuple[Signal, ...] = mine.table(SIGNALS).get(saga.saga_id, ())
            if any(one.message_id == signal.message_id for one in kept):
                return False
            mine.table(SIGNALS)[saga.saga_id] = (*kept, signal)
            row: SagaRow | None = mine.table(SAGAS).get(saga.saga_id)
            if row is None:
                row = replace(saga, version=0, state=SagaState.EXPECTED, created_at=self._now)
            is_waiting = row.owner is None and row.state is SagaState.RUNNING
            wake_at = self._now if is_waiting else row.wake_at
            mine.table(SAGAS)[saga.saga_id] = replace(row, signals=row.signals + 1, wake_at=wake_at)
            return True

    async def wake(self, service: str, waiting_for: str, limit: int) -> int:
        async with self._own(None) as tx:
            sleepers = [
                row
                for row in tx.table(SAGAS).values()
                if (row.service, row.waiting_for, row.owner) == (service, waiting_for, None)
                and row.state in _MOVING
                and row.wake_at is not None
                and row.wake_at > self._now
            ][:limit]
            tx.table(SAGAS).update((row.saga_id, replace(row, wake_at=self._now)) for row in sleepers)
            return len(sleepers)

    async def journal(self, saga_id: str, tx: StoreTransaction | None = None) -> Journal | None:
        table = self._store.table if tx is None else own(self._store, tx).table
        saga = table(SAGAS).get(saga_id)
        if saga is None:
            return None
        steps = sorted(table(STEPS).get(saga_id, {}).values(), key=lambda one: (one.seq, one.place))
        return Journal(now=self._now, saga=saga, steps=steps, signals=table(SIGNALS).get(saga_id, ()))

    async def decide(self, decision: Decision, tx: StoreTransaction) -> None:
        mine, move = own(self._store, tx), decision.move
        self._put(mine, decision.saga_id, decision.steps)
        row: SagaRow = mine.table(SAGAS)[decision.saga_id]
        if decision.is_cancel_requested is not None:
            row = replace(row, is_cancel_requested=decision.is_cancel_requested)
        if decision.crashes is not None:
            row = replace(row, crashes=decision.crashes)
        due = replace(move, is_released=True, waiting_for=None, wake_seconds=move.wake_seconds or 0.0)
        mine.table(SAGAS)[decision.saga_id] = replace(self._moved(row, due), epoch=row.epoch + 1)

    async def search(self, wanted: SagaFilter) -> Sequence[SagaRow]:
        rows: list[SagaRow] = [
            row
            for row in self._store.table(SAGAS).values()
            if wanted.service in (None, row.service)
            and wanted.name in (None, row.name)
            and wanted.state in (None, row.state)
        ]
        rows.sort(key=lambda row: row.saga_id)
        return sorted(rows, key=lambda row: row.created_at or self._now, reverse=True)[: wanted.limit]

    async def counts(self, service: str) -> Sequence[Count]:
        groups: dict[tuple[str, int, SagaState], list[SagaRow]] = {}
        for row in self._live(service):
            groups.setdefault((row.name, row.version, row.state), []).append(row)
        return [
            Count(
                name=name,
                version=version,
                state=state,
                sagas=len(rows),
                oldest_at=min(row.created_at or self._now for row in rows),
                late_seconds=max(0.0, *((self._now - _due_at(row, self._now)).total_seconds() for row in rows)),
                strange=sum(row.waiting_for == STRANGE for row in rows),
            )
            for (name, version, state), rows in groups.items()
        ]

    def _live(self, service: str) -> Iterable[SagaRow]:
        rows: Iterable[SagaRow] = self._store.table(SAGAS).values()
        return [row for row in rows if row.finished_at is None and row.service == service]

    async def begun(self, service: str) -> Sequence[Begun]:
        steps = self._store.table(STEPS)
        found = Counter(
            (row.name, row.version, name)
            for row in self._live(service)
            for name in {one.name for one in steps.get(row.saga_id, {}).values() if one.phase is Phase.DO}
        )
        return [Begun(name=name, version=of, step=step, sagas=n) for (name, of, step), n in sorted(found.items())]


def _due_at(row: SagaRow, now: datetime) -> datetime:
    return now if row.owner is not None or row.wake_at is None else row.wake_at
