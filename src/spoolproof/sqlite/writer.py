"""The one connection that writes, and whose turn it is.

Two kinds of callers share it. Requests wait in a queue; whatever waits when the connection is free goes into one
transaction, one fsync for all (group commit). Transactions hold the connection across their owner's awaits, one at a
time; while requests and transactions both wait they take turns.

All bookkeeping lives on the event loop, all use of the connection in jobs of the runner, which keep their order. So
nothing here needs a lock, and what frees the connection never depends on the task that used it: that task may be
cancelled at any await.

Never here: telling anybody "done" before COMMIT returned; a job that raises; a wait without a limit.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from spoolproof import limits
from spoolproof.errors import StoreBusy, StoreUnavailable
from spoolproof.sqlite.checkpoint import Checkpoints, WriterLock
from spoolproof.sqlite.errors import is_away, unavailable
from spoolproof.sqlite.threads import Caller, Runner

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
Done = Callable[[Any], None]  #: takes the result, or the exception that stands for it


@dataclass(slots=True)
class Request:
    """One piece of work waiting for a commit, and whom to tell."""

    work: Work[Any]
    done: Done
    body_bytes: int


@dataclass(frozen=True, slots=True)
class Failed:
    """A piece of work raised; its own error, not that of its batch."""

    error: BaseException


class Writer:
    """Made and used on the event loop; the connection and the lock are used in jobs of `runner` only."""

    def __init__(
        self, name: str, connection: sqlite3.Connection, lock: WriterLock, checkpoints: Checkpoints, runner: Runner
    ) -> None:
        self.name = name
        self.connection = connection
        self._lock = lock
        self._checkpoints = checkpoints
        self._runner = runner
        self._caller = Caller(runner)
        self._loop = asyncio.get_running_loop()
        self._requests: deque[Request] = deque()
        self._committing: Sequence[Request] = ()
        self._request_bytes = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_taken = False
        self._is_scheduled = False
        self._transaction_is_next = False
        self._is_closing = False
        self._idle: asyncio.Future[None] | None = None

    # --- requests ----------------------------------------------------------------------------------------------------

    def submit(self, work: Work[Any], done: Done, body_bytes: int) -> None:
        """Queue work; `done` is called on the loop after its COMMIT. Raises StoreBusy, StoreUnavailable."""
        self._check_open()
        if len(self._requests) >= limits.WRITER_REQUESTS_MAX:
            raise StoreBusy(len(self._requests), limits.WRITER_REQUESTS_MAX)
        if self._request_bytes + body_bytes > limits.WRITER_BYTES_MAX and self._requests:
            raise StoreBusy(self._request_bytes, limits.WRITER_BYTES_MAX, "bytes of bodies; slow down and try again")
        self._requests.append(Request(work, done, body_bytes))
        self._request_bytes += body_bytes
        self._schedule()

    def _schedule(self) -> None:
        # not at once: all that the loop is about to submit in this turn belongs into one batch
        if not self._is_taken and not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._next)

    def _next(self) -> None:
        """Give the connection to the next in line."""
        self._is_scheduled = False
        if self._is_taken:
            return
        while self._waiting and self._waiting[0].done():  # cancelled
            self._waiting.popleft()
        if self._waiting and (self._transaction_is_next or not self._requests):
            self._transaction_is_next = False
            self._is_taken = True
            self._waiting.popleft().set_result(None)
        elif self._requests:
            self._transaction_is_next = True
            self._is_taken = True
            batch = [self._requests.popleft() for _ in range(min(len(self._requests), limits.WRITER_BATCH_MAX))]
            self._request_bytes -= sum(request.body_bytes for request in batch)
            self._committing = batch
            self._runner.submit(lambda: self._commit_batch(batch))
        elif self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def free(self) -> None:
        """Take the connection back from whoever has it and go on with the next in line."""
        self._is_taken = False
        self._next()

    def _deliver(self, batch: Sequence[Request], results: Sequence[Any]) -> None:
        if self._committing is not batch:  # they were told that it is not known
            return
        self._committing = ()
        self.free()
        self._tell(batch, results)

    def _tell(self, batch: Sequence[Request], results: Sequence[Any]) -> None:
        for request, result in zip(batch, results, strict=True):
            try:
                request.done(result)
            except Exception as error:
                # one caller's mistake must not leave the others waiting for ever
                self._loop.call_exception_handler({"message": "telling a SQLite request's result", "exception": error})

    # --- in the runner -----------------------------------------------------------------------------------------------

    def _commit_batch(self, batch: Sequence[Request]) -> None:
        try:
            results = self._results_of(batch)
        except BaseException as error:
            results = [unavailable(self.name, error) if is_away(error) else error for _ in batch]
        self._loop.call_soon_threadsafe(self._deliver, batch, results)
        self.rest()

    def _results_of(self, batch: Sequence[Request]) -> list[Any]:
        """Return each request's result or own error, once committed. Raises what failed all of them."""
        results: list[Any] = [None] * len(batch)
        try:
            self.begin()
            for n, request in enumerate(batch):
                results[n] = self._attempt(request.work)
                if isinstance(results[n], Failed):
                    break
            else:
                self.connection.execute("COMMIT")
                self._checkpoints.note_commit()
                return results
            self.rollback()
            self._commit_one_by_one(batch, results, skip=n)
        except BaseException:
            self.rollback()
            raise
        return [result.error if isinstance(result, Failed) else result for result in results]

    def _commit_one_by_one(self, batch: Sequence[Request], results: list[Any], skip: int) -> None:
        """Repeat a batch of which one piece failed, each piece under a savepoint of its own: this costs more per piece
        than it saves while nothing fails. The one that failed has had its try."""
        self.begin()
        for n, request in enumerate(batch):
            if n == skip:
                continue
            self.connection.execute("SAVEPOINT request")
            results[n] = self._attempt(request.work)
            if isinstance(results[n], Failed):
                self.connection.execute("ROLLBACK TO request")
            self.connection.execute("RELEASE request")
        self.connection.execute("COMMIT")
        self._checkpoints.note_commit()

    def _attempt(self, work: Work[Any]) -> Any:
        """Return the work's result, or Failed with its error. Raises when the file is the trouble: all are in it."""
        try:
            result = work(self.connection)
        except BaseException as error:
            if is_away(error):
                raise
            result = Failed(error)
        if not self.connection.in_transaction:
            reason = str(result.error) if isinstance(result, Failed) else "the work itself ended it"
            raise StoreUnavailable(f"sqlite:///{self.name}: the transaction is gone: {reason}")
        return result

    def begin(self) -> None:
        """Open a write transaction, under the lock."""
        self.rollback()  # of one whose own rollback failed
        self._lock.acquire()
        self.connection.execute("BEGIN IMMEDIATE")

    def rollback(self) -> None:
        """Undo what is open, if anything is."""
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    def note_commit(self) -> None:
        """Remember that the log has grown."""
        self._checkpoints.note_commit()

    def rest(self) -> None:
        """After a transaction: checkpoint when due, then let other processes write."""
        try:
            if self._lock.is_held and not self.connection.in_transaction:
                self._checkpoints.run_if_due()
        except sqlite3.Error:
            return  # nobody is waiting for it; the next commit meets the same trouble and has somebody to tell
        finally:
            self._lock.release()

    def _checkpoint_when_idle(self) -> None:
        with suppress(StoreUnavailable):  # as above
            if not self.connection.in_transaction and self._lock.try_acquire():
                self.rest()

    # --- transactions and other jobs ---------------------------------------------------------------------------------

    async def take(self) -> None:
        """Wait for the connection; whoever returns from here must see to it that `free` is called."""
        self._check_open()
        if len(self._waiting) >= limits.WRITER_REQUESTS_MAX:
            raise StoreBusy(len(self._waiting), limits.WRITER_REQUESTS_MAX)
        turn = self._loop.create_future()
        self._waiting.append(turn)
        self._schedule()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.free()  # it came in the same moment
            raise

    def call(self, job: Callable[[], T]) -> asyncio.Future[T]:
        """Run a job of whoever has the connection, or one that minds nobody; the future has its result or error."""
        return self._caller.call(job)

    def call_last(self, job: Callable[[], T]) -> asyncio.Future[T]:
        """Run the job that ends a transaction; the connection is free after it, whatever comes of job or caller."""
        return self._caller.call(job, then=self.free, after=self.rest)

    def checkpoint_soon(self) -> None:
        """Checkpoint if due and nobody else is writing; the tick for a service that writes little."""
        self._runner.submit(self._checkpoint_when_idle)

    # --- end ---------------------------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._is_closing:
            raise self._stopped()

    def _stopped(self) -> StoreUnavailable:
        return StoreUnavailable(f"sqlite:///{self.name} is stopped")

    async def close(self) -> None:
        """Refuse new callers and those waiting for a transaction; return when the requests in the queue have committed
        and nobody has the connection."""
        self._is_closing = True
        for turn in self._waiting:
            if not turn.done():
                turn.set_exception(self._stopped())
        self._waiting.clear()
        if self._requests or self._is_taken:
            self._idle = self._loop.create_future()
            await self._idle

    def give_up(self) -> None:
        """Tell everybody who waits that there will be no answer: a job hangs. Whether it commits is not known."""
        error = StoreUnavailable(f"sqlite:///{self.name} does not answer; whether it was stored is not known")
        batch = [*self._committing, *self._requests]
        self._committing = ()
        self._requests.clear()
        self._caller.give_up(error)
        self._tell(batch, [error] * len(batch))
