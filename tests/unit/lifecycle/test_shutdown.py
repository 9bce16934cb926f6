"""How a process ends, case by case, without processes or signals but for one."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from spoolproof.lifecycle.shutdown import Ending, StopSignals, run_until_stopped


class Recorded:
    """A process that notes what is done to it; `hold_start` and `hold_drain` keep it there until set free."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.started = asyncio.Event()
        self.draining = asyncio.Event()
        self.start_gate = asyncio.Event()
        self.drain_gate = asyncio.Event()
        self.start_gate.set()
        self.drain_gate.set()
        self.start_error: Exception | None = None
        self._fatal: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    async def start(self) -> None:
        try:
            await self.start_gate.wait()
        except asyncio.CancelledError:
            self.done.append("start cancelled")
            raise
        if self.start_error is not None:
            raise self.start_error
        self.done.append("started")
        self.started.set()

    def fatal(self) -> asyncio.Future[BaseException]:
        return self._fatal

    async def drain(self) -> None:
        self.draining.set()
        try:
            await self.drain_gate.wait()
        except asyncio.CancelledError:
            self.done.append("drain cut")
            raise
        self.done.append("drained")

    async def stop(self) -> None:
        self.done.append("stopped")


async def ended(process: Recorded, script: Callable[[StopSignals], None], wait_for: asyncio.Event) -> Ending:
    stop = StopSignals()
    running = asyncio.create_task(run_until_stopped(process, stop))
    async with asyncio.timeout(5):
        await wait_for.wait()
        script(stop)
        return await running


async def test_a_signal_drains_then_stops() -> None:
    """A8: what runs is finished first."""
    process = Recorded()

    ending = await ended(process, lambda stop: stop.receive(), process.started)

    assert (Ending.DRAINED, ["started", "drained", "stopped"]) == (ending, process.done)


async def test_a_second_signal_skips_the_wait() -> None:
    """An operator who asks twice means it; what was cut off comes again elsewhere."""
    process = Recorded()
    process.drain_gate.clear()
    stop = StopSignals()
    running = asyncio.create_task(run_until_stopped(process, stop))

    async with asyncio.timeout(5):
        await process.started.wait()
        stop.receive()
        await process.draining.wait()
        stop.receive()
        ending = await running

    assert (Ending.HURRIED, ["started", "drain cut", "stopped"]) == (ending, process.done)


async def test_a_signal_during_the_start_cancels_it() -> None:
    """A start that waits for its database for a minute must not outlive its deploy."""
    process = Recorded()
    process.start_gate.clear()
    began = asyncio.Event()
    began.set()

    ending = await ended(process, lambda stop: stop.receive(), began)

    assert (Ending.CANCELLED, []) == (ending, [step for step in process.done if step != "start cancelled"])


async def test_a_fatal_error_ends_without_a_drain() -> None:
    """Whoever does not trust its own state must not tidy up with it."""
    process = Recorded()

    ending = await ended(process, lambda _: process.fatal().set_result(BaseException("x")), process.started)

    assert (Ending.FATAL, ["started", "stopped"]) == (ending, process.done)


async def test_a_fatal_error_during_the_drain_cuts_it() -> None:
    """The drain may be what met it."""
    process = Recorded()
    process.drain_gate.clear()
    stop = StopSignals()
    running = asyncio.create_task(run_until_stopped(process, stop))

    async with asyncio.timeout(5):
        await process.started.wait()
        stop.receive()
        await process.draining.wait()
        process.fatal().set_result(BaseException("x"))
        ending = await running

    assert (Ending.FATAL, ["started", "drain cut", "stopped"]) == (ending, process.done)


async def test_a_start_that_fails_is_raised_and_stops_nothing_more() -> None:
    """The start tidies up after itself; its error is the caller's to explain."""
    process = Recorded()
    process.start_error = ConnectionError("no database")

    with pytest.raises(ConnectionError, match="no database"):
        await run_until_stopped(process, StopSignals())

    assert [] == process.done


async def test_signals_reach_the_events_and_are_given_back() -> None:
    """After the block the process reacts to signals as before."""
    before = signal.getsignal(signal.SIGTERM)
    stop = StopSignals()

    with stop.installed((signal.SIGTERM,)):
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(5):
            await stop.requested.wait()
        assert not stop.repeated.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(5):
            await stop.repeated.wait()

    assert before == signal.getsignal(signal.SIGTERM)


HANGING = Path(__file__).with_name("hanging.py")


@pytest.mark.crash
@pytest.mark.parametrize(
    ("where", "drain_seconds", "signals", "exit_code"),
    [
        ("drain", 0, 1, 1),
        ("stop", 3600, 1, 1),  # the drain has ended, so its time counts no more
        ("loop", 0, 1, 1),
        ("drain", 3600, 2, 0),  # skipped: nothing hangs any more
        ("loop", 3600, 2, 1),
    ],
)
def test_an_end_that_hangs_is_an_exit_all_the_same(
    where: str, drain_seconds: int, signals: int, exit_code: int
) -> None:
    """A disk that hangs, a blocked event loop: SIGTERM used to do nothing, and only SIGKILL ended the process."""
    process = subprocess.Popen(
        [sys.executable, str(HANGING), where, str(drain_seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "hangs\n"
        for _ in range(signals - 1):
            process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()

    assert (exit_code, exit_code == 1) == (process.returncode, "most recent call first" in errors)
