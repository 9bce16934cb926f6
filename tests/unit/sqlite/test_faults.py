"""The system call under it fails once, or does not return: somebody is told, and the next one works."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import resource
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from spoolproof import limits
from spoolproof.clock import SystemClock
from spoolproof.errors import StoreUnavailable
from spoolproof.sqlite import Database, ThreadRunner
from spoolproof.sqlite.lockfile import LockFile
from spoolproof.testing.clock import ManualClock


def insert(name: str) -> Callable[[sqlite3.Connection], object]:
    return lambda db: db.execute("insert into item values (?, x'')", (name,))


async def names(database: Database) -> list[str]:
    return await database.read(lambda db: [name for (name,) in db.execute("select name from item order by name")])


class Flock:
    """`fcntl.flock` that fails at the next call of one kind, once."""

    def __init__(self, error: int) -> None:
        self._error = error
        self._real = fcntl.flock
        self.fails_next: int | None = None

    def __call__(self, descriptor: int, operation: int) -> None:
        if self.fails_next is not None and operation & self.fails_next:
            self.fails_next = None
            raise OSError(self._error, os.strerror(self._error))
        self._real(descriptor, operation)


@pytest.fixture(params=["EIO", "ENOLCK"])
def flock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Flock:
    faulty = Flock(getattr(errno, request.param))
    monkeypatch.setattr(fcntl, "flock", faulty)
    return faulty


async def test_a_lock_that_fails_once_costs_one_write(database: Database, flock: Flock) -> None:
    """The writer's thread used to end on it, and every later publish waited for ever."""
    flock.fails_next = fcntl.LOCK_EX

    with pytest.raises(StoreUnavailable, match=r"some\.db\.writer cannot be locked"):
        await database.write(insert("a"))
    await database.write(insert("b"))

    assert ["b"] == await names(database)


async def test_a_lock_that_cannot_be_given_back_shuts_nobody_out(database: Database, path: Path, flock: Flock) -> None:
    """It stayed with a writer that was dead, and other processes waited for it."""
    flock.fails_next = fcntl.LOCK_UN

    await database.write(insert("a"))
    await database.data_version()  # the writer gives the lock back after it has answered
    other = LockFile(path.with_name("some.db.writer"))

    assert other.try_acquire()
    other.close()
    await database.write(insert("b"))
    assert ["a", "b"] == await names(database)


async def test_a_lock_that_fails_under_a_checkpoint_stops_nothing(database: Database, flock: Flock) -> None:
    """Nobody waits for a checkpoint, so nobody was told, and the thread was gone."""
    flock.fails_next = fcntl.LOCK_EX
    database._open_parts().writer.checkpoint_soon()

    await database.write(insert("a"))

    assert ["a"] == await names(database)


async def test_a_log_that_cannot_be_measured_stops_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How long the log is, is asked after every commit."""
    stat = Path.stat

    def faulty(self: Path, **options: Any) -> os.stat_result:
        if self.name.endswith("-wal"):
            raise OSError(errno.EIO, "Input/output error")
        return stat(self, **options)

    monkeypatch.setattr(Path, "stat", faulty)
    clock = ManualClock()
    database = Database(path, clock=clock)
    await database.start()
    await database.write(lambda db: db.execute("create table item (name text primary key, body blob) strict"))
    await clock.advance(limits.CHECKPOINT_SECONDS)
    await database.write(insert("a"))
    await database.data_version()

    assert path.stat().st_size > 4096  # the checkpoint came with its time
    await database.stop()


def test_a_job_that_raises_does_not_end_its_thread(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever else may be wrong: a thread that ended would answer nobody any more."""
    runner, has_run = ThreadRunner("some-thread"), threading.Event()

    def fail() -> None:
        raise MemoryError("no room")

    runner.submit(fail)
    runner.submit(has_run.set)

    assert has_run.wait(5)
    runner.close()
    assert ["sqlite.job_failed thread=some-thread"] == [record.getMessage() for record in caplog.records]


async def test_a_stop_gives_up_on_a_file_that_hangs_and_tells_everybody(path: Path) -> None:
    """A disk that does not answer must not keep a process from ending, nor those who wait for it from hearing so."""
    database = Database(path, clock=SystemClock(), close_seconds=0.1)
    await database.start()
    answers, has_entered = threading.Event(), threading.Event()

    def hang(_: sqlite3.Connection) -> None:
        has_entered.set()
        assert answers.wait(10)

    hanging = asyncio.ensure_future(database.write(hang))
    while not has_entered.is_set():
        await asyncio.sleep(0.001)
    waiting = asyncio.ensure_future(database.write(insert("a")))
    asking = asyncio.ensure_future(database.data_version())
    await asyncio.sleep(0)

    async with asyncio.timeout(5):
        await database.stop()
        ends = await asyncio.gather(hanging, waiting, asking, return_exceptions=True)

    assert [StoreUnavailable] * 3 == [type(end) for end in ends]
    answers.set()


@contextmanager
def no_more_files() -> Iterator[None]:
    """Let this process open nothing more."""
    limits_before = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits_before[1]))
    try:
        while True:
            try:
                taken.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                break
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits_before)
        for descriptor in taken:
            os.close(descriptor)


async def test_a_start_without_a_free_descriptor_can_be_tried_again(path: Path) -> None:
    """A process out of files is back when files are: the start waits for its store as for one that is away."""
    path.parent.mkdir()
    database = Database(path, clock=SystemClock())

    with no_more_files(), pytest.raises(StoreUnavailable, match="Too many open files"):
        await database.start()
    await database.start()

    assert 1 == await database.write(lambda db: db.execute("select 1").fetchone()[0])
    await database.stop()


async def test_a_lock_file_that_met_an_error_is_opened_anew_when_there_are_files(
    database: Database, flock: Flock
) -> None:
    """Two troubles in a row: the lock fails, and there is no descriptor to open it again."""
    flock.fails_next = fcntl.LOCK_EX
    with pytest.raises(StoreUnavailable):
        await database.write(insert("a"))
    with no_more_files(), pytest.raises(StoreUnavailable, match="Too many open files"):
        await database.write(insert("b"))

    await database.write(insert("c"))

    assert ["c"] == await names(database)
