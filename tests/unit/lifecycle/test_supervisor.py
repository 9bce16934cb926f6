"""The supervisor: turns go on after failures, drains are bounded, nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from spoolproof import limits
from spoolproof.backoff import system_random
from spoolproof.clock import SystemClock
from spoolproof.errors import StoreBusy, StoreUnavailable
from spoolproof.failpoints import InjectedFault
from spoolproof.lifecycle.supervisor import Supervisor
from spoolproof.testing.clock import ManualClock


class Probe:
    """A loop that notes its calls; `turn` is what one turn does."""

    stall_seconds: float | None = 30.0

    def __init__(self, turn: Callable[[int], object] | None = None, name: str = "probe") -> None:
        self.name = name
        self.calls: list[str] = []
        self.turns = 0
        self._turn = turn

    async def start(self) -> None:
        self.calls.append("start")

    async def run_once(self) -> None:
        self.turns += 1
        if self._turn is not None:
            self._turn(self.turns)
        await asyncio.sleep(0)

    async def drain(self) -> None:
        self.calls.append("drain")

    async def stop(self) -> None:
        self.calls.append("stop")


class Hanging(Probe):
    """A loop whose turn never ends by itself."""

    async def run_once(self) -> None:
        self.turns += 1
        await asyncio.Event().wait()


@pytest.fixture
async def supervisor() -> AsyncIterator[Supervisor]:
    made = Supervisor(SystemClock(), system_random())
    made.fatal = asyncio.get_running_loop().create_future()
    yield made
    await made.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("error", [RuntimeError("a bug"), StoreUnavailable("planted")])
async def test_a_loop_goes_on_after_its_turns_fail(supervisor: Supervisor, error: Exception) -> None:
    """A relay that dies of one bad second would strand the outbox (L20)."""

    def fail_three_times(turn: int) -> None:
        if turn <= 3:
            raise error

    loop = Probe(fail_three_times)
    await supervisor.run(loop)

    await until(lambda: loop.turns > 4)

    assert ["start"] == loop.calls


async def test_a_drain_cuts_off_a_turn_at_its_limit_and_drains_the_loop(supervisor: Supervisor) -> None:
    """V8: one hanging handler must not hold the whole exit."""
    loop = Hanging()
    await supervisor.run(loop)
    await until(lambda: loop.turns == 1)

    async with asyncio.timeout(2):
        await supervisor.drain([loop], 0.01)

    assert ["start", "drain"] == loop.calls
    assert 1 == loop.turns


class Stubborn(Probe):
    """A loop whose drain hangs, or fails with `error`."""

    error: Exception | None = None

    async def drain(self) -> None:
        await super().drain()
        if self.error is not None:
            raise self.error
        await asyncio.Event().wait()


async def test_a_drain_that_hangs_or_fails_keeps_no_other_loop_from_its_own(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A membership whose file does not answer must not hold the exit, nor keep the leases of others from going back."""
    monkeypatch.setattr(limits, "LOOP_DRAIN_SECONDS", 0.01)
    failing, hanging, last = Stubborn(), Stubborn(), Probe()
    failing.error = OSError("Input/output error")

    async with asyncio.timeout(5):
        await supervisor.drain([failing, hanging, last], 0)  # type: ignore[list-item]

    assert [["drain"]] * 3 == [loop.calls for loop in (failing, hanging, last)]


async def test_a_task_that_does_not_end_when_told_to_holds_up_no_exit(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler may swallow its cancellation, or roll back on a disk that hangs."""
    monkeypatch.setattr(limits, "CLOSE_SECONDS", 0.01)
    end = asyncio.Event()

    async def swallow() -> None:
        while not end.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await end.wait()

    task = supervisor.spawn(swallow(), "stubborn")
    await asyncio.sleep(0)

    async with asyncio.timeout(5):
        await supervisor.stop()

    assert not task.done()
    end.set()
    await task


async def test_stop_is_idempotent_and_leaves_no_task(supervisor: Supervisor) -> None:
    """V7."""
    loops = [Hanging(name="a"), Probe(name="b")]
    for loop in loops:
        await supervisor.run(loop)
    background = supervisor.spawn(_for_ever(), "background")

    await supervisor.stop()
    await supervisor.stop()

    assert background.cancelled()
    assert [["start", "stop"], ["start", "stop"]] == [loop.calls for loop in loops]


async def _for_ever() -> None:
    await asyncio.Event().wait()


async def test_an_injected_fault_is_fatal_and_nothing_catches_it(supervisor: Supervisor) -> None:
    """A failpoint in mode raise must end the service, or it tests nothing."""

    def inject(turn: int) -> None:
        raise InjectedFault("relay.after_fetch")

    await supervisor.run(Probe(inject))

    assert supervisor.fatal is not None
    async with asyncio.timeout(5):
        assert isinstance(await supervisor.fatal, InjectedFault)


async def test_a_turn_over_its_limit_is_reported_by_name() -> None:
    """A loop that hangs must be seen, not guessed."""
    clock = ManualClock()
    supervisor = Supervisor(clock, system_random())
    loop = Hanging(name="relay")
    await supervisor.run(loop)
    await until(lambda: loop.turns == 1)
    await clock.advance(30.0)
    assert [] == supervisor.stalled()

    await clock.advance(0.1)

    assert ["relay"] == supervisor.stalled()
    await supervisor.stop()


async def test_a_bug_in_a_loop_is_logged_with_its_traceback_once_and_its_end_too(
    supervisor: Supervisor, caplog: pytest.LogCaptureFixture
) -> None:
    """Five tracebacks a second bury what matters; none hides the bug."""

    def fail_five_times(turn: int) -> None:
        if turn <= 5:
            raise RuntimeError("a bug")

    loop = Probe(fail_five_times, name="relay")
    await supervisor.run(loop)
    await until(lambda: loop.turns > 6)

    assert [
        ("ERROR", "loop.failed name=relay failures=1 error=RuntimeError: a bug; its turn is tried again", True),
        ("ERROR", "loop.recovered name=relay failures=5", False),
    ] == [(one.levelname, one.getMessage(), bool(one.exc_info)) for one in caplog.records]


async def test_an_outage_or_a_limit_met_by_a_loop_has_no_traceback(
    supervisor: Supervisor, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody was surprised: where our code stood when the database went says nothing."""
    errors = {1: StoreUnavailable("planted"), 2: StoreBusy(1, 1)}

    def fail(turn: int) -> None:
        if turn in errors:
            raise errors[turn]

    loop = Probe(fail)
    await supervisor.run(loop)
    await until(lambda: loop.turns > 3)

    assert {"outage.began", "loop.failed", "loop.recovered"} == {one.getMessage().split()[0] for one in caplog.records}
    assert not [one for one in caplog.records if one.exc_info]
