"""The PostgreSQL store: its connections, its transactions and the users' own.

Connections by purpose, so that one never starves another: `work` for transactions and appends, `relay` (one) for the
relay's statements, `upkeep` for leases and the rest, `bell` (one) for wake-ups.

While a transaction is open, a watch pings the server every 5 s over another connection. No answer: the transaction's
connection is dropped, and whatever waited on it gets StoreUnavailable. So a frozen server ends a transaction in 10 s,
also in the middle of a user's statement that may itself run for minutes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from weakref import WeakSet

import asyncpg

from spoolproof import limits
from spoolproof.clock import Clock
from spoolproof.errors import NotInTransaction, StoreUnavailable, UnsupportedTransaction, WrongDatabase
from spoolproof.ids import Ids
from spoolproof.ports.broker import Spawn
from spoolproof.ports.transaction import OwnTransaction, StoreTransaction
from spoolproof.stores import sqlalchemy_handles
from spoolproof.stores.ports import PortedStore
from spoolproof.stores.postgres.connections import Connection, Pool
from spoolproof.stores.postgres.dead_letters import PostgresDeadLetters
from spoolproof.stores.postgres.faults import is_away, is_conflict, outbox_missing, unavailable
from spoolproof.stores.postgres.identity import SQL, Identity
from spoolproof.stores.postgres.inbox import PostgresInbox
from spoolproof.stores.postgres.leases import PostgresLeases
from spoolproof.stores.postgres.migrations import PostgresMigrations
from spoolproof.stores.postgres.outbox import RELAY_SETTINGS, PostgresOutbox
from spoolproof.stores.postgres.retention import PostgresRetention
from spoolproof.stores.postgres.services import PostgresServices
from spoolproof.stores.postgres.state import PostgresState
from spoolproof.stores.postgres.transaction import PostgresTransaction
from spoolproof.stores.postgres.wakeup import PostgresWakeUp
from spoolproof.urls import redact_url

_SUPPORTED = ("asyncpg.Connection", *sqlalchemy_handles.SUPPORTED)


class PostgresStore(PortedStore):
    """Implements `ports.store.Store`.

    url: `postgresql://…` as asyncpg takes it, query parameters included. listen: False behind a pooler in transaction
    mode, where nothing of a session lasts.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Clock,
        ids: Ids,
        outbox_rows_max: int,
        listen: bool,
        spawn: Spawn,
        ports: Sequence[str] = (),
    ) -> None:
        super().__init__("postgres", ports)
        self._name = name = redact_url(url)
        self.clock = clock
        self.ids = ids
        self.spawn = spawn
        self._is_pooled = pooled = not listen
        self.work = Pool(url, name, size_max=limits.POSTGRES_CONNECTIONS_MAX, is_pooled=pooled, reads_json=True)
        self._relay = Pool(url, name, size_max=1, is_pooled=pooled, settings=RELAY_SETTINGS)
        self.upkeep = Pool(url, name, size_max=limits.POSTGRES_UPKEEP_CONNECTIONS_MAX, is_pooled=pooled)
        self._pools = (self.work, self._relay, self.upkeep)
        self._identity = Identity(self.upkeep)
        self._own_database: WeakSet[Connection] = WeakSet()  # users' connections known to lead to it
        self.services = PostgresServices(self.upkeep, self._identity)
        self.outbox = PostgresOutbox(
            self.work, self._relay, self.upkeep, self.services, rows_max=outbox_rows_max, clock=clock, spawn=spawn
        )
        self.inbox = PostgresInbox(self.upkeep)
        self.dead_letters = PostgresDeadLetters(self.upkeep, self.services)
        self.leases = PostgresLeases(self.upkeep)
        self.state = PostgresState(self.upkeep)
        self.migrations = PostgresMigrations(self.upkeep, self._identity.read)
        bell = Pool(url, name, size_max=1) if listen else None
        self.wakeup = PostgresWakeUp(bell, clock=clock, spawn=spawn)
        self.retention = PostgresRetention(self.upkeep, self.rules())

    @property
    def name(self) -> str:
        return self._name

    async def start(self) -> None:
        for pool in self._pools:
            pool.open()
        await self._identity.read()
        self.wakeup.start()

    async def stop(self) -> None:
        await self.wakeup.stop()
        await asyncio.gather(*(pool.close() for pool in self._pools))

    async def ping(self) -> None:
        if await self.upkeep.fetch_value("select current_setting('transaction_read_only')") != "off":
            raise StoreUnavailable(f"{self._name}: the database takes no writes (transaction_read_only is on)")

    async def answers(self) -> None:
        """Return if the server answers, whatever it may do. Raises StoreUnavailable."""
        await self.upkeep.fetch_value("select 1")

    def is_conflict(self, error: BaseException) -> bool:
        return is_conflict(error)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[OwnTransaction]:
        async with self.work.connection() as connection:
            with self.work.answers(connection):
                async with asyncio.timeout(limits.STATEMENT_SECONDS):
                    transaction = await self.work.begin(connection)
            tx = PostgresTransaction(connection, self._name)
            watch = _Watch(connection, self)
            try:
                yield tx
                with self.work.answers(connection):
                    await _check_commits(tx, connection)
            except BaseException as error:
                is_lost = connection.is_closed()
                await _roll_back(transaction, connection)
                if is_lost and is_away(error, is_closed=True):
                    raise unavailable(self._name, error) from error  # through `raw`, where nothing mapped it
                raise
            else:
                # an error here leaves the outcome unknown; whoever asked tries again under the same ids
                with self.work.answers(connection):
                    async with asyncio.timeout(limits.STATEMENT_SECONDS):
                        await transaction.commit()
            finally:
                watch.stop()
                connection.before_savepoint = None
            if tx.is_exposed and not self._is_pooled:
                await _reset(connection)

    async def adopt(self, handle: object) -> StoreTransaction:
        if isinstance(handle, asyncpg.Connection | asyncpg.pool.PoolConnectionProxy):
            if not handle.is_in_transaction():
                raise NotInTransaction(
                    f"transaction={type(handle).__qualname__} has no open transaction; publish inside: "
                    "async with connection.transaction()"
                )
            tx = PostgresTransaction(handle, self._name)
            connection = getattr(handle, "_con", handle)  # the proxy is new at each acquire, the connection is not
            if connection not in self._own_database:
                await self._check_database(tx)
                self._own_database.add(connection)
            return tx
        adopted = await sqlalchemy_handles.adopt(handle, dialect="postgresql")
        if adopted is None:
            raise UnsupportedTransaction(handle, _SUPPORTED)
        if not adopted.is_known(self._name):
            await self._check_database(adopted)
            adopted.mark_known(self._name)
        return adopted

    async def _check_database(self, tx: StoreTransaction) -> None:
        """Refuse a transaction of another database. Once per connection, and without failing a statement in it."""
        store_id = await self._identity.store_id()
        try:
            async with asyncio.timeout(limits.STATEMENT_SECONDS):
                (answer,) = await tx.fetch(SQL["has_outbox"])
                if not answer["has_outbox"]:
                    raise outbox_missing(self._name)
                (meta,) = await tx.fetch(SQL["meta"])
        except TimeoutError as error:
            raise unavailable(self._name, error) from error
        if meta["store_id"] != store_id:
            raise WrongDatabase(
                f"transaction= is on a database whose store_id is {meta['store_id']}, the service's store {self._name} "
                f"has {store_id}; pass a transaction of that database, or point SPOOLPROOF_STORE at yours"
            )


