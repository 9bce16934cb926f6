"""Connections to the server, lent one at a time, each with a limit on every wait.

Not asyncpg's pool: that resets a connection with a round trip after every use, closes in tasks of its own, and waits
for a peer that will not answer. Here a connection whose state is in doubt (an answer that did not come, a cancelled
call) is dropped at once and without a word to the server; a fresh one costs a few milliseconds. When one turns out
dead, the idle ones are dropped with it: they led to the same server, and a restarted server is used again at the
first call after its return.

What a database or a role sets for every session is set aside where a statement of ours or the order of messages
depends on it: see `_SETTINGS`. What is about the data or the handler's own SQL stays as it is set: `search_path`,
`TimeZone`, `default_transaction_read_only` (a database that refuses writes is away), and the limits on a transaction
that waits (`idle_in_transaction_session_timeout`, `transaction_timeout`).

Behind a pooler in transaction mode (`is_pooled`) a session lasts for one transaction. So there every statement gets a
transaction of its own, which begins with our settings, and nothing is kept on the server: no prepared statement, no
setting. It costs two round trips more.

Must never happen: a connection lent again while its last statement may still run; a wait without a limit.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any

import asyncpg

from spoolproof import limits
from spoolproof.errors import StoreUnavailable
from spoolproof.forks import cut, let_go_in_child
from spoolproof.stores.postgres.faults import is_own_trouble, is_table_missing, outbox_missing, unavailable
from spoolproof.stores.savepoints import sets_savepoint
from spoolproof.stores.values import json_text

Connection = Any  #: asyncpg.Connection; asyncpg ships no types
BeforeSavepoint = Callable[[], Awaitable[None]]

_NAME = {"application_name": "spoolproof"}
_SETTINGS: Mapping[str, str] = {
    # what a Receipt or an ack rests on must be on disk, whatever the database's default is
    "synchronous_commit": "on",
    # statements that wait for a lock and then look, such as taking a lease, must see what the other one committed
    "default_transaction_isolation": "read committed",
    # ours have limits of their own, a handler has its `timeout`; another's limit would fail messages that are innocent
    "statement_timeout": "0",
    "lock_timeout": "0",
    # an idle connection of the pool, or one that listens, is not forgotten
    "idle_session_timeout": "0",
}


class OwnConnection(asyncpg.Connection):  # type: ignore[misc]  # no types
    """A connection of ours. A user may set a savepoint on it by several ways; all of them pass here."""

    __slots__ = ("before_savepoint",)

    before_savepoint: BeforeSavepoint | None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.before_savepoint = None
        let_go_in_child(self)

    def let_go(self) -> None:
        """In a child: the server must see this session end with its process, and free what it has locked."""
        found = None if self._transport is None else self._transport.get_extra_info("socket")
        if found is not None and found.fileno() >= 0:
            cut(found.fileno())

    async def execute(self, query: str, *args: object, timeout: float | None = None) -> str:
        if self.before_savepoint is not None and sets_savepoint(query):
            await self.before_savepoint()
        status: str = await super().execute(query, *args, timeout=timeout)
        return status

    async def _execute(self, query: str, *args: Any, **options: Any) -> Any:  # fetch and its kin
        if self.before_savepoint is not None and sets_savepoint(query):
            await self.before_savepoint()
        return await super()._execute(query, *args, **options)


async def connect(url: str, name: str, settings: Mapping[str, str], *, is_pooled: bool) -> Connection:
    """Open a connection. Raises StoreUnavailable, also when the server refuses the log-in."""
    options: dict[str, Any] = (
        {"server_settings": _NAME, "statement_cache_size": 0}  # a pooler takes no more, and keeps no statement
        if is_pooled
        else {"server_settings": {**_NAME, **settings}}
    )
    try:
        async with asyncio.timeout(limits.POSTGRES_CONNECT_SECONDS):
            return await asyncpg.connect(url, connection_class=OwnConnection, **options)
    except (OSError, EOFError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        raise unavailable(name, error) from error


class Pool:
    """Connections for one purpose, opened as needed and kept."""

    def __init__(
        self,
        url: str,
        name: str,
        *,
        size_max: int,
        is_pooled: bool = False,
        reads_json: bool = False,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """is_pooled: behind a pooler in transaction mode. reads_json: JSON columns are Python values, not text."""
        self._url = url
        self.name = name
        self._size_max = size_max
        self._is_pooled = is_pooled
        self._reads_json = reads_json
        self._settings = {**_SETTINGS, **(settings or {})}
        self._set_local = "; ".join(f"set local {key} = '{value}'" for key, value in self._settings.items())
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._slots = asyncio.Semaphore(size_max)
        self._is_open = False

    def open(self) -> None:
        """Begin to lend."""
        self._is_open = True

    async def close(self) -> None:
        """Lend no more; take leave of the server within CLOSE_SECONDS and drop what is still lent. Idempotent."""
        self._is_open = False
        idle, self._idle = self._idle, []
        leaves = (connection.close(timeout=limits.CLOSE_SECONDS) for connection in idle)
        await asyncio.gather(*leaves, return_exceptions=True)
        for connection in self._open:
            connection.terminate()
        self._open.clear()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection for a block. Raises StoreUnavailable when there is none within STATEMENT_SECONDS."""
        connection = await self._take()
        try:
            yield connection
        finally:
            self._give_back(connection)

    async def begin(self, connection: Connection) -> asyncpg.transaction.Transaction:
        """Open a transaction on a connection lent from here."""
        transaction = connection.transaction(isolation="read_committed")
        await transaction.start()
        if self._is_pooled:
            await connection.execute(self._set_local)
        return transaction

    def answers(self, connection: Connection) -> _Answers:
        """Return a block for statements of ours: their trouble is StoreUnavailable, and a doubtful connection goes."""
        return _Answers(self, connection)

    async def fetch(self, sql: str, *args: object, seconds: float = limits.STATEMENT_SECONDS) -> list[Any]:
        """Run a statement of ours in a transaction of its own; returns its rows. Raises StoreUnavailable."""
        async with self._statement(seconds) as connection:
            rows: list[Any] = await connection.fetch(sql, *args, timeout=seconds)
        return rows

    async def fetch_value(self, sql: str, *args: object, seconds: float = limits.STATEMENT_SECONDS) -> Any:
        """Run a statement of ours; returns the first column of its first row, or None."""
        async with self._statement(seconds) as connection:
            value = await connection.fetchval(sql, *args, timeout=seconds)
        return value

    async def execute(self, sql: str, *args: object, seconds: float = limits.STATEMENT_SECONDS) -> int:
        """Run a statement of ours; returns how many rows it changed."""
        async with self._statement(seconds) as connection:
            changed = changed_rows(await connection.execute(sql, *args, timeout=seconds))
        return changed

    @asynccontextmanager
    async def _statement(self, seconds: float) -> AsyncIterator[Connection]:
        connection = await self._take()
        try:
            with _Answers(self, connection):
                if self._is_pooled:
                    begin = f"begin isolation level read committed; {self._set_local}"
                    await connection.execute(begin, timeout=seconds)
                yield connection
                if self._is_pooled:
                    await connection.execute("commit", timeout=seconds)
        finally:
            self._give_back(connection)  # one whose statement failed is still in the transaction, and goes

    def drop_idle(self) -> None:
        """Forget every connection that is not lent."""
        for connection in self._idle:
            self._open.discard(connection)
            connection.terminate()
        self._idle.clear()

    async def _take(self) -> Connection:
        if not self._is_open:
            raise StoreUnavailable(f"{self.name}: the store is not started, or was stopped")
        try:
            async with asyncio.timeout(limits.STATEMENT_SECONDS):
                await self._slots.acquire()
        except TimeoutError as error:
            text = f"all {self._size_max} connections are in use for {limits.STATEMENT_SECONDS:g} s"
            raise StoreUnavailable(f"{self.name}: {text}; run fewer handlers at once or more processes") from error
        try:
            while self._idle:
                connection = self._idle.pop()
                if not connection.is_closed():
                    return connection
                self._open.discard(connection)
                connection.terminate()
            connection = await self._connect()
            if not self._is_open:
                connection.terminate()
                raise StoreUnavailable(f"{self.name}: the store was stopped")
            self._open.add(connection)
            return connection
        except BaseException:
            self._slots.release()
            raise

    async def _connect(self) -> Connection:
        connection = await connect(self._url, self.name, self._settings, is_pooled=self._is_pooled)
        if self._reads_json:
            try:
                with self.answers(connection):
                    async with asyncio.timeout(limits.POSTGRES_CONNECT_SECONDS):
                        # in a transaction, since a pooler may change the server between two others
                        async with connection.transaction():
                            for kind in ("json", "jsonb"):
                                await connection.set_type_codec(
                                    kind, schema="pg_catalog", encoder=json_text, decoder=json.loads
                                )
            except BaseException:
                connection.terminate()
                raise
        return connection

    def _give_back(self, connection: Connection) -> None:
        self._slots.release()
        if connection.is_closed() or not self._is_open or connection.is_in_transaction():
            self._open.discard(connection)
            connection.terminate()
        else:
            self._idle.append(connection)


class _Answers:
    """Maps what a statement of ours raises; a plain object, since it is on the way of every statement."""

    __slots__ = ("_connection", "_pool")

    def __init__(self, pool: Pool, connection: Connection) -> None:
        self._pool = pool
        self._connection = connection

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            return
        is_trouble = is_own_trouble(error, is_closed=self._connection.is_closed())
        if is_trouble or not isinstance(error, Exception):
            # a cancelled or unanswered statement may still run: nobody may be lent this connection again
            self._connection.terminate()
        if is_trouble:
            self._pool.drop_idle()
            raise unavailable(self._pool.name, error) from error
        if is_table_missing(error):
            raise outbox_missing(self._pool.name) from error


def changed_rows(status: str) -> int:
    """Return the count in a command tag such as `UPDATE 3`; 0 where there is none."""
    count = status.rpartition(" ")[2]
    return int(count) if count.isdigit() else 0
