"""One exclusive transaction on the writer's connection, held by its owner across awaits.

Who keeps it long (`seconds_max`) stops every writer of the file, so it is rolled back then and the owner's next step
raises TransactionTooLong; a statement that runs at that moment is interrupted.

States: open → ended (committed or rolled back by its owner) or lost (too long, stopped, or undone by SQLite itself,
which rolls back on a full disk; whatever ailed the file, nothing after it may commit). Every job looks whether the
transaction is still open: on a connection without one, a statement would commit by itself.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from spoolproof.errors import NotInTransaction, SpoolproofError, StoreUnavailable, TransactionTooLong
from spoolproof.sqlite.errors import translated
from spoolproof.sqlite.writer import Writer

T = TypeVar("T")


class Transaction:
    """Opened by `Database.transaction`. Use it only inside its block."""

    def __init__(self, writer: Writer, seconds_max: float) -> None:
        self._writer = writer
        self._seconds_max = seconds_max
        self._refusal: SpoolproofError | None = None
        self._has_connection = False
        self._timer: asyncio.TimerHandle | None = None

    async def begin(self) -> None:
        """Wait for the connection and open the transaction. Raises StoreUnavailable, StoreBusy."""
        await self._writer.take()
        self._has_connection = True
        try:
            self._check_open()
            with translated(self._writer.name):
                await self._writer.call(self._writer.begin)
            self._check_open()
        except BaseException:
            self._end(NotInTransaction("the transaction was never opened"))
            raise
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._seconds_max, self._too_long)

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return the result of `work`, run on the writer's thread. It must not begin, commit or roll back.

        Raises what the work raised, as it is; StoreUnavailable when the file is the trouble; TransactionTooLong.
        """
        self._check_open()

        def job() -> T:
            self._check_in_transaction()
            result = work(self._writer.connection)
            self._check_in_transaction()
            return result

        return await self._answer(self._writer.call(job))

    async def commit(self) -> None:
        """Commit. Raises StoreUnavailable (the outcome is then unknown), TransactionTooLong, and the driver's error
        for a deferred constraint."""
        self._check_open()
        self._close(NotInTransaction("this transaction has ended"))

        def job() -> None:
            self._check_in_transaction()
            try:
                self._writer.connection.execute("COMMIT")
            except BaseException:
                self._writer.rollback()
                raise
            self._writer.note_commit()

        await self._answer(self._writer.call_last(job))

    async def rollback(self) -> None:
        """Undo everything. Returns when the connection is free again; harmless after the end."""
        ending = self._end(NotInTransaction("this transaction has ended"))
        if ending is not None:
            with suppress(sqlite3.Error):  # the next to begin rolls back first
                await ending

    def lose(self, refusal: SpoolproofError) -> None:
        """Roll back from outside; the owner's next step raises `refusal`."""
        if self._has_connection:
            # a statement running now would keep everybody waiting; without one this does nothing
            self._writer.connection.interrupt()
        self._end(refusal)

    def _too_long(self) -> None:
        self.lose(
            TransactionTooLong(
                f"a transaction was open for {self._seconds_max:g} s and rolled back, because SQLite has one writer; "
                "do slow work (HTTP, files) before or after it"
            )
        )

    def _end(self, refusal: SpoolproofError) -> asyncio.Future[None] | None:
        has_connection = self._has_connection
        self._close(refusal)
        return self._writer.call_last(self._writer.rollback) if has_connection else None

    def _close(self, refusal: SpoolproofError) -> None:
        self._has_connection = False
        self._refusal = self._refusal or refusal
        if self._timer is not None:
            self._timer.cancel()

    async def _answer(self, future: asyncio.Future[T]) -> T:
        try:
            with translated(self._writer.name):
                return await future
        except StoreUnavailable as error:
            if isinstance(self._refusal, TransactionTooLong):  # the statement was interrupted for it
                raise self._refusal from error
            self._refusal = self._refusal or error  # SQLite may have rolled back, and nothing after this may commit
            raise

    def _check_open(self) -> None:
        if self._refusal is not None:
            raise self._refusal

    def _check_in_transaction(self) -> None:
        if not self._writer.connection.in_transaction:
            raise NotInTransaction(
                "the transaction ended before its block did, by a COMMIT or ROLLBACK in it; leave both to the block"
            )
