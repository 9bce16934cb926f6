"""The file as its users see it: writes in groups, reads beside them, transactions held across awaits.

One writer and one reader, each a connection on a thread of its own. Readers see what is committed and never wait for
the writer. Several processes, and several Databases of one process, may have the same file open.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from spoolproof import limits
from spoolproof.clock import Clock
from spoolproof.errors import SpoolproofError, StoreBusy, StoreUnavailable
from spoolproof.forks import let_go_in_child
from spoolproof.sqlite.checkpoint import Checkpoints, WriterLock
from spoolproof.sqlite.connection import check_version, connect, data_version, make_directory
from spoolproof.sqlite.errors import translated
from spoolproof.sqlite.events import DoesNotAnswer
from spoolproof.sqlite.steady import OnReboot, give_steady
from spoolproof.sqlite.threads import Caller, Runner, ThreadRunner
from spoolproof.sqlite.transaction import Transaction
from spoolproof.sqlite.writer import Done, Work, Writer
from spoolproof.telemetry.events import emit

T = TypeVar("T")


class Database:
    """One SQLite file. Used from one event loop."""

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock,
        transaction_seconds_max: float = limits.USER_TRANSACTION_SECONDS_MAX,
        close_seconds: float = limits.DATABASE_CLOSE_SECONDS,
        on_reboot: OnReboot | None = None,
        make_runner: Callable[[str], Runner] = ThreadRunner,
    ) -> None:
        """on_reboot: what to do to the file when the machine was started anew, see `steady`."""
        self.path = path
        self._transaction_seconds_max = transaction_seconds_max
        self._close_seconds = close_seconds
        self._clock = clock
        self._on_reboot = on_reboot
        self._make_runner = make_runner
        self._parts: _Parts | None = None
        self._transactions: set[Transaction] = set()

    # --- start and stop ----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the file, made with its directory if need be. Harmless when started.

        Raises StoreUnavailable, SettingsError for a SQLite that is too old.
        """
        if self._parts is not None:
            return
        check_version()
        try:
            parts = _Parts(self.path, self._clock, self._on_reboot, self._make_runner)
        except RuntimeError as error:  # no more threads
            raise StoreUnavailable(f"sqlite:///{self.path}: {error}") from error
        try:
            with translated(str(self.path)):
                await parts.open()
        except BaseException as error:
            await parts.close(self._close_seconds)
            if isinstance(error, OSError):
                raise StoreUnavailable(f"sqlite:///{self.path}: {error}") from error
            raise
        self._parts = parts

    async def stop(self) -> None:
        """Commit the requests that wait, roll back open transactions, close everything. Idempotent, safe before start.

        Whoever comes later gets StoreUnavailable, and so does who still waits after `close_seconds`: the file hangs.
        """
        parts, self._parts = self._parts, None
        if parts is None or parts.is_inherited:
            return
        stopped = self._stopped()
        for tx in list(self._transactions):
            tx.lose(stopped)
        await parts.close(self._close_seconds)

    def _open_parts(self) -> _Parts:
        if self._parts is None:
            raise self._stopped()
        if self._parts.is_inherited:
            raise StoreUnavailable(
                f"sqlite:///{self.path} was opened by the parent of process {os.getpid()}, which was forked; SQLite "
                "forbids to use it here: start a service of its own in the child"
            )
        return self._parts

    def _stopped(self) -> SpoolproofError:
        return StoreUnavailable(f"sqlite:///{self.path} is not started, or stopped")

    # --- use ---------------------------------------------------------------------------------------------------------

    async def write(self, work: Work[T], *, body_bytes: int = 0) -> T:
        """Return the result of `work` once it has committed, together with whatever else was waiting.

        work: see the package's docstring; may run twice. body_bytes: what it keeps in memory while it waits.
        Raises the work's own error (its neighbours commit), StoreUnavailable (nothing of it is known to be stored),
        StoreBusy before anything is queued.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._open_parts().writer.submit(work, partial(_settle, future), body_bytes)
        return await future

    def write_soon(self, work: Work[Any], done: Done, *, body_bytes: int = 0) -> None:
        """As `write`, without a future: `done` is called on the loop with the result or the exception.

        The calls of one batch come together. `done` must not raise. Raises StoreBusy, StoreUnavailable at once.
        """
        self._open_parts().writer.submit(work, done, body_bytes)

    async def read(self, work: Work[T]) -> T:
        """Return the result of `work`, run on a connection that cannot write, on what is committed by now.

        Raises the work's own error, StoreUnavailable, StoreBusy.
        """
        return await self._open_parts().read(work)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Hold the writer: committed when the block ends, rolled back when it raises or is cancelled.

        One at a time. Raises StoreUnavailable when it cannot be opened or committed (the outcome of the COMMIT is then
        unknown), TransactionTooLong at the first step after `transaction_seconds_max`.
        """
        tx = Transaction(self._open_parts().writer, self._transaction_seconds_max)
        self._transactions.add(tx)
        try:
            await tx.begin()
            yield tx
            await tx.commit()
        except BaseException:
            await tx.rollback()
            raise
        finally:
            self._transactions.discard(tx)

    async def data_version(self) -> int:
        """Return a number that changes when a connection other than our writer has committed to the file.

        Raises StoreUnavailable.
        """
        return await self._open_parts().data_version()


