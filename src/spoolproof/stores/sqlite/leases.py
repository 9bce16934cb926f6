"""Leases and the process table on SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from uuid import UUID

import msgspec

from spoolproof.ports.leases import Fence, LeaseStatus, Process
from spoolproof.sqlite import Database, load_statements
from spoolproof.stores.sqlite.times import instant_of

_SQL = load_statements(__package__, "leases.sql")


class SqliteLeases:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def ensure(self, kind: str, names: Sequence[str]) -> None:
        rows = [(kind, name) for name in names]
        await self._database.write(lambda connection: connection.executemany(_SQL["ensure"], rows).rowcount)

    async def acquire(self, kind: str, owner: UUID, limit: int, lease_seconds: float) -> Sequence[Fence]:
        (has_free,) = await self._database.read(lambda db: db.execute(_SQL["has_free"], (kind,)).fetchone())
        if not has_free:
            return []
        values = (kind, str(owner), limit, lease_seconds)
        rows = await self._database.write(lambda db: db.execute(_SQL["acquire"], values).fetchall())
        return [Fence(kind=kind, name=name, owner=owner, epoch=epoch) for name, epoch in sorted(rows)]

    async def renew(self, fences: Sequence[Fence], lease_seconds: float) -> Sequence[Fence]:
        if not fences:
            return []

        def work(connection: sqlite3.Connection) -> list[Fence]:
            return [fence for fence in fences if _renew(connection, fence, lease_seconds)]

        return await self._database.write(work)

    async def release(self, fences: Sequence[Fence]) -> None:
        if fences:
            rows = [_values(fence) for fence in fences]
            await self._database.write(lambda connection: connection.executemany(_SQL["release"], rows).rowcount)

    async def beat(self, process: Process, expires_seconds: float) -> bool:
        values = (
            str(process.id),
            process.service,
            process.host,
            process.pid,
            msgspec.json.encode(process.roles).decode(),
            process.is_draining,
            expires_seconds,
        )
        return await self._database.write(lambda connection: connection.execute(_SQL["beat"], values).rowcount == 1)

    async def processes(self) -> Sequence[Process]:
        rows = await self._database.read(lambda connection: connection.execute(_SQL["processes"]).fetchall())
        return [
            Process(
                id=UUID(id),
                service=service,
                host=host,
                pid=pid,
                roles=msgspec.json.decode(roles, type=tuple[str, ...]),
                is_draining=bool(is_draining),
            )
            for id, service, host, pid, roles, is_draining in rows
        ]

    async def status(self, kind: str) -> Sequence[LeaseStatus]:
        rows = await self._database.read(lambda connection: connection.execute(_SQL["status"], (kind,)).fetchall())
        return [
            LeaseStatus(
                kind=kind,
                name=name,
                owner=None if owner is None else UUID(owner),
                epoch=epoch,
                is_expired=bool(is_expired),
                expires_at=None if lease_until is None else instant_of(lease_until),
            )
            for kind, name, owner, epoch, is_expired, lease_until in rows
        ]


def _renew(connection: sqlite3.Connection, fence: Fence, lease_seconds: float) -> bool:
    return connection.execute(_SQL["renew"], (*_values(fence), lease_seconds)).rowcount == 1


def _values(fence: Fence) -> tuple[str, str, str, int]:
    return (fence.kind, fence.name, str(fence.owner), fence.epoch)
