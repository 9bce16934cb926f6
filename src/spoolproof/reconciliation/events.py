"""What is told of reconciliation."""

from __future__ import annotations

from spoolproof.telemetry.events import ERROR, WARNING, Event
from spoolproof.telemetry.metrics import counter, gauge

RESULTS = counter(
    "reconciliation_results_total",
    "Keys that were compared, by what became of each: equal, repaired, reviewed, or why it was skipped.",
    *("reconciler", "result"),
)
LAST = gauge(
    "reconciliation_last_success_timestamp_seconds", "When a run was last finished, in Unix time.", "reconciler"
)
MARKS = gauge("reconciliation_marks", "Keys that wait until their check says settled.", "reconciler")


class RunFinished(
    Event,
    name="reconciliation.finished",
    line="reconciler={reconciler} id={id} seen={seen} equal={equal} repaired={repaired} reviewed={reviewed} "
    "skipped={skipped}",
    counter="reconciliation_runs_total",
    labels=("reconciler",),
):
    """A run has compared everything and dealt with what differed."""

    reconciler: str
    id: str
    seen: int
    equal: int
    repaired: int
    reviewed: int
    skipped: int


class RunBraked(
    Event,
    name="reconciliation.braked",
    level=ERROR,
    line="reconciler={reconciler} id={id} differences={differences} seen={seen}: too many; nothing was repaired; "
    "spoolproof reconcile show {id}",
    counter="reconciliation_braked_total",
    labels=("reconciler",),
):
    """More differs than a run may change: one of the two sides may be talking nonsense."""

    reconciler: str
    id: str
    differences: int
    seen: int


class Repaired(
    Event,
    name="reconciliation.repaired",
    line="reconciler={reconciler} key={key} ours={ours} theirs={theirs} to={to}",
    folds=("reconciler",),
):
    """A state of ours was put right."""

    reconciler: str
    key: str
    ours: str
    theirs: str
    to: str


class RepairFailed(
    Event,
    name="reconciliation.repair_failed",
    level=WARNING,
    line="reconciler={reconciler} key={key} error={error}: the next run sees it again",
    folds=("reconciler",),
):
    """A repair raised; it is undone."""

    reconciler: str
    key: str
    error: str


class RunFailed(
    Event,
    name="reconciliation.run_failed",
    level=ERROR,
    line="reconciler={reconciler} id={id} error={error}: it goes on from there in a minute",
    folds=("reconciler",),
):
    """A reader of a run raised, or gave what cannot be compared."""

    reconciler: str
    id: str
    error: str


class CheckFailed(
    Event,
    name="reconciliation.check_failed",
    level=WARNING,
    line="reconciler={reconciler} key={key} error={error}: again in {seconds:.0f} s",
    folds=("reconciler",),
):
    """The check of a marked key raised."""

    reconciler: str
    key: str
    error: str
    seconds: float
