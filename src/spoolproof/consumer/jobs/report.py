"""What became of a batch, counted: every item in exactly one of five states, or there is no report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from spoolproof.errors import InvariantViolated, SpoolproofError
from spoolproof.ports.batches import Batch, BatchState, Counts, Item, ItemState


class BatchFailed(SpoolproofError):
    """Not every item of a batch succeeded. report: what became of each."""

    def __init__(self, report: BatchReport) -> None:
        self.report = report
        told = ", ".join(f"{count} {state}" for state, count in report.counts.items() if count)
        super().__init__(f"batch {report.batch_id} of job {report.job}: {told}")


@dataclass(frozen=True, slots=True)
class BatchReceipt:
    """A batch that is stored, or will be when the caller's transaction commits. is_new: it was not before."""

    batch_id: str
    total: int
    invalid: int
    is_new: bool = True


@dataclass(frozen=True, slots=True)
class BatchReport:
    """One batch. counts: of all items; items: those of this page, in order. next: where the page behind it begins, as
    `after=`; None on the last. Raises InvariantViolated unless the counts sum to the total."""

    batch: Batch
    counts: Counts
    items: Sequence[Item]
    next: int | None = None

    def __post_init__(self) -> None:
        if sum(self.counts.values()) != self.batch.total:
            raise InvariantViolated(f"batch {self.batch.id} of {self.batch.total} items counts {dict(self.counts)}")

    @property
    def batch_id(self) -> str:
        """Its id."""
        return self.batch.id

    @property
    def job(self) -> str:
        """The name of its job."""
        return self.batch.job

    @property
    def state(self) -> BatchState:
        """running, finished or cancelled."""
        return self.batch.state

    @property
    def total(self) -> int:
        """How many items it has."""
        return self.batch.total

    @property
    def succeeded(self) -> list[Item]:
        """Those of this page that are done."""
        return self._in(ItemState.SUCCEEDED)

    @property
    def failed(self) -> list[Item]:
        """Those of this page that failed for good; a dead letter each, if the batch was submitted."""
        return self._in(ItemState.FAILED)

    @property
    def invalid(self) -> list[Item]:
        """Those of this page that never ran."""
        return self._in(ItemState.INVALID)

    @property
    def unknown(self) -> list[Item]:
        """Those of this page whose effect may have happened."""
        return self._in(ItemState.UNKNOWN)

    @property
    def pending(self) -> list[Item]:
        """Those of this page that are still to run, or were not reached."""
        return self._in(ItemState.PENDING)

    @property
    def retried(self) -> list[Item]:
        """Those of this page that took more than one attempt, whatever became of them."""
        return [item for item in self.items if item.retried]

    @property
    def ok(self) -> bool:
        """Whether every item succeeded."""
        return self.counts[ItemState.SUCCEEDED] == self.total

    @property
    def status_code(self) -> int:
        """The HTTP status that says how it went: 200 all succeeded, 202 it runs, 207 some did, 422 all are invalid, 503
        none ran."""
        if self.ok:
            return 200
        if self.counts[ItemState.INVALID] == self.total:
            return 422
        if self.state is BatchState.RUNNING:
            return 202
        has_run = self.total - self.counts[ItemState.INVALID] - self.counts[ItemState.PENDING]
        return 207 if has_run else 503

    def raise_if_failed(self) -> None:
        """Raise BatchFailed unless every item succeeded."""
        if not self.ok:
            raise BatchFailed(self)

    def document(self) -> dict[str, Any]:
        """Return it for JSON; of the items what is not as it always is."""
        return {**summary(self.batch, self.counts), "items": msgspec.to_builtins(self.items), "next": self.next}

    def to_json(self) -> bytes:
        """Return it as JSON. Raises TypeError for a value no JSON can hold."""
        return msgspec.json.encode(self.document())

    def _in(self, state: ItemState) -> list[Item]:
        return [item for item in self.items if item.state is state]


def summary(batch: Batch, counts: Counts) -> dict[str, Any]:
    """Return a batch and its numbers for JSON."""
    return {
        "id": batch.id,
        "service": batch.service,
        "job": batch.job,
        "state": batch.state.value,
        "started_at": batch.started_at,
        "finished_at": batch.finished_at,
        "total": batch.total,
        **{state.value: counts[state] for state in ItemState},
    }


def counted(items: Sequence[Item]) -> Counts:
    """Return how many are in each state."""
    return {state: sum(item.state is state for item in items) for state in ItemState}
