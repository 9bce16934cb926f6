"""A transaction of the memory store: a copy of its State, which takes the State's place at the COMMIT."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from spoolproof.errors import NotInTransaction
from spoolproof.ports.transaction import Row

if TYPE_CHECKING:
    from spoolproof.stores.memory import MemoryState, MemoryStore


class MemoryTransaction:
    """One open transaction; `raw` is the dict for business rows."""

    def __init__(self, store: MemoryStore, state: MemoryState) -> None:
        self.store = store
        self.is_open = True
        self._state = state
        self._before_savepoint: Callable[[], Awaitable[None]] | None = None

    @property
    def state(self) -> MemoryState:
        if not self.is_open:
            raise NotInTransaction("this transaction of the memory store has ended; open a new one")
        return self._state

    @property
    def raw(self) -> dict[Any, Any]:
        return self.state.business

    async def execute(self, sql: str, *args: object) -> int:
        raise _no_sql(sql)

    async def fetch(self, sql: str, *args: object) -> Sequence[Row]:
        raise _no_sql(sql)

    def before_savepoint(self, write: Callable[[], Awaitable[None]]) -> None:
        self._before_savepoint = write

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        if self._before_savepoint is not None:
            await self._before_savepoint()
        kept = self.state.copied()
        try:
            yield
        except BaseException:
            business = self.state.business  # the same dict: a handler may have kept `tx.raw`
            business.clear()
            business.update(kept.business)
            self._state = replace(kept, business=business)
            raise


def _no_sql(sql: str) -> NotImplementedError:
    return NotImplementedError(
        f"the memory store has no SQL, so it cannot run {sql[:80]!r}; keep business rows in tx.raw (a dict), "
        "or test with SPOOLPROOF_STORE=sqlite:///PATH"
    )