class _Watch:
    """Drops a transaction's connection when the server answers nobody."""

    def __init__(self, connection: Connection, store: PostgresStore) -> None:
        self._connection = connection
        self._store = store
        self._task: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(limits.STATEMENT_SECONDS, self._look)

    def stop(self) -> None:
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _look(self) -> None:
        self._task = self._store.spawn(self._ask(), "store.watch")

    async def _ask(self) -> None:
        try:
            await self._store.answers()
        except StoreUnavailable:
            self._connection.terminate()
        else:
            self._timer = asyncio.get_running_loop().call_later(limits.STATEMENT_SECONDS, self._look)


async def _check_commits(tx: PostgresTransaction, connection: Connection) -> None:
    """Raise if a COMMIT would not commit: PostgreSQL answers one in a failed transaction with a silent ROLLBACK."""
    if not tx.has_failed:
        return
    if not connection.is_in_transaction():
        raise NotInTransaction("the block ended its transaction by itself; leave COMMIT and ROLLBACK to the block")
    await connection.execute("select 1", timeout=limits.STATEMENT_SECONDS)


async def _roll_back(transaction: asyncpg.transaction.Transaction, connection: Connection) -> None:
    """End the transaction; when that is not answered, drop the connection, which ends it too."""
    try:
        async with asyncio.timeout(limits.STATEMENT_SECONDS):
            if not connection.is_closed() and connection.is_in_transaction():
                await transaction.rollback()
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
        connection.terminate()
    except asyncio.CancelledError:
        connection.terminate()
        raise


async def _reset(connection: Connection) -> None:
    """Undo what a user's statements may have set for the session; the commit stands whatever comes of this."""
    try:
        await connection.reset(timeout=limits.STATEMENT_SECONDS)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
        connection.terminate()
