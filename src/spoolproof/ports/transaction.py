"""A database transaction, ours or the user's, that outbox and inbox rows are written through.

SQL is the store's own dialect; parameters are `$1`, `$2` … on every store. Nothing here commits: whoever opened the
transaction ends it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
Row = Mapping[str, Any]


class StoreTransaction(Protocol):
    """One open transaction of the store's database."""

    @property
    def raw(self) -> object:
        """The driver's own connection or session, for what this Protocol does not offer."""

    async def execute(self, sql: str, *args: object) -> int:
        """Run one statement; returns how many rows it changed. Raises the driver's error as it is."""

    async def fetch(self, sql: str, *args: object) -> Sequence[Row]:
        """Run one query; returns its rows as mappings from column name to value, perhaps none."""


class OwnTransaction(StoreTransaction, Protocol):
    """A transaction that the store opened and will end.

    What its user keeps in memory until the COMMIT must be written before a savepoint is set: from then on only the
    database knows what is undone.
    """

    def before_savepoint(self, write: Callable[[], Awaitable[None]]) -> None:
        """Have `write` awaited before any statement that sets a savepoint, whichever way it is sent."""

    def session(self, kind: type[T]) -> AbstractAsyncContextManager[T]:
        """Give a SQLAlchemy AsyncSession of this class on this transaction, flushed when the block ends. Raises
        MissingExtra, and NotImplementedError where there is no SQL."""

    def savepoint(self) -> AbstractAsyncContextManager[None]:
        """Open a savepoint: kept when the block ends, rolled back when it raises. They may be nested."""


OpenTransaction = Callable[[], AbstractAsyncContextManager[OwnTransaction]]
"""Opens one; `Store.transaction`."""
