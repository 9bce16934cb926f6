"""How a process ends: signals become events, and one straight line decides what happens to them.

First SIGTERM or SIGINT: drain, then stop. A second one skips what is left of the drain; deliveries cut off by it stay
unsettled and come again elsewhere. A signal while the start still waits for its store cancels the start. A fatal error
ends without a drain, as a crash would: whoever does not trust its own state must not tidy up with it.

Every end has a limit. What hangs then (a disk, a blocked event loop, somebody's thread) shows in a traceback of every
thread, and the process exits with 1. The limit is kept by a thread of `faulthandler`, which needs nothing of ours and
not even the interpreter.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import signal
from collections.abc import Coroutine, Iterator, Sequence
from enum import StrEnum
from typing import Any, Final, Protocol

from spoolproof import limits

_STDERR: Final = 2  #: the descriptor, which no capture or redirection in the process can take away


class Ending(StrEnum):
    """drained: everything that ran has finished; hurried: the wait was skipped; cancelled: it had not started; fatal:
    something broke that nothing expects."""

    DRAINED = "drained"
    HURRIED = "hurried"
    CANCELLED = "cancelled"
    FATAL = "fatal"


class Process(Protocol):
    """What is to be run and ended."""

    async def start(self) -> None:
        """Bring everything up; cancelling it takes everything down again."""

    def fatal(self) -> asyncio.Future[BaseException]:
        """Return what is set when the started process cannot go on."""

    async def drain(self) -> None:
        """Finish what runs, take nothing new."""

    async def stop(self) -> None:
        """Close everything."""


class StopSignals:
    """The requests to end that came so far.

    drain_seconds: end this process by force when it takes longer than this and `exit_seconds`; None: never.
    """

    def __init__(self, *, drain_seconds: float | None = None, exit_seconds: float = limits.EXIT_SECONDS) -> None:
        self.requested = asyncio.Event()
        self.repeated = asyncio.Event()
        self._drain_seconds = drain_seconds
        self._exit_seconds = exit_seconds
        self._heard = 0

    def receive(self) -> None:
        """Note one request."""
        (self.repeated if self.requested.is_set() else self.requested).set()

    def limit_close(self) -> None:
        """What is left is to close everything; a second request has set a shorter limit already."""
        if self._heard < 2:
            self._limit(self._exit_seconds)

    def _limit(self, seconds: float) -> None:
        if self._drain_seconds is not None:
            faulthandler.dump_traceback_later(seconds, exit=True, file=_STDERR)

    @contextlib.contextmanager
    def installed(self, signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGINT)) -> Iterator[None]:
        """Receive these signals of this process while the block runs; on the event loop of the main thread."""
        loop = asyncio.get_running_loop()

        def hear(*_: object) -> None:
            # not by the loop's own handlers: a loop that is blocked would not hear the signal that limits its end
            self._heard += 1
            if self._heard == 1:
                self._limit((self._drain_seconds or 0) + self._exit_seconds)
            else:
                self._limit(min(self._exit_seconds, limits.CLOSE_SECONDS))
            loop.call_soon_threadsafe(self.receive)

        before = {one: signal.signal(one, hear) for one in signals}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)


async def run_until_stopped(process: Process, stop: StopSignals) -> Ending:
    """Start, run and end a process. Raises what its start or its drain raises."""
    if not await _unless(process.start(), stop.requested.wait()):
        return Ending.CANCELLED
    try:
        async with _Watch(process.fatal()) as fatal:
            if not await _unless(stop.requested.wait(), fatal.wait()):
                return Ending.FATAL
            if await _unless(process.drain(), _either(stop.repeated.wait(), fatal.wait())):
                return Ending.DRAINED
            return Ending.FATAL if fatal.is_set() else Ending.HURRIED
    finally:
        stop.limit_close()
        await process.stop()


class _Watch:
    """A future as an event, so that waiting for it twice and giving up on it is harmless."""

    def __init__(self, future: asyncio.Future[BaseException]) -> None:
        self._future = future
        self._event = asyncio.Event()

    async def __aenter__(self) -> asyncio.Event:
        self._future.add_done_callback(self._set)
        return self._event

    async def __aexit__(self, *_: object) -> None:
        self._future.remove_done_callback(self._set)

    def _set(self, _: asyncio.Future[BaseException]) -> None:
        self._event.set()


async def _unless(work: Coroutine[Any, Any, Any], interruption: Coroutine[Any, Any, Any]) -> bool:
    """Run `work` to its end and return True; or cancel it, wait until it has tidied up, and return False.

    Raises what `work` raises. Work that has ended when the interruption comes has won.
    """
    working, interrupting = asyncio.create_task(work), asyncio.create_task(interruption)
    try:
        await asyncio.wait([working, interrupting], return_when=asyncio.FIRST_COMPLETED)
        has_ended = working.done()
        if has_ended:
            working.result()
        return has_ended
    finally:
        for task in (working, interrupting):
            task.cancel()
        await asyncio.gather(working, interrupting, return_exceptions=True)


async def _either(first: Coroutine[Any, Any, Any], second: Coroutine[Any, Any, Any]) -> None:
    """Return when one of the two has ended; the other is cancelled."""
    await _unless(first, second)
