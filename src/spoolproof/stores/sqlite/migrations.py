"""The way to the newest schema: each step and its version number in one transaction.

Steps run under SQLite's write lock, so processes that start together queue for it and find the work done. Before an
existing schema is changed, the file is copied beside itself (`<file>.schema-<version>-<time>`); the operator deletes
the copies.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

from spoolproof.clock import Clock
from spoolproof.errors import StoreUnavailable
from spoolproof.ids import Ids
from spoolproof.ports.store import Migration
from spoolproof.sqlite import Database, split_script
from spoolproof.sqlite.connection import sync_directory
from spoolproof.stores.migrations import Steps, applied, load

_HAS_VERSIONS = "select exists (select 1 from sqlite_schema where name = 'spoolproof_schema_version')"
_FOUND = "select coalesce(max(version), 0) from spoolproof_schema_version"


class SqliteMigrations(Steps):
    def __init__(
        self, database: Database, *, clock: Clock, ids: Ids, steps: tuple[Migration, ...] = load(__package__)
    ) -> None:
        self._database = database
        self._clock = clock
        self._ids = ids
        super().__init__(steps, versions="spoolproof_schema_version", begin="begin exclusive")

    async def found(self) -> int:
        return await self._database.read(_found)

    async def apply(self) -> list[str]:
        found = await self.found()
        if 0 < found < self.needed:
            await self._copy(found)
        names = []
        for step in self._steps:
            if step.version > found and await self._database.write(partial(self._run, step=step)):
                names.append(applied(step))
        return names

    async def _copy(self, found: int) -> None:
        path = self._database.path
        stamp = self._clock.now().strftime("%Y%m%dT%H%M%SZ")
        final = path.with_name(f"{path.name}.schema-{found}-{stamp}")
        unfinished = path.with_name(f"{path.name}.schema-{self._ids.uuid7()}.partial")
        try:
            await self._database.read(lambda connection: _copy(connection, unfinished, final, found))
        except OSError as error:
            raise StoreUnavailable(f"copying {path} before its migration failed: {error}") from error

    def _run(self, connection: sqlite3.Connection, step: Migration) -> bool:
        if step.version <= _found(connection):
            return False
        for statement in split_script(step.sql):
            connection.execute(statement)
        connection.execute(self.noting(step))
        return True


def _copy(connection: sqlite3.Connection, unfinished: Path, final: Path, found: int) -> None:
    connection.execute("pragma query_only = off")  # the reader's; it refuses a VACUUM into another file, too
    try:
        connection.execute("vacuum into ?", (str(unfinished),))
        with closing(sqlite3.connect(unfinished)) as copy:
            copied = _found(copy)
        if copied == found:  # else another process has migrated meanwhile, after a copy of its own
            _sync(unfinished)
            unfinished.replace(final)
            sync_directory(final.parent)
    finally:
        connection.execute("pragma query_only = on")
        unfinished.unlink(missing_ok=True)


def _sync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _found(connection: sqlite3.Connection) -> int:
    if not connection.execute(_HAS_VERSIONS).fetchone()[0]:
        return 0
    return int(connection.execute(_FOUND).fetchone()[0])
