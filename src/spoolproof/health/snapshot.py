"""What is known about this process at one moment: the one thing probes are answered from.

Frozen, so that the health thread may read what the event loop made. Nothing here is judged: that is `verdict`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from spoolproof.ports.health import Dependency as Dependency
from spoolproof.ports.health import Need as Need
from spoolproof.ports.health import Status as Status
from spoolproof.ports.outbox import Backlog

DB = "db"
"""The store's key in every body, whatever database it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """What the process knows of itself without asking anybody. keeps_publishes: what is published is
    kept durably also while the store is away. leads_service, leads_database: it tells what is counted
    for all. without_room: queues whose handler waits for room in the outbox. unsubscribed: queues the connected broker
    does not deliver from. stalled: loops whose turn runs too long. issues: sentences of its parts. dependencies: what
    its parts lean on. level: how much function is on offer, 0 all of it. fullness: of the spool, 0 to 1."""

    is_started: bool = False
    is_draining: bool = False
    is_fenced: bool = False
    is_gate_shut: bool = False
    keeps_publishes: bool = False
    leads_service: bool = False
    leads_database: bool = False
    without_room: tuple[str, ...] = ()
    unsubscribed: tuple[str, ...] = ()
    stalled: tuple[str, ...] = ()
    issues: tuple[str, ...] = ()
    dependencies: tuple[Dependency, ...] = ()
    level: int = 0
    fullness: float = 0.0
    failpoints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenDeadLetters:
    """How many wait for a person, counted up to 100 000, and since when the oldest has."""

    count: int
    oldest_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Ownership:
    """Outbox shards and how many of them nobody ships; seconds: for how long that number had been above 0 when it was
    counted. A shard whose lease is not renewed any more has nobody."""

    shards: int
    unowned: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything a probe may ask. backlog, ownership: None when the last sample is missing or over 30 s old.
    dead_letters: None when there are none open, or that is not known.
    needs: dependencies readiness waits for. is_loop_silent: the event loop has not answered the health thread."""

    at: datetime
    service: str
    version: str
    detail: str = "loopback"
    local: Local = Local()
    db: Dependency | None = None
    broker: Dependency | None = None
    broker_issues: tuple[str, ...] = ()
    backlog: Backlog | None = None
    ownership: Ownership | None = None
    dead_letters: OpenDeadLetters | None = None
    needs: Collection[str] = ()
    is_loop_silent: bool = False

    @property
    def dependencies(self) -> tuple[Dependency, ...]:
        """The broker, then the store, as far as they are known, then what parts lean on."""
        return (*self.own, *self.local.dependencies)

    @property
    def own(self) -> tuple[Dependency, ...]:
        """The broker and the store, as far as they are known."""
        return tuple(one for one in (self.broker, self.db) if one is not None)
