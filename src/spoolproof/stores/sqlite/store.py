"""The SQLite store: its parts on one Database."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from spoolproof.clock import Clock
from spoolproof.ids import Ids
from spoolproof.ports.transaction import OwnTransaction, StoreTransaction
from spoolproof.sqlite import Database
from spoolproof.sqlite.errors import is_conflict
from spoolproof.sqlite.steady import has_table
from spoolproof.sqlite.threads import Runner, ThreadRunner
from spoolproof.stores.ports import PortedStore
from spoolproof.stores.sqlite import handles, leases, outbox
from spoolproof.stores.sqlite.dead_letters import SqliteDeadLetters
from spoolproof.stores.sqlite.inbox import SqliteInbox
from spoolproof.stores.sqlite.leases import SqliteLeases
from spoolproof.stores.sqlite.migrations import SqliteMigrations
from spoolproof.stores.sqlite.outbox import SqliteOutbox
from spoolproof.stores.sqlite.retention import SqliteRetention
from spoolproof.stores.sqlite.services import SqliteServices
from spoolproof.stores.sqlite.state import SqliteState
from spoolproof.stores.sqlite.transaction import OwnSqliteTransaction
from spoolproof.stores.sqlite.values import register
from spoolproof.stores.sqlite.wakeup import SqliteWakeUp


class SqliteStore(PortedStore):
    """Implements `ports.store.Store`. path: made with its directory if missing; not on a network file system."""

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock,
        ids: Ids,
        outbox_rows_max: int,
        ports: Sequence[str] = (),
        make_runner: Callable[[str], Runner] = ThreadRunner,
    ) -> None:
        super().__init__("sqlite", ports)
        register()
        self._path = path
        self.clock = clock
        self.ids = ids
        self.database = database = Database(path, clock=clock, on_reboot=_on_reboot, make_runner=make_runner)
        self.services = SqliteServices(database)
        self.dead_letters = SqliteDeadLetters(database, self.services)
        self.outbox = SqliteOutbox(
            *(database, self.services, self.dead_letters.keep), rows_max=outbox_rows_max, clock=clock
        )
        self.inbox = SqliteInbox(database)
        self.leases = SqliteLeases(database)
        self.state = SqliteState(database)
        self.migrations = SqliteMigrations(database, clock=clock, ids=ids)
        self.wakeup = SqliteWakeUp(database)
        self.retention = SqliteRetention(database, self.rules())

    @property
    def name(self) -> str:
        return f"sqlite:///{self._path}"

    async def start(self) -> None:
        await self.database.start()

    async def stop(self) -> None:
        await self.database.stop()
        self.leases.stop()

    async def ping(self) -> None:
        # a read: it does not wait behind a transaction that holds the writer
        await self.database.read(lambda connection: connection.execute("select 1 from sqlite_schema").fetchone())

    def is_conflict(self, error: BaseException) -> bool:
        return is_conflict(error)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[OwnTransaction]:
        async with self.database.transaction() as tx:
            yield OwnSqliteTransaction(tx)

    async def adopt(self, handle: object) -> StoreTransaction:
        return await handles.adopt(handle, self._path, self.clock)


def _on_reboot(connection: sqlite3.Connection) -> None:
    if has_table(connection, "spoolproof_outbox"):
        leases.on_reboot(connection)
        outbox.on_reboot(connection)
