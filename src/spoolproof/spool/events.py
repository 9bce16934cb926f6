"""What is told of the spool."""

from __future__ import annotations

from spoolproof.telemetry.events import ERROR, WARNING, Event
from spoolproof.telemetry.metrics import gauge

ROWS = gauge("spool_rows", "Events of this process, and of those it adopted, that wait in the spool.")
BYTES = gauge("spool_bytes", "Bytes of what waits in the spool.")
OLDEST = gauge("spool_oldest_timestamp_seconds", "When the oldest event in the spool was written; absent when empty.")


class SpoolStarted(
    Event,
    name="spool.started",
    level=WARNING,
    line="path={path} error={error}: the store does not take events; they are kept on this machine until it does",
    counter="spool_started_total",
):
    """A first event went to the spool."""

    path: str
    error: str


class SpoolFilling(
    Event,
    name="spool.filling",
    level=WARNING,
    line="share={share:.0%} rows={rows}: at 100% publish raises SpoolFull; bring the store or the broker back",
):
    """One of the spool's limits is nearly reached."""

    share: float
    rows: int


class SpoolRefused(
    Event, name="spool.full", level=ERROR, line="error={error}", counter="spool_refused_total", folds=()
):
    """The spool took no more; its caller was told."""

    error: str


class SpoolLeft(
    Event,
    name="spool.left",
    level=ERROR,
    line="path={path} error={error}: a new file is used; what this one holds is looked at again in a while",
):
    """A spool file does not take what it is given."""

    path: str
    error: str


class SpoolDrained(Event, name="spool.drained", level=WARNING, line="path={path} seconds={seconds:.1f}"):
    """A file is empty: all it held is with the broker or in the store."""

    path: str
    seconds: float


class SpoolAdopted(
    Event,
    name="spool.adopted",
    level=WARNING,
    line="path={path} rows={rows}: its process has ended",
    counter="spool_adopted_total",
):
    """What a process left is taken over."""

    path: str
    rows: int


class SpoolSalvaged(
    Event,
    name="spool.salvaged",
    level=ERROR,
    line="path={path} rows={rows} dead_letters={dead_letters} unreadable={unreadable}: the file was damaged; what "
    "could be read goes on, the file itself is kept for you",
    counter="spool_salvaged_total",
):
    """A damaged file was read as far as it could be."""

    path: str
    rows: int
    dead_letters: int
    unreadable: int
