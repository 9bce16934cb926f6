"""Sagas and their journals: what every process must find again after any other has died.

A saga is owned by one process at a time. Its `epoch` rises with every change of owner and with every act of a person
and never falls; a write names owner and epoch, and does nothing when they are old: that is what makes a process that
was frozen past its lease harmless. A process whose row has expired owns nothing any more, and a rescue gives what it
held to the others.

A saga's id is derived from service, name and key, so that a start, a signal and a person mean the same row without
looking for it. A signal may come before the start: the saga is `expected` then.

Times are by the clock of the database, on SQLite by that of its machine; who waits says for how many seconds.

Never here: what a step does, or what follows from its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from spoolproof import limits
from spoolproof.ports.retention import Rule
from spoolproof.ports.transaction import StoreTransaction

STRANGE = "code"
"""What a saga waits for that has a step which its process does not know: a release that does."""
RETENTION = (Rule(table="saga", key=("saga_id",), since="finished_at", seconds=limits.SAGA_RETENTION_SECONDS),)


class SagaState(StrEnum):
    """Where a saga stands. `saga.transitions` has every move. in_review: a person is asked, see `SagaRow.question`."""

    EXPECTED = "expected"
    RUNNING = "running"
    COMPENSATING = "compensating"
    SETTLING = "settling"
    IN_REVIEW = "in_review"
    COMPLETED = "completed"
    COMPENSATED = "compensated"
    ABANDONED = "abandoned"


class StepState(StrEnum):
    """How the last attempt ended. succeeded, refused and skipped never change."""

    STARTED = "started"
    SUCCEEDED = "succeeded"
    REFUSED = "refused"
    UNAVAILABLE = "unavailable"
    UNKNOWN = "unknown"
    SKIPPED = "skipped"


FINAL = frozenset({StepState.SUCCEEDED, StepState.REFUSED, StepState.SKIPPED})


class Phase(StrEnum):
    """do: a step; compensate: its undo; flow: input, result, and what the flow waited for."""

    DO = "do"
    COMPENSATE = "compensate"
    FLOW = "flow"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRow:
    """One line of a journal. item: which of several of that name: `1`, `2` … or the key it was given; of an undo that
    had to be repeated `1/2`.

    seq: its place in the flow. charged: attempts that count. is_maybe_landed: an attempt may have had its effect; it
    stays so. epoch: of the write. arguments: a digest. started_at, finished_at: set by the store.
    """

    phase: Phase
    name: str
    item: str
    state: StepState
    seq: int
    attempts: int = 0
    charged: int = 0
    is_maybe_landed: bool = False
    epoch: int = 0
    arguments: str = ""
    output: bytes | None = None
    error: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def place(self) -> tuple[Phase, str, str]:
        """What tells it from the others of its saga."""
        return self.phase, self.name, self.item


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaRow:
    """One saga. cause: why it is undone. wake_at: when it is due; None while it is owned, waits for something that has
    no time, or is over. question: JSON, what a person is asked. crashes: processes that died of it since it last got
    on. signals: how many have come."""

    saga_id: str
    service: str
    name: str
    version: int
    key: str
    state: SagaState = SagaState.RUNNING
    cause: str | None = None
    epoch: int = 0
    owner: UUID | None = None
    wake_at: datetime | None = None
    waiting_for: str | None = None
    deadline_at: datetime | None = None
    is_past_pivot: bool = False
    is_cancel_requested: bool = False
    signals: int = 0
    crashes: int = 0
    question: str | None = None
    created_at: datetime | None = None
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """Something a flow may wait for. A second one with the same message id is none."""

    message_id: str
    type: str
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """All that is durable of a saga, and the store's clock when it was read. signals: in the order they came."""

    now: datetime
    saga: SagaRow
    steps: Sequence[StepRow] = ()
    signals: Sequence[Signal] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """What becomes of the saga's own row. is_released: nobody owns it any more; it is due in `wake_seconds`, or with
    None when something happens. A saga that got more signals than `signals_seen`, or that is to be cancelled, is due at
    once."""

    state: SagaState
    is_released: bool = False
    wake_seconds: float | None = None
    waiting_for: str | None = None
    cause: str | None = None
    question: str | None = None
    is_past_pivot: bool = False
    signals_seen: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One commit of a run. Sent again unchanged it changes nothing more. has_progress: forget what crashed before."""

    saga_id: str
    owner: UUID
    epoch: int
    steps: Sequence[StepRow] = ()
    move: Move | None = None
    has_progress: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a run learns from a write that was accepted."""

    is_cancel_requested: bool
    signals: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """How many sagas of a definition are in a state. oldest_at: when the first of them was started. late_seconds: how
    long the first that is due and that nobody owns has been. strange: how many wait for other code."""

    name: str
    version: int
    state: SagaState
    sagas: int
    oldest_at: datetime | None = None
    late_seconds: float = 0.0
    strange: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """How many sagas of a definition that are not over have a step in their journal."""

    name: str
    version: int
    step: str
    sagas: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaFilter:
    """Which sagas; None: whichever."""

    service: str | None = None
    name: str | None = None
    state: SagaState | None = None
    limit: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a person, or whoever acts for one, changes: the saga as it shall be, with the steps that change. It is
    released, and due at once unless `move` says otherwise."""

    saga_id: str
    move: Move
    steps: Sequence[StepRow] = field(default_factory=tuple)
    is_cancel_requested: bool | None = None
    crashes: int | None = None


class Sagas(Protocol):
    """The tables of sagas. All raise StoreUnavailable; with None for tx everything is committed on return."""

    async def start(
        self, saga: SagaRow, given: StepRow, deadline_seconds: float | None, tx: StoreTransaction | None
    ) -> bool:
        """Write a saga that is due at once, with the row of its input. False, and nothing written, if there is one."""

    async def claim(self, service: str, runs: Sequence[tuple[str, int]], owner: UUID, limit: int) -> Sequence[SagaRow]:
        """Take at most `limit` sagas that are due, of these names and versions, for a process whose row has not
        expired; each with an epoch never used before."""

    async def write(self, write: Write, tx: StoreTransaction | None = None) -> Seen | None:
        """Write rows of a journal, and perhaps move the saga. None, and nothing written, if owner or epoch are old."""

    async def guard(self, tx: StoreTransaction, seconds: float) -> None:
        """Have the database end this transaction when its process stands still in it for so long, or it takes that
        long as a whole, where others would wait for its rows."""

    async def rescue(self, service: str, delays_seconds: Sequence[float]) -> Sequence[SagaRow]:
        """Take sagas from processes whose row has expired or is gone; each is due after the delay for as many crashes
        as it has had. At most 1000 at a time."""

    async def signal(self, saga: SagaRow, signal: Signal, tx: StoreTransaction | None) -> bool:
        """Keep a signal, and wake the saga if it waits. False for one that came before."""

    async def wake(self, service: str, waiting_for: str, limit: int) -> int:
        """Make sagas due that wait for something; returns how many."""

    async def journal(self, saga_id: str, tx: StoreTransaction | None = None) -> Journal | None:
        """Return everything of one saga; with a transaction its row is locked to the end of that."""

    async def decide(self, decision: Decision, tx: StoreTransaction) -> None:
        """Write what was decided about a saga whose journal was read in this transaction. Its epoch rises, so whoever
        owned it is fenced out."""

    async def search(self, wanted: SagaFilter) -> Sequence[SagaRow]:
        """Return sagas, newest first."""

    async def counts(self, service: str) -> Sequence[Count]:
        """Return how many sagas that are not over there are."""

    async def begun(self, service: str) -> Sequence[Begun]:
        """Return which steps are in the journals of sagas that are not over."""
