"""Who may work on what, for how long, by the database's clock; and which processes live.

The epoch of a lease rises on every change of owner and never falls. A write that carries an older epoch must do
nothing: that is what makes a process that was frozen past its lease harmless.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from spoolproof import limits
from spoolproof.ports.retention import Rule

RETENTION = (
    Rule(table="process", key=("id",), since="expires_at", seconds=limits.PROCESS_RETENTION_SECONDS, is_steady=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """Names the lease under which work is done; a write with an older epoch does nothing.

    kind: that of a block of shards (`ports.services`; name = the shard's number) or `leader` (name = what is led).
    """

    kind: str
    name: str
    owner: UUID
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One running process of a service; id is new at every start."""

    id: UUID
    service: str
    host: str
    pid: int
    roles: tuple[str, ...]
    is_draining: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseStatus:
    """Where a lease stands now. owner: None when nobody ever held it or it was released."""

    kind: str
    name: str
    owner: UUID | None
    epoch: int
    is_expired: bool
    expires_at: datetime | None


class Leases(Protocol):
    """Leases and the process table."""

    async def ensure(self, kind: str, names: Sequence[str]) -> None:
        """Create the named leases, free, where they do not exist."""

    async def acquire(self, kind: str, owner: UUID, limit: int, lease_seconds: float) -> Sequence[Fence]:
        """Take up to `limit` free or expired leases of a kind; each returned fence has an epoch never used before."""

    async def renew(self, fences: Sequence[Fence], lease_seconds: float) -> Sequence[Fence]:
        """Extend leases still held under exactly these fences; returns those. The others are lost."""

    async def release(self, fences: Sequence[Fence]) -> None:
        """Give leases back at once. A fence that is stale is ignored."""

    async def beat(self, process: Process, expires_seconds: float) -> bool:
        """Write or extend the process row. False if the row had expired: start over under a new id."""

    async def processes(self) -> Sequence[Process]:
        """Return the processes whose row has not expired."""

    async def status(self, kind: str) -> Sequence[LeaseStatus]:
        """Return every lease of a kind, sorted by name."""