class _Parts:
    """What is open between start and stop."""

    writer: Writer
    _reader: sqlite3.Connection

    def __init__(
        self, path: Path, clock: Clock, on_reboot: OnReboot | None, make_runner: Callable[[str], Runner]
    ) -> None:
        self._path = path
        self._clock = clock
        self._on_reboot = on_reboot
        self._loop = asyncio.get_running_loop()
        self._writing = make_runner(f"spoolproof-sqlite-writer-{path.name}")
        try:
            self._reading = make_runner(f"spoolproof-sqlite-reader-{path.name}")
        except BaseException:
            self._writing.close()
            raise
        self._reader_calls = Caller(self._reading)
        self._writer_calls = Caller(self._writing)
        self._closing = ExitStack()  # filled and emptied in runners
        self._timer: asyncio.TimerHandle | None = None
        self._reads = 0
        self.is_inherited = False
        let_go_in_child(self)

    def let_go(self) -> None:
        """In a child: the connections belong to the parent, and so do the threads, which do not run here.

        Closing them here might roll back or move what the parent is writing, and Python closes what nobody refers to:
        so there is one reference that nobody ever gives back.
        """
        self.is_inherited = True
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self))

    async def open(self) -> None:
        """Open both connections and start the checkpoint's tick."""
        connection, lock = await self._writer_calls.call(self._open_writer)
        checkpoints = Checkpoints(self._path, connection, self._clock)
        self.writer = Writer(str(self._path), connection, lock, checkpoints, self._writing)
        self._reader = await self._reader_calls.call(self._open_reader)
        self._tick()

    def _open_writer(self) -> tuple[sqlite3.Connection, WriterLock]:
        make_directory(self._path.parent)
        lock = WriterLock(self._path, self._writing)
        self._closing.callback(lock.close)
        lock.acquire()  # of two processes that make the file, one switches it to WAL and the other finds it so
        try:
            connection = connect(self._path)
            self._closing.callback(connection.close)
            give_steady(connection, self._clock, self._on_reboot)
        finally:
            lock.release()
        return connection, lock

    def _open_reader(self) -> sqlite3.Connection:
        connection = connect(self._path)
        self._closing.callback(connection.close)
        give_steady(connection, self._clock)
        connection.execute("PRAGMA query_only = ON")
        return connection

    def _tick(self) -> None:
        self._timer = self._loop.call_later(limits.CHECKPOINT_SECONDS, self._tick)
        self.writer.checkpoint_soon()

    async def read(self, work: Work[T]) -> T:
        if self._reads >= limits.WRITER_REQUESTS_MAX:
            raise StoreBusy(self._reads, limits.WRITER_REQUESTS_MAX, "reads; slow down and try again")
        self._reads += 1
        try:
            with translated(str(self._path)):
                return await self._reader_calls.call(lambda: work(self._reader))
        finally:
            self._reads -= 1

    async def data_version(self) -> int:
        with translated(str(self._path)):
            # on the writer's connection, so that our own commits do not count
            return await self.writer.call(lambda: data_version(self.writer.connection))

    async def close(self, seconds: float) -> None:
        """Let the queue empty, then close whatever was opened and end both threads; or give up on a file that hangs."""
        if self._timer is not None:
            self._timer.cancel()
        try:
            async with asyncio.timeout(seconds):
                if hasattr(self, "writer"):
                    await self.writer.close()
                # when the reads before it are through; both connections are closed from one thread then
                await self._reader_calls.call(lambda: None)
                await self._writer_calls.call(self._closing.close)
        except TimeoutError:
            emit(DoesNotAnswer(path=str(self._path)))
            self._writing.submit(self._closing.close)  # should it answer yet
            self._reader_calls.give_up(StoreUnavailable(f"sqlite:///{self._path} does not answer"))
            if hasattr(self, "writer"):
                self.writer.give_up()
        finally:
            self._reading.close()
            self._writing.close()


def _settle(future: asyncio.Future[Any], result: Any) -> None:
    if future.done():  # whoever waited was cancelled
        return
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)
