"""A transaction on an asyncpg connection, ours or the user's.

The user's own errors pass as they are. A connection that ends under a statement is StoreUnavailable: the message that
was being handled is not to blame.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

from spoolproof import limits
from spoolproof.ports.transaction import Row
from spoolproof.stores.orm import Kept, session_on
from spoolproof.stores.postgres.connections import BeforeSavepoint, Connection, changed_rows
from spoolproof.stores.postgres.faults import is_away, is_own_trouble, is_table_missing, outbox_missing, unavailable
from spoolproof.stores.savepoints import savepoint
from spoolproof.stores.values import NotJson, checked

T = TypeVar("T")


class PostgresTransaction:
    """Implements `StoreTransaction`, and on a connection of ours `OwnTransaction`."""

    __slots__ = ("_connection", "_name", "has_failed", "is_exposed")

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection = connection
        self._name = name
        self.has_failed = False  #: a statement failed; the server may have aborted the transaction
        self.is_exposed = False  #: the user ran statements; session settings may have changed

    @property
    def raw(self) -> object:
        # from here on anything may be done to it unseen
        self.is_exposed = self.has_failed = True
        return self._connection

    async def execute(self, sql: str, *args: object) -> int:
        self.is_exposed = True
        try:
            return changed_rows(await self._connection.execute(sql, *checked(args)))
        except BaseException as error:
            self._failed(error)
            raise

    async def fetch(self, sql: str, *args: object) -> Sequence[Row]:
        self.is_exposed = True
        try:
            rows: Sequence[Row] = await self._connection.fetch(sql, *checked(args))
            return rows
        except BaseException as error:
            self._failed(error)
            raise

    async def write(self, sql: str, *args: object) -> int:
        """Run a statement of ours, within STATEMENT_SECONDS. Raises StoreUnavailable, OutboxMissing."""
        try:
            return changed_rows(await self._connection.execute(sql, *args, timeout=limits.STATEMENT_SECONDS))
        except Exception as error:
            self.has_failed = True
            if is_own_trouble(error, is_closed=self._connection.is_closed()):
                raise unavailable(self._name, error) from error
            if is_table_missing(error):
                raise outbox_missing(self._name) from error
            raise

    def before_savepoint(self, write: BeforeSavepoint) -> None:
        self._connection.before_savepoint = write

    def session(self, kind: type[T]) -> AbstractAsyncContextManager[T]:
        self.is_exposed = self.has_failed = True
        return session_on(self._name, "postgresql+asyncpg://", kind, Kept(self._connection))

    def savepoint(self) -> AbstractAsyncContextManager[None]:
        return savepoint(self)

    def _failed(self, error: BaseException) -> None:
        self.has_failed = True
        if isinstance(error.__cause__, NotJson):  # asyncpg's error around that of our codec
            raise error.__cause__ from error
        if is_away(error, is_closed=self._connection.is_closed()):
            raise unavailable(self._name, error) from error
