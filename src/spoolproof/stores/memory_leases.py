"""The memory store's leases and processes, kept in its one State with the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from spoolproof.ports.leases import Fence, LeaseStatus, Process

if TYPE_CHECKING:
    from spoolproof.stores.memory import MemoryState, MemoryStore


@dataclass(frozen=True, slots=True)
class Lease:
    """Who holds a lease, under which epoch, until when."""

    owner: UUID | None = None
    epoch: int = 0
    until: datetime | None = None


def is_held(state: MemoryState, fence: Fence) -> bool:
    """Tell whether a lease is held under exactly this fence."""
    lease = state.leases.get((fence.kind, fence.name))
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
                tx.state.leases.setdefault((kind, name), Lease())

    async def acquire(self, kind: str, owner: UUID, limit: int, lease_seconds: float) -> Sequence[Fence]:
        async with self._store.transaction() as tx:
            free = [
                (name, lease) for (of, name), lease in tx.state.leases.items() if of == kind and self._is_free(lease)
            ]
            taken = []
            for name, lease in free[:limit]:
                fence = Fence(kind=kind, name=name, owner=owner, epoch=lease.epoch + 1)
                tx.state.leases[kind, name] = Lease(owner, fence.epoch, self._until(lease_seconds))
                taken.append(fence)
            return taken

    async def renew(self, fences: Sequence[Fence], lease_seconds: float) -> Sequence[Fence]:
        async with self._store.transaction() as tx:
            held = [fence for fence in fences if is_held(tx.state, fence)]
            for fence in held:
                tx.state.leases[fence.kind, fence.name] = Lease(fence.owner, fence.epoch, self._until(lease_seconds))
            return held

    async def release(self, fences: Sequence[Fence]) -> None:
        async with self._store.transaction() as tx:
            for fence in fences:
                if is_held(tx.state, fence):
                    tx.state.leases[fence.kind, fence.name] = Lease(epoch=fence.epoch)

    async def beat(self, process: Process, expires_seconds: float) -> bool:
        async with self._store.transaction() as tx:
            known = tx.state.processes.get(process.id)
            if known is not None and known[1] <= self._store.clock.now():
                return False
            tx.state.processes[process.id] = (process, self._until(expires_seconds))
            return True

    async def processes(self) -> Sequence[Process]:
        now = self._store.clock.now()
        return [process for process, until in self._store.committed().processes.values() if until > now]

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
            for (lease_kind, name), lease in sorted(self._store.committed().leases.items(), key=lambda item: item[0])
            if lease_kind == kind
        ]
