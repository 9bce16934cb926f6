"""How a process ends: signals become events, and one straight line decides what happens to them.

First SIGTERM or SIGINT: drain, then stop. A second one skips what is left of the drain; deliveries cut off by it stay
unsettled and come again elsewhere. A signal while the start still waits for its store cancels the start. A fatal error
ends without a drain, as a crash would: whoever does not trust its own state must not tidy up with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Coroutine, Iterator, Sequence
from enum import StrEnum
from typing import Any, Protocol


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
    """The requests to end that came so far."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self.repeated = asyncio.Event()

    def receive(self) -> None:
        """Note one request."""
        (self.repeated if self.requested.is_set() else self.requested).set()

    @contextlib.contextmanager
    def installed(self, signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGINT)) -> Iterator[None]:
        """Receive these signals of this process while the block runs; on the event loop of the main thread."""
        loop = asyncio.get_running_loop()
        for one in signals:
            loop.add_signal_handler(one, self.receive)
        try:
            yield
        finally:
            for one in signals:
                loop.remove_signal_handler(one)


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
