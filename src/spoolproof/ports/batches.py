"""Batches: many items of one job, each with a verdict of its own.

An item's row is written once, with its batch, and from then on only moved: `succeeded` and `invalid` are for good, and
every other state may still become one. A batch is over when none of its items is `pending`; who ends it is decided by
one guarded statement, however many processes see the last item end.

Must never happen: a number of items that is not the batch's total.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

import msgspec

from spoolproof import limits
from spoolproof.ports.retention import Rule
from spoolproof.ports.transaction import StoreTransaction

RETENTION = (
    Rule(table="batch", key=("id",), since="finished_at", seconds=limits.BATCH_RETENTION_SECONDS),
    # later, so that no report ever lacks some of its items
    Rule(table="batch_item", key=("batch_id", "n"), since="closed_at", seconds=limits.BATCH_RETENTION_SECONDS + 86_400),
)


class BatchState(StrEnum):
    """Where the whole stands."""

    RUNNING = "running"
    FINISHED = "finished"
    CANCELLED = "cancelled"


class ItemState(StrEnum):
    """What became of one item. pending: it has not run, waits for its next attempt, or was not reached."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    INVALID = "invalid"
    UNKNOWN = "unknown"
    PENDING = "pending"


FINAL = (ItemState.SUCCEEDED, ItemState.INVALID)
"""What nothing changes any more."""
Counts = Mapping[ItemState, int]
"""How many items are in each of the five states; 0 for those in none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One batch. total: of its items. started_at: when it was submitted, or last sent again. finished_at: when it was
    over or cancelled, by the store's clock."""

    id: str
    service: str
    job: str
    total: int
    started_at: datetime
    state: BatchState = BatchState.RUNNING
    finished_at: datetime | None = None


class Item(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of one item. n: its place, from 0. id: among those of its batch. attempts: that were begun.

    seconds: how long the last one took. value: the result, as JSON has it; value_omitted: why there is none. field: of
    the item; the error says what is wrong with it. review_id: of the item of review that asks what happened. reason:
    why it is pending; next_at: when it runs again.
    """

    n: int
    id: str
    state: ItemState
    attempts: int = 0
    seconds: float = 0.0
    value: Any = None
    value_omitted: str = ""
    error_class: str = ""
    error: str = ""
    field: str = ""
    review_id: str = ""
    reason: str = ""
    next_at: datetime | None = None

    @property
    def retried(self) -> bool:
        """Whether it took more than one attempt."""
        return self.attempts > 1


class Batches(Protocol):
    """The tables of batches and their items. All raise StoreUnavailable."""

    async def add(self, tx: StoreTransaction, batch: Batch, items: Sequence[tuple[Item, str]]) -> bool:
        """Write a batch and its items, each with its payload as JSON text; False, and nothing, if its id is known."""

    async def get(self, id: str) -> tuple[Batch, Counts] | None:
        """Return a batch and how many items are in each state, of one moment; or None."""

    async def search(
        self, *, service: str | None = None, job: str | None = None, state: BatchState | None = None, limit: int = 100
    ) -> Sequence[Batch]:
        """Return those that match, the newest first; perhaps none."""

    async def items(
        self, id: str, states: Collection[ItemState], *, after: int = -1, limit: int = 1000
    ) -> Sequence[tuple[Item, str]]:
        """Return items in these states behind a place, in order, with their payloads."""

    async def standing(self, id: str, n: int) -> tuple[BatchState, ItemState] | None:
        """Return where a batch and one of its items stand; None if they are gone."""

    async def put(self, tx: StoreTransaction, id: str, item: Item, *, before: Collection[ItemState]) -> bool:
        """Write what became of an item that is in one of these states; False, and nothing, from another."""

    async def over(self, service: str, limit: int) -> Sequence[str]:
        """Return batches of a service that run and have no pending item."""

    async def end(self, tx: StoreTransaction, id: str, *, cancel: bool = False) -> Batch | None:
        """End a batch that runs: as finished if none of its items is pending, else nothing; cancel: in any case.

        None, and nothing, if it does not run, or somebody else has ended it meanwhile.
        """

    async def reopen(self, tx: StoreTransaction, id: str, now: datetime, states: Collection[ItemState]) -> None:
        """Let a batch run, with the items in these states pending again."""

    async def counts(self, service: str) -> Mapping[tuple[str, BatchState], int]:
        """Return how many batches of a service there are, by job and state."""
