"""The clock that nobody sets: one for all processes of a file, within a start of the machine and over the next."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from spoolproof.clock import Clock
from spoolproof.sqlite import STEADY, Database
from spoolproof.testing.clock import ManualClock

HOUR = 3600.0


@asynccontextmanager
async def opened(
    path: Path, clock: Clock, on_reboot: Callable[[sqlite3.Connection], object] | None = None
) -> AsyncIterator[Database]:
    database = Database(path, clock=clock, on_reboot=on_reboot)
    await database.start()
    try:
        yield database
    finally:
        await database.stop()


def ask(db: sqlite3.Connection) -> float:
    return float(db.execute(f"select {STEADY}").fetchone()[0])


async def test_a_wall_clock_that_is_set_moves_nothing(path: Path) -> None:
    """Nor does a process that starts after it was set, as after a crash, see another time."""
    clock = ManualClock()
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(opened(path, clock))
        before = await first.read(ask)
        clock.move_wall(HOUR)
        second = await stack.enter_async_context(opened(path, clock))
        await clock.advance(5.0)

        assert [before + 5.0] * 4 == [await one(ask) for one in (first.read, first.write, second.read, second.write)]


async def test_the_first_time_is_that_of_the_wall_clock(path: Path) -> None:
    """So that what an earlier release wrote keeps its meaning."""
    clock = ManualClock()
    await clock.advance(100.0)
    async with opened(path, clock) as database:
        assert clock.now().timestamp() == await database.read(ask)


async def test_a_start_of_the_machine_takes_the_wall_clock_anew_and_says_so_once(path: Path) -> None:
    """Its own count begins at 0: times would lie as far ahead as the machine had been up."""
    first = ManualClock()
    async with opened(path, first):
        await first.advance(30 * 86400.0)
    second = ManualClock(first.now() + timedelta(seconds=60))
    rebooted: list[float] = []

    for _ in range(2):
        async with opened(path, second, lambda db: rebooted.append(ask(db))) as database:
            assert second.now().timestamp() == await database.read(ask)

    assert [second.now().timestamp()] == rebooted


async def test_what_a_start_of_the_machine_is_told_commits_with_it_or_is_told_again(path: Path) -> None:
    """Half done, leases of the dead or waits without an end would stay."""
    async with opened(path, ManualClock()):
        pass
    clock = ManualClock()

    def fail(db: sqlite3.Connection) -> None:
        raise RuntimeError("killed here")

    with pytest.raises(RuntimeError):
        async with opened(path, clock, fail):
            pass
    told: list[object] = []
    async with opened(path, clock, told.append):
        pass

    assert 1 == len(told)


async def test_a_platform_that_does_not_tell_its_starts_apart_has_the_wall_clock(path: Path) -> None:
    """macOS: as good as before, and no better."""

    class Nameless(ManualClock):
        def boot_id(self) -> str:
            return ""

    clock = Nameless()
    async with opened(path, clock) as database:
        clock.move_wall(HOUR)

        assert clock.now().timestamp() == await database.read(ask)
