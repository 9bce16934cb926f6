"""The journal of one saga in the process that owns it: what is durable, and what goes with the next write.

The result of a step travels with the intent of the next one, so that a step costs one commit. A crash in between
calls a keyed step again under its key, which is what the key is for. A write without an answer is sent again
unchanged: it changes nothing twice. Writes go one after another; the older of two must not arrive last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from spoolproof import limits
from spoolproof.clock import Clock
from spoolproof.errors import StoreUnavailable
from spoolproof.failpoints import failpoint
from spoolproof.ports.sagas import Journal, Move, Phase, SagaRow, Sagas, SagaState, Seen, StepRow, StepState, Write
from spoolproof.ports.store import Store
from spoolproof.ports.transaction import StoreTransaction
from spoolproof.saga.halt import Fenced
from spoolproof.saga.question import Question
from spoolproof.saga.transitions import check_move
from spoolproof.saga.watch import Watch

Place = tuple[Phase, str, str]
Beside = Callable[[StoreTransaction, Write], Awaitable[Write]]
"""Writes something else in the transaction of a write, and returns the write with what that has added."""
_AGAIN_SECONDS = 1.0
_PROGRESS = frozenset({StepState.SUCCEEDED, StepState.REFUSED})


class Record:
    """All rows by place. pivot: the names of the step from which on nothing is undone. pending: not written yet. asks:
    approvals whose items are to be opened when the saga comes to rest."""

    def __init__(
        self,
        store: Store,
        sagas: Sagas,
        row: SagaRow,
        journal: Journal,
        *,
        pivot: frozenset[str],
        clock: Clock,
        watch: Watch,
    ) -> None:
        self._store = store
        self._sagas = sagas
        self._watch = watch
        self._clock = clock
        self._pivot = pivot
        self._owner, self._epoch = row.owner, row.epoch
        self.saga = journal.saga
        self.signals = journal.signals
        self.rows: dict[Place, StepRow] = {step.place: step for step in journal.steps}
        self.pending: dict[Place, StepRow] = {}
        self.asks: list[Question] = []
        self.is_cancelled = journal.saga.is_cancel_requested
        self._writing = asyncio.Lock()
        self._read_at, self._read_now = clock.monotonic(), journal.now

    @property
    def now(self) -> datetime:
        """The store's clock, as far as it is known."""
        return self._read_now + timedelta(seconds=self._clock.monotonic() - self._read_at)

    def age_seconds(self, at: datetime | None) -> float:
        """Return how long ago something was."""
        return 0.0 if at is None else (self.now - at).total_seconds()

    @property
    def is_past_pivot(self) -> bool:
        """Whether the pivot landed, or may have."""
        return self.saga.is_past_pivot or any(map(self._passes_pivot, self.rows.values()))

    def _passes_pivot(self, row: StepRow) -> bool:
        is_pivot = row.phase is Phase.DO and row.name in self._pivot
        return is_pivot and (row.state is StepState.SUCCEEDED or row.is_maybe_landed)

    def put(self, row: StepRow) -> StepRow:
        """Note a row that goes with the next write."""
        before = self.rows.get(row.place)
        started_at = self.now if before is None or before.started_at is None else before.started_at
        finished_at = None if row.state is StepState.STARTED else self.now
        noted = replace(row, epoch=self._epoch, started_at=started_at, finished_at=finished_at)
        self.rows[row.place] = self.pending[row.place] = noted
        return noted

    def adopt(self, older: Record) -> None:
        """Take over what an older record of the same ownership has not written."""
        for place, row in older.pending.items():
            self.rows[place] = self.pending[place] = row

    async def flush(self, move: Move | None = None, beside: Beside | None = None) -> None:
        """Write what is pending, and perhaps move the saga, with something beside it in one commit. Waits out an
        outage. Raises Fenced."""
        if move is not None:
            check_move(self.saga.state, move.state)
        async with self._writing:
            rows = list(self.pending.values())
            if not rows and move is None:
                return
            write = self._write(rows, move)
            while True:
                try:
                    failpoint("saga.before_write")
                    seen = await (self._sagas.write(write) if beside is None else self._write_beside(write, beside))
                    break
                except Exception as error:
                    if not isinstance(error, StoreUnavailable) and not self._store.is_conflict(error):
                        raise
                    await self._clock.sleep(_AGAIN_SECONDS)
            if seen is None:
                raise Fenced
            failpoint("saga.after_write")
            self._written(rows, write, is_cancelled=seen.is_cancel_requested)

    async def _write_beside(self, write: Write, beside: Beside) -> Seen:
        # what is beside it first: whoever decides locks the review item, then the saga
        async with self._store.transaction() as tx:
            await self._sagas.guard(tx, limits.SAGA_TX_IDLE_SECONDS)
            seen = await self._sagas.write(await beside(tx, write), tx)
            if seen is None:
                raise Fenced
            return seen

    async def guard(self, tx: StoreTransaction, timeout_seconds: float) -> None:
        """Have a transaction ended when this process stands still in it."""
        await self._sagas.guard(tx, max(limits.SAGA_TX_IDLE_SECONDS, 2 * timeout_seconds))

    async def write_in(self, tx: StoreTransaction, row: StepRow, opened: Iterable[StepRow] = ()) -> Write:
        """Write a row and what is pending in the transaction of its effect; opened: of items opened there. Raises
        Fenced."""
        write = self._write([*self.pending.values(), *opened, replace(row, epoch=self._epoch)], None)
        if await self._sagas.write(write, tx) is None:
            raise Fenced
        return write

    def committed(self, write: Write) -> None:
        """Note that the transaction of `write_in` has committed."""
        *rows, last = write.steps
        self.rows.update((row.place, row) for row in rows if row.place not in self.rows)
        self._written(rows, write, is_cancelled=False)
        self.put(last)
        self.pending.pop(last.place)

    def _write(self, rows: Iterable[StepRow], move: Move | None) -> Write:
        rows = list(rows)
        if move is None and not self.saga.is_past_pivot and any(map(self._passes_pivot, rows)):
            move = Move(state=self.saga.state, is_past_pivot=True)
        if move is not None:
            move = replace(move, is_past_pivot=self.is_past_pivot or move.is_past_pivot)
        if self._owner is None:
            raise Fenced
        return Write(
            saga_id=self.saga.saga_id,
            owner=self._owner,
            epoch=self._epoch,
            steps=rows,
            move=move,
            has_progress=self.saga.crashes > 0 and any(row.state in _PROGRESS for row in rows),
        )

    def _written(self, rows: Iterable[StepRow], write: Write, *, is_cancelled: bool) -> None:
        for row in rows:
            if self.pending.get(row.place) is row:
                del self.pending[row.place]
        self.is_cancelled = self.is_cancelled or is_cancelled
        if write.has_progress:
            self.saga = replace(self.saga, crashes=0)
        if write.move is not None:
            move = write.move
            self.saga = replace(self.saga, state=move.state, is_past_pivot=move.is_past_pivot)
            if self.saga.cause is None:
                self.saga = replace(self.saga, cause=move.cause)
        self._watch.told(self.saga.saga_id, has_moved=write.move is not None)

    def move_to(self, state: SagaState, **more: object) -> Move:
        """Return a move that knows which signals were seen."""
        return Move(state=state, signals_seen=self.saga.signals, **more)  # type: ignore[arg-type]
