"""What a feature gives the runtime, and all the runtime knows of it.

A part is made when the service starts, in processes that have its role. The runtime asks it once for its leases,
queues and loops, lets it `restore` while nothing else runs, starts the loops by phase, and on drain calls
`begin_drain` of every part before it drains the loops in reverse. `report` and `measures` are asked again and again
and never do I/O.

Must never be here: the name of a feature.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from spoolproof.lifecycle.loop import Loop
from spoolproof.lifecycle.membership import Holding
from spoolproof.ports.broker import QueueSpec
from spoolproof.ports.health import Dependency
from spoolproof.telemetry.metrics import Measure


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a part knows of itself. is_fenced: it may not act under its leases. is_gate_shut: the store failed it and
    it waits. keeps_publishes: what is published is kept durably also while the store is away. leads_service,
    leads_database: of all processes of the service, or of the store, it is the one that tells what is counted for all.
    without_room: queues that wait for the outbox to have room. unsubscribed: queues the broker does not deliver from.
    issues: sentences for people. dependencies: what it leans on besides store and broker. level: how much function it
    lets the process offer, 0 all of it. fullness: of the spool, 0 to 1."""

    is_fenced: bool = False
    is_gate_shut: bool = False
    keeps_publishes: bool = False
    leads_service: bool = False
    leads_database: bool = False
    without_room: tuple[str, ...] = ()
    unsubscribed: tuple[str, ...] = ()
    issues: tuple[str, ...] = ()
    dependencies: tuple[Dependency, ...] = ()
    level: int = 0
    fullness: float = 0.0


class Part:
    """A feature in one process; a subclass says what it gives beyond nothing.

    needs_store: it restores and runs its loops only once the store was reached; where something keeps publishes, the
    start does not wait for that.
    """

    needs_store: ClassVar[bool] = True

    def holdings(self) -> Sequence[Holding]:
        """Return the kinds of leases it works under; asked once, after the store was reached."""
        return ()

    def queues(self) -> Sequence[QueueSpec]:
        """Return the queues it needs in the broker."""
        return ()

    def loops(self) -> Sequence[Loop]:
        """Return its background work; asked once, after `holdings`."""
        return ()

    async def restore(self) -> None:
        """Take over what an earlier process left in the store, before the broker and the loops start."""

    def store_reached(self) -> None:
        """The store was reached for the first time, its schema is right, and rows go where they belong."""

    async def begin_drain(self) -> None:
        """Take nothing new in from now on; what runs goes on."""

    def report(self) -> Report:
        """Return what it knows of itself."""
        return Report()

    def measures(self) -> Iterable[Measure]:
        """Return the values of its gauges and of the counts its objects keep. Read at a scrape, in a thread of its own:
        it changes nothing, and is asked again when what it walks through changes meanwhile."""
        return ()

    def ended(self) -> None:
        """Let go of what the start took; called when everything has stopped, also after a start that failed."""
