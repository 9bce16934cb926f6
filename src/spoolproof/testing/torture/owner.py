"""One simulated process: an owner with a lease of its own, which can die or stand still at any call.

A dead one raises at each door it comes to: before a write, a transaction, a call. So nothing it would have done after
its death has an effect, and its open transaction is rolled back, as the database does when a connection is cut. One
that stands still knows nothing of it; it wakes up in the middle of its call, with a lease that is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, NoReturn
from uuid import UUID

from spoolproof.errors import StoreUnavailable
from spoolproof.failpoints import InjectedFault
from spoolproof.ports.sagas import Journal, Sagas, Seen, Write
from spoolproof.ports.store import Store
from spoolproof.ports.transaction import StoreTransaction

owner_here: ContextVar[Owner | None] = ContextVar("owner_here", default=None)


class Owner:
    """id: of its process row. dies_after_write: at its next commit. loses_commit: gets no answer to its next one."""

    def __init__(self, id: UUID) -> None:
        self.id = id
        self.is_dead = False
        self.is_trusted = True
        self.dies_after_write = False
        self.loses_commit = False
        self.task: asyncio.Task[None] | None = None
        self._thaw: asyncio.Event | None = None

    @property
    def is_frozen(self) -> bool:
        """Whether it stands still."""
        return self._thaw is not None and not self._thaw.is_set()

    def die(self) -> NoReturn:
        """End here."""
        self.is_dead = True
        raise InjectedFault("the process was killed")

    def check(self) -> None:
        """Raise if it is dead."""
        if self.is_dead:
            self.die()

    async def freeze(self) -> None:
        """Stand still until `thaw`, whatever runs out meanwhile: it is told at the end."""
        thaw, is_cancelled = asyncio.Event(), False
        self._thaw, self.is_trusted = thaw, False
        while not thaw.is_set():
            try:
                await thaw.wait()
            except asyncio.CancelledError:
                is_cancelled = True
        if is_cancelled:
            raise asyncio.CancelledError

    def thaw(self) -> None:
        """Go on."""
        if self._thaw is not None:
            self._thaw.set()

    def committed(self) -> None:
        """Pass what is asked for at a commit."""
        if self.dies_after_write:
            self.die()
        if self.loses_commit:
            self.loses_commit = False
            raise StoreUnavailable("the store did not answer the commit")


class SagasDoor:
    """The port of sagas as one process reaches it."""

    def __init__(self, inner: Sagas, owner: Owner) -> None:
        self._inner = inner
        self._owner = owner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def journal(self, saga_id: str, tx: StoreTransaction | None = None) -> Journal | None:
        self._owner.check()
        return await self._inner.journal(saga_id, tx)

    async def write(self, write: Write, tx: StoreTransaction | None = None) -> Seen | None:
        self._owner.check()
        seen = await self._inner.write(write, tx)
        if tx is None and self._owner.dies_after_write:
            self._owner.die()
        return seen


class StoreDoor:
    """The store as one process reaches it. opening: awaited before a transaction begins."""

    def __init__(self, inner: Store, owner: Owner, opening: Callable[[Owner], Awaitable[None]]) -> None:
        self._inner = inner
        self._owner = owner
        self._opening = opening

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        self._owner.check()
        await self._opening(self._owner)
        async with self._inner.transaction() as tx:
            yield tx
        self._owner.committed()
