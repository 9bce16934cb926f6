"""The only threads: one per connection, taking jobs in order.

Everything else about the writer and the reader is written against `Runner`, so a simulator can put one in its place
that runs each job inline.

A job that raises is logged, and the next one runs: a thread that ended would leave everybody waiting for ever. A job
that never returns (a disk that does not answer) cannot be ended by anybody; whoever closes gives up on it after a
while, and everybody who waits is told.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeVar

from spoolproof.sqlite.events import JobFailed
from spoolproof.telemetry.events import emit

T = TypeVar("T")

_LAST_JOB_SECONDS = 0.5  #: closing comes after the last job, or after waiting for it in vain


class Runner(Protocol):
    """Runs jobs one after the other, in the order given. A job should not raise."""

    def submit(self, job: Callable[[], None]) -> None:
        """Run `job` after those given before. Returns at once."""

    def pause(self, seconds: float) -> None:
        """Wait; called from inside a job only."""

    def close(self) -> None:
        """Take no more jobs; returns when the last has run, or when it hangs."""


class ThreadRunner:
    """A thread of its own. name: how the thread shows in dumps and leak checks."""

    def __init__(self, name: str) -> None:
        """Raises RuntimeError when there can be no more threads."""
        # unbounded, because whoever submits is bounded: requests and reads are counted before they come here
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._never = threading.Event()
        # a process that dies without `close` must not hang on it; SQLite takes a death at any point
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], None]) -> None:
        self._jobs.put(job)

    def pause(self, seconds: float) -> None:
        self._never.wait(seconds)

    def close(self) -> None:
        self._jobs.put(None)
        self._thread.join(_LAST_JOB_SECONDS)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except BaseException as error:
                emit(JobFailed(thread=self._thread.name), error=error)
            del job  # or the last one would keep what it refers to alive until the next


class Caller:
    """Runs jobs of the event loop in a runner, and knows who waits for one."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._waiting: set[asyncio.Future[Any]] = set()  # bounded by who may call

    def call(
        self,
        job: Callable[[], T],
        *,
        then: Callable[[], None] | None = None,
        after: Callable[[], None] | None = None,
    ) -> asyncio.Future[T]:
        """Run `job` in the runner; the future has its result or its error, as it is. Called on the event loop.

        then: called on the loop first, whatever came of the job and of whoever awaits the future. after: called in the
        runner when the result is on its way.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._waiting.add(future)

        def settle(outcome: Callable[[], None]) -> None:
            self._waiting.discard(future)
            if then is not None:
                then()
            if not future.done():  # whoever waited may have been cancelled
                outcome()

        def run() -> None:
            try:
                outcome: Callable[[], None] = partial(future.set_result, job())
            except BaseException as error:
                outcome = partial(future.set_exception, error)
            loop.call_soon_threadsafe(settle, outcome)
            if after is not None:
                after()

        self._runner.submit(run)
        return future

    def give_up(self, error: BaseException) -> None:
        """Let everybody who waits have `error`: the job that runs does not return."""
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_exception(error)
