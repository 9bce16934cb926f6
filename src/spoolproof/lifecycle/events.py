"""What is told of a process: its start and end, its loops, its leases, and what it waits for."""

from __future__ import annotations

from spoolproof.telemetry.events import ERROR, WARNING, Event
from spoolproof.telemetry.metrics import gauge

BUILD_INFO = gauge("build_info", "Always 1: which release runs here, on which Python.", "version", "python")
LOOPS_STALLED = gauge("loops_stalled", "Loops whose turn has run longer than they allow.")
DATA_FREE = gauge("data_free_bytes", "What is free where the data directory is.")
PROCESSES = gauge("processes", "Processes of the store by the leases they want; told by one.", "role", "state")


class ServiceStarted(
    Event,
    name="service.started",
    line="name={service} release={release} store={store} broker={broker} roles={roles} handlers={handlers}",
):
    """What whoever reads a log wants to know first: what runs here, as what, and on what."""

    service: str
    release: str
    store: str
    broker: str
    roles: str
    handlers: str


class ServiceEnded(Event, name="service.ended", line="name={service} ending={ending}"):
    """The process is about to exit."""

    service: str
    ending: str


class FailpointsArmed(Event, name="failpoints.armed", level=WARNING, line="{armed}"):
    """This process fails on purpose: it is part of a test."""

    armed: str


class FailpointRaised(Event, name="failpoint.raised", level=ERROR, line="name={failpoint}"):
    """The process ends as a crash would, because a test told it to."""

    failpoint: str


class MigrationApplied(Event, name="migration.applied", line="step={step}"):
    """The schema of the store is one step further."""

    step: str


class StoreWaiting(Event, name="store.waiting", level=WARNING, line="error={error}: the start goes on when it answers"):
    """The store cannot be reached at a start."""

    error: str


class StoreReached(Event, name="store.reached", level=WARNING, line="seconds={seconds:.1f}: the start goes on"):
    """The store that a start waited for has answered."""

    seconds: float


class OutageBegan(
    Event,
    name="outage.began",
    level=WARNING,
    line="loop={loop} error={error}: loops that need it try again every second",
):
    """A loop met something that cannot be reached; others will."""

    loop: str
    error: str


class OutageLasts(
    Event, name="outage.lasts", level=WARNING, line="seconds={seconds:.0f} failed_turns={failed_turns} error={error}"
):
    """An outage goes on; told once a minute."""

    seconds: float
    failed_turns: int
    error: str


class OutageEnded(
    Event, name="outage.ended", level=WARNING, line="what={what} seconds={seconds:.1f} failed_turns={failed_turns}"
):
    """No loop meets it any more, and what was away answers."""

    what: str
    seconds: float
    failed_turns: int


class LoopFailed(
    Event,
    name="loop.failed",
    level=ERROR,
    line="name={loop} failures={failures} error={error}; its turn is tried again",
    counter="loop_failures_total",
    labels=("loop",),
    folds=("loop", "kind"),
):
    """A turn of a loop failed over something else than an outage."""

    loop: str
    kind: str
    failures: int
    error: str


class LoopRecovered(Event, name="loop.recovered", level=ERROR, line="name={loop} failures={failures}"):
    """A loop that failed has passed a turn."""

    loop: str
    failures: int


class LoopCancelled(
    Event, name="loop.cancelled", level=ERROR, line="name={loop}: by other code than the service's; it goes on"
):
    """Somebody else cancelled the task of a loop."""

    loop: str


class DrainIncomplete(Event, name="loop.drain_incomplete", level=WARNING, line="name={loop} error={error}"):
    """A loop could not finish what it had in hand; it is as if the process had crashed there."""

    loop: str
    error: str


class TaskFailed(Event, name="task.failed", level=ERROR, line="name={task}"):
    """A background task ended with an error nobody expected."""

    task: str


class TaskDoesNotEnd(Event, name="task.does_not_end", level=ERROR, line="name={task}"):
    """A task that was told to end goes on; the exit does not wait for it."""

    task: str


class ProcessExpired(
    Event,
    name="process.expired",
    level=WARNING,
    line="id={id}: no beat was answered for a whole lease; it goes on under a new id",
):
    """This process counted as dead to its peers."""

    id: str


class LeaseLost(
    Event,
    name="lease.lost",
    level=WARNING,
    line="kind={kind} lost={lost} kept={kept}",
    counter="lease_lost_total",
    labels=("kind",),
):
    """A renewal was answered without some of the leases it asked for."""

    kind: str
    lost: int
    kept: int


class LeaseAcquired(Event, name="lease.acquired", line="kind={kind} names={names}"):
    """This process took leases that were free."""

    kind: str
    names: str
