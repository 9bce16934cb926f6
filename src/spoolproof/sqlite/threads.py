"""The only threads: one per connection, taking jobs in order.

Everything else about the writer and the reader is written against `Runner`, so a simulator can put one in its place
that runs each job inline.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeVar

T = TypeVar("T")


class Runner(Protocol):
    """Runs jobs one after the other, in the order given. A job must not raise."""

    def submit(self, job: Callable[[], None]) -> None:
        """Run `job` after those given before. Returns at once."""

    def pause(self, seconds: float) -> None:
        """Wait; called from inside a job only."""

    def close(self) -> None:
        """Take no more jobs; returns when the last has run."""


class ThreadRunner:
    """A thread of its own. name: how the thread shows in dumps and leak checks."""

    def __init__(self, name: str) -> None:
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
        self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job  # or the last one would keep what it refers to alive until the next


def call(
    runner: Runner,
    job: Callable[[], T],
    *,
    then: Callable[[], None] | None = None,
    after: Callable[[], None] | None = None,
) -> asyncio.Future[T]:
    """Run `job` in the runner; the future has its result or its error, as it is. Called on the event loop.

    then: called on the loop first, whatever came of the job and of whoever awaits the future. after: called in the
    runner when the result is on its way; must not raise.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(outcome: Callable[[], None]) -> None:
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

    runner.submit(run)
    return future
