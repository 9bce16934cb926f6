"""The unit of work a handler or `service.transaction()` gets: the database transaction and what is published in it.

Messages are collected and written with one multi-row INSERT just before COMMIT, so a handler that publishes a hundred
pays one round trip, and its row locks live no longer for it. Before the first savepoint the collected ones are written,
and from then on each at once: what a rollback undoes, the database decides.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import ClassVar, Unpack

from spoolproof import limits
from spoolproof.errors import InvalidMessage, NotInTransaction
from spoolproof.failpoints import failpoint
from spoolproof.message import Outgoing
from spoolproof.outbox.options import PublishOptions
from spoolproof.outbox.publish import Publisher, handling
from spoolproof.outbox.receipt import Place, Receipt, receipt_of
from spoolproof.ports.store import Store
from spoolproof.ports.transaction import OwnTransaction, Row


class Transaction:
    """One open transaction of the service's store. Use it only inside its block, from one task at a time."""

    is_transaction: ClassVar[bool] = True

    def __init__(self, inner: OwnTransaction, publisher: Publisher) -> None:
        self.inner = inner
        self._publisher = publisher
        self._outgoing: list[Outgoing] = []
        self.messages = 0  #: how many were published in it
        self._has_written = False
        self._has_savepoints = False
        self._is_open = True
        inner.before_savepoint(self._before_savepoint)

    @property
    def raw(self) -> object:
        """The driver's own connection: `asyncpg.Connection` on PostgreSQL."""
        return self.inner.raw

    async def execute(self, sql: str, *args: object) -> int:
        """Run one statement with parameters `$1`, `$2` …; returns how many rows it changed."""
        self._check_open()
        return await self.inner.execute(sql, *args)

    async def fetch(self, sql: str, *args: object) -> Sequence[Row]:
        """Run one query with parameters `$1`, `$2` …; returns its rows, each a mapping from column to value."""
        self._check_open()
        return await self.inner.fetch(sql, *args)

    async def fetch_one(self, sql: str, *args: object) -> Row | None:
        """Run one query; returns its first row or None."""
        rows = await self.fetch(sql, *args)
        return rows[0] if rows else None

    def savepoint(self) -> AbstractAsyncContextManager[None]:
        """Open a savepoint: `async with tx.savepoint(): …`. When the block raises, what it did and published is undone
        and the error passes; the transaction goes on. Savepoints may be nested."""
        self._check_open()
        return self.inner.savepoint()

    async def publish(self, payload: object, **options: Unpack[PublishOptions]) -> Receipt:
        """Publish with this transaction: it is delivered if and only if the transaction commits.

        Arguments and errors as `Service.publish`; InvalidMessage beyond 10 000 messages.
        """
        return await self._publisher.keep(self._publisher.outgoing(payload, options), self.collect)

    async def collect(self, outgoing: Outgoing) -> Receipt:
        """Add a message that was built and checked before."""
        self.keep(outgoing)
        if self._has_savepoints:
            await self._write()
        return receipt_of(outgoing, Place.TRANSACTION)

    async def cancel(self, id: str) -> bool:
        """Take back, with this transaction, a message that was scheduled before or in it. See `Service.cancel`."""
        self._check_open()
        await self._write()
        return await self._publisher.cancel(id, self.inner)

    def keep(self, outgoing: Outgoing) -> None:
        """Add a message that belongs to no savepoint."""
        self._check_open()
        _check_count(self._outgoing)
        self._outgoing.append(outgoing)
        self.messages += 1

    async def flush(self) -> bool:
        """Write what was collected and take no more; True if there was anything."""
        self._check_open()
        self._is_open = False
        await self._write()
        return self._has_written

    async def _before_savepoint(self) -> None:
        self._has_savepoints = True
        await self._write()

    async def _write(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        if outgoing:
            self._has_written = True
            await self._publisher.append(outgoing, self.inner)

    def close(self) -> None:
        """Refuse further use."""
        self._is_open = False

    def _check_open(self) -> None:
        if not self._is_open:
            raise NotInTransaction("this transaction has ended; use it only inside its block or handler")


class PendingPublishes:
    """What a handler without a transaction publishes, kept until its inbox row commits."""

    is_transaction: ClassVar[bool] = False

    def __init__(self) -> None:
        self._outgoing: list[Outgoing] = []

    @property
    def messages(self) -> int:
        """How many it holds."""
        return len(self._outgoing)

    async def collect(self, outgoing: Outgoing) -> Receipt:
        """Add a message. Raises InvalidMessage beyond 10 000."""
        _check_count(self._outgoing)
        self._outgoing.append(outgoing)
        return receipt_of(outgoing, Place.TRANSACTION)

    async def cancel(self, id: str) -> bool | None:
        """Take back a message that is still held here; None: whatever was stored stands for itself."""
        kept = [one for one in self._outgoing if one.due is None or one.message.id != id]
        found, self._outgoing = len(kept) < len(self._outgoing), kept
        return True if found else None

    def move_to(self, tx: Transaction) -> None:
        """Hand everything to an open transaction."""
        for outgoing in self._outgoing:
            tx.keep(outgoing)


def _check_count(outgoing: Sequence[Outgoing]) -> None:
    most = limits.MESSAGES_PER_TRANSACTION_MAX
    if len(outgoing) >= most:
        raise InvalidMessage("messages", len(outgoing) + 1, f"at most {most} in one transaction")


@asynccontextmanager
async def unit_of_work(store: Store, publisher: Publisher) -> AsyncIterator[Transaction]:
    """Open a transaction; on leaving the block its messages are written and everything commits, or nothing does."""
    has_messages = False
    async with store.transaction() as inner:
        tx = Transaction(inner, publisher)
        try:
            yield tx
            has_messages = await tx.flush()
        finally:
            tx.close()
        failpoint("outbox.before_commit")
    failpoint("outbox.after_commit")
    if has_messages:
        publisher.wake()


class UnitsOfWork:
    """Implements `ports.units.Units`."""

    def __init__(self, store: Store, publisher: Publisher) -> None:
        self._store = store
        self._publisher = publisher

    def open(self) -> AbstractAsyncContextManager[Transaction]:
        """Open one."""
        return unit_of_work(self._store, self._publisher)

    def running(self) -> Transaction | None:
        """Return that of the handler in whose context this is called."""
        running = handling.get()
        unit = None if running is None or running.is_over else running.unit
        return unit if isinstance(unit, Transaction) else None
