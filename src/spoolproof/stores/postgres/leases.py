"""Leases and the process table on PostgreSQL, by the server's clock.

That clock may be put back, by an hour: what lies further ahead than it can is then pulled in.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from spoolproof import limits
from spoolproof.ports.leases import Fence, LeaseStatus, Process
from spoolproof.statements import load_statements
from spoolproof.stores.postgres.connections import Pool

_SQL = load_statements(__package__, "leases.sql")


class PostgresLeases:
    def __init__(self, upkeep: Pool) -> None:
        self._upkeep = upkeep

    async def ensure(self, kind: str, names: Sequence[str]) -> None:
        await self._upkeep.execute(_SQL["ensure"], kind, list(names))

    async def acquire(self, kind: str, owner: UUID, limit: int, lease_seconds: float) -> Sequence[Fence]:
        await self._upkeep.execute(_SQL["pull_in"], kind, lease_seconds, limits.LEASE_SECONDS_MAX)
        rows = await self._upkeep.fetch(_SQL["acquire"], kind, owner, limit, lease_seconds)
        return [Fence(kind=kind, name=row["name"], owner=owner, epoch=row["epoch"]) for row in rows]

    async def renew(self, fences: Sequence[Fence], lease_seconds: float) -> Sequence[Fence]:
        if not fences:
            return []
        rows = await self._upkeep.fetch(_SQL["renew"], *_columns(fences), lease_seconds)
        kept = {(row["kind"], row["name"], row["owner"], row["epoch"]) for row in rows}
        return [fence for fence in fences if (fence.kind, fence.name, fence.owner, fence.epoch) in kept]

    async def release(self, fences: Sequence[Fence]) -> None:
        if fences:
            await self._upkeep.execute(_SQL["release"], *_columns(fences))

    async def beat(self, process: Process, expires_seconds: float) -> bool:
        row = await self._upkeep.fetch_value(
            _SQL["beat"],
            process.id,
            process.service,
            process.host,
            process.pid,
            list(process.roles),
            process.is_draining,
            expires_seconds,
        )
        return row is not None

    async def processes(self) -> Sequence[Process]:
        return [
            Process(
                id=UUID(int=row["id"].int),
                service=row["service"],
                host=row["host"],
                pid=row["pid"],
                roles=tuple(row["roles"]),
                is_draining=row["is_draining"],
            )
            for row in await self._upkeep.fetch(_SQL["processes"], limits.LEASE_SECONDS_MAX)
        ]

    async def status(self, kind: str) -> Sequence[LeaseStatus]:
        return [LeaseStatus(**row) for row in await self._upkeep.fetch(_SQL["status"], kind)]


def _columns(fences: Sequence[Fence]) -> tuple[list[str], list[str], list[UUID], list[int]]:
    return (
        [fence.kind for fence in fences],
        [fence.name for fence in fences],
        [fence.owner for fence in fences],
        [fence.epoch for fence in fences],
    )
