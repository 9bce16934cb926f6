"""A transaction of the memory store: a copy of its tables, which takes their place at the COMMIT."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from spoolproof.errors import NotInTransaction, UnsupportedTransaction, WrongDatabase
from spoolproof.ports.transaction import Row
from spoolproof.stores.memory.tables import Tables

if TYPE_CHECKING:
    from spoolproof.stores.memory.store import MemoryStore


T = TypeVar("T")


class MemoryTransaction:
    """One open transaction; `raw` is the dict for business rows."""

    def __init__(self, store: MemoryStore, tables: Tables) -> None:
        self.store = store
        self.is_open = True
        self._tables = tables
        self._before_savepoint: Callable[[], Awaitable[None]] | None = None

    @property
    def tables(self) -> Tables:
        self.check_open()
        return self._tables

    def check_open(self) -> None:
        if not self.is_open:
            raise NotInTransaction("this transaction of the memory store has ended; open a new one")

    def table(self, name: str) -> dict[Any, Any]:
        """Return a table's rows by key, as this transaction sees and may change them."""
        return self.tables.table(name)

    @property
    def raw(self) -> dict[Any, Any]:
        return self.tables.business

    async def execute(self, sql: str, *args: object) -> int:
        raise _no_sql(sql)

    async def fetch(self, sql: str, *args: object) -> Sequence[Row]:
        raise _no_sql(sql)

    def before_savepoint(self, write: Callable[[], Awaitable[None]]) -> None:
        self._before_savepoint = write

    def session(self, kind: type[T]) -> AbstractAsyncContextManager[T]:
        raise _no_sql(f"what a {kind.__name__} sends")

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        if self._before_savepoint is not None:
            await self._before_savepoint()
        kept = self.tables.copied()
        try:
            yield
        except BaseException:
            business = self.tables.business  # the same dict: a handler may have kept `tx.raw`
            business.clear()
            business.update(kept.business)
            self._tables = replace(kept, business=business)
            raise


def own(store: MemoryStore, handle: object) -> MemoryTransaction:
    """Return the handle if it is an open transaction of `store`, as what it is."""
    if not isinstance(handle, MemoryTransaction):
        raise UnsupportedTransaction(handle, ["spoolproof.stores.memory.MemoryTransaction"])
    if handle.store is not store:
        raise WrongDatabase(f"the transaction belongs to {handle.store.name}, the outbox to {store.name}")
    handle.check_open()
    return handle


def _no_sql(sql: str) -> NotImplementedError:
    return NotImplementedError(
        f"the memory store has no SQL, so it cannot run {sql[:80]!r}; keep business rows in tx.raw (a dict), "
        "or test with SPOOLPROOF_STORE=sqlite:///PATH"
    )
