"""The memory store's leases and processes, in two of its tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from spoolproof.ports.leases import Fence, LeaseStatus, Process
from spoolproof.stores.memory.transaction import MemoryTransaction

if TYPE_CHECKING:
    from spoolproof.stores.memory.store import MemoryStore

LEASES = "lease"
PROCESSES = "process"


@dataclass(frozen=True, slots=True)
class Lease:
    """Who holds a lease, under which epoch, until when."""

    owner: UUID | None = None
    epoch: int = 0
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Beat:
    process: Process
    expires_at: datetime


def is_held(tx: MemoryTransaction, fence: Fence) -> bool:
    """Tell whether a lease is held under exactly this fence."""
    lease: Lease | None = tx.table(LEASES).get((fence.kind, fence.name))
    return lease is not None and (lease.owner, lease.epoch) == (fence.owner, fence.epoch)


class MemoryLeases:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def _is_free(self, lease: Lease) -> bool:
        return lease.owner is None or lease.until is None or lease.until <= self._store.clock.now()

    def _until(self, seconds: float) -> datetime:
        return self._store.clock.now() + timedelta(seconds=seconds)

    async def ensure(self, kind: str, names: Sequence[str]) -> None:
        async with self._store.transaction() as tx:
            for name in names:
                tx.table(LEASES).setdefault((kind, name), Lease())

    async def acquire(self, kind: str, owner: UUID, limit: int, lease_seconds: float) -> Sequence[Fence]:
        async with self._store.transaction() as tx:
            free = [
                (name, lease) for (of, name), lease in tx.table(LEASES).items() if of == kind and self._is_free(lease)
            ]
            taken = []
            for name, lease in free[:limit]:
                fence = Fence(kind=kind, name=name, owner=owner, epoch=lease.epoch + 1)
                tx.table(LEASES)[kind, name] = Lease(owner, fence.epoch, self._until(lease_seconds))
                taken.append(fence)
            return taken

    async def renew(self, fences: Sequence[Fence], lease_seconds: float) -> Sequence[Fence]:
        async with self._store.transaction() as tx:
            held = [fence for fence in fences if is_held(tx, fence)]
            for fence in held:
                tx.table(LEASES)[fence.kind, fence.name] = Lease(fence.owner, fence.epoch, self._until(lease_seconds))
            return held

    async def release(self, fences: Sequence[Fence]) -> None:
        async with self._store.transaction() as tx:
            for fence in fences:
                if is_held(tx, fence):
                    tx.table(LEASES)[fence.kind, fence.name] = Lease(epoch=fence.epoch)

    async def beat(self, process: Process, expires_seconds: float) -> bool:
        async with self._store.transaction() as tx:
            known: _Beat | None = tx.table(PROCESSES).get(process.id)
            if known is not None and known.expires_at <= self._store.clock.now():
                return False
            tx.table(PROCESSES)[process.id] = _Beat(process, self._until(expires_seconds))
            return True

    async def processes(self) -> Sequence[Process]:
        now = self._store.clock.now()
        return [beat.process for beat in self._store.table(PROCESSES).values() if beat.expires_at > now]

    async def status(self, kind: str) -> Sequence[LeaseStatus]:
        return [
            LeaseStatus(
                kind=kind,
                name=name,
                owner=lease.owner,
                epoch=lease.epoch,
                is_expired=self._is_free(lease),
                expires_at=lease.until,
            )
            for (lease_kind, name), lease in sorted(self._store.table(LEASES).items(), key=lambda item: item[0])
            if lease_kind == kind
        ]
