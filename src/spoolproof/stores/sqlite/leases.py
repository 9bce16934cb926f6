"""Leases and the process table on SQLite.

Times are of the clock that nobody sets. A process also holds a lock file under its id: one whose lock is free has died,
and what it held is free at once, however long its lease would have lasted.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import partial
from typing import Any
from uuid import UUID

import msgspec

from spoolproof.errors import StoreUnavailable
from spoolproof.ports.leases import Fence, LeaseStatus, Process
from spoolproof.sqlite import Database, load_statements
from spoolproof.sqlite.owners import OwnerLock, forget, is_dead
from spoolproof.stores.sqlite.events import ProcessDead
from spoolproof.stores.sqlite.times import instant_of
from spoolproof.telemetry.events import emit

_SQL = load_statements(__package__, "leases.sql")


class SqliteLeases:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._locks: dict[str, OwnerLock] = {}

    def stop(self) -> None:
        """Let every lock go: whoever looks next finds this process dead."""
        for id in list(self._locks):
            self._unlock(id, remove=False)

    def _lock(self, id: str) -> None:
        if id not in self._locks:
            try:
                self._locks[id] = OwnerLock(self._database.path, id)
            except OSError as error:
                raise StoreUnavailable(f"{self._database.path}: no lock file for this process: {error}") from error

    def _unlock(self, id: str, *, remove: bool) -> None:
        lock = self._locks.pop(id, None)
        if lock is not None:
            lock.release(remove=remove)

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
            rows = [values_of(fence) for fence in fences]
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
        is_leaving = expires_seconds <= 0

        def work(connection: sqlite3.Connection) -> bool:
            if not is_leaving:
                self._lock(values[0])  # before its row: a row is looked after by its lock
            return connection.execute(_SQL["beat"], values).rowcount == 1

        is_alive = await self._database.write(work)
        if is_leaving or not is_alive:
            self._unlock(values[0], remove=True)
        return is_alive

    async def processes(self) -> Sequence[Process]:
        def look(connection: sqlite3.Connection) -> tuple[list[tuple[Any, ...]], list[str]]:
            rows = connection.execute(_SQL["processes"]).fetchall()
            return rows, [id for id, *_ in rows if is_dead(self._database.path, id)]

        rows, dead = await self._database.read(look)
        if dead:
            await self._database.write(partial(_bury, dead=dead))
            for id in dead:
                forget(self._database.path, id)
            emit(ProcessDead(ids=",".join(dead)))
        return [
            Process(
                id=UUID(id),
                service=service,
                host=host,
                pid=pid,
                roles=msgspec.json.decode(roles, type=tuple[str, ...]),
                is_draining=bool(is_draining),
            )
            for id, service, host, pid, roles, is_draining, is_expired in rows
            if not is_expired and id not in dead
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


def _bury(connection: sqlite3.Connection, dead: Sequence[str]) -> None:
    for id in dead:
        connection.execute(_SQL["free_dead"], (id,))
        connection.execute(_SQL["forget_dead"], (id,))


def _renew(connection: sqlite3.Connection, fence: Fence, lease_seconds: float) -> bool:
    return connection.execute(_SQL["renew"], (*values_of(fence), lease_seconds)).rowcount == 1


def values_of(fence: Fence) -> tuple[str, str, str, int]:
    return (fence.kind, fence.name, str(fence.owner), fence.epoch)


def on_reboot(connection: sqlite3.Connection) -> None:
    """After a start of the machine: nobody holds anything."""
    connection.execute(_SQL["free_all"])
    connection.execute(_SQL["expire_all"])
