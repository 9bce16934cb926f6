"""The file under it: its settings, its log, its lock, its troubles."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from spoolproof import limits
from spoolproof.clock import SystemClock
from spoolproof.errors import StoreUnavailable
from spoolproof.sqlite import Database
from spoolproof.sqlite.checkpoint import Checkpoints, WriterLock
from spoolproof.sqlite.connection import connect
from spoolproof.sqlite.errors import is_away
from spoolproof.testing.clock import ManualClock

LOG_BYTES_MAX = limits.CHECKPOINT_PAGES * (4096 + 24)


def insert(name: str, body: bytes = b"") -> Callable[[sqlite3.Connection], object]:
    return lambda db: db.execute("insert into item values (?, ?)", (name, body))


async def count(database: Database) -> int:
    return await database.read(lambda db: int(db.execute("select count(*) from item").fetchone()[0]))


def log_bytes(path: Path) -> int:
    return path.with_name(path.name + "-wal").stat().st_size


@pytest.mark.parametrize(
    ("pragma", "expected"),
    [("journal_mode", "wal"), ("synchronous", 2), ("wal_autocheckpoint", 0), ("foreign_keys", 1)],
)
async def test_both_connections_have_the_settings_durability_rests_on(
    database: Database, pragma: str, expected: object
) -> None:
    """L21: NORMAL loses acknowledged rows at a power cut; an automatic checkpoint may meet the WAL-reset bug."""

    def ask(db: sqlite3.Connection) -> object:
        return db.execute(f"pragma {pragma}").fetchone()[0]

    assert [expected] * 2 == [await database.write(ask), await database.read(ask)]


async def test_the_log_stays_short_under_steady_writing(database: Database, path: Path) -> None:
    """Without checkpoints it would grow for ever, and every read would get slower."""
    for n in range(60):
        await database.write(insert(f"n{n}", bytes(400_000)))  # 100 pages each: six times the limit together

    assert log_bytes(path) < 2 * LOG_BYTES_MAX
    assert path.stat().st_size > 3 * LOG_BYTES_MAX
    assert 60 == await count(database)


async def test_a_long_reader_delays_the_log_and_not_the_writers(database: Database, path: Path) -> None:
    """Each try to start the log over waits for readers with every writer behind it, so there must be few of them."""
    clock = SystemClock()
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("begin")
        reader.execute("select count(*) from item").fetchone()
        started = clock.monotonic()
        for n in range(40):
            await database.write(insert(f"n{n}", bytes(400_000)))
        seconds = clock.monotonic() - started

    tries = 4  # 4 000 pages written, one try each 1 000
    assert seconds < tries * limits.CHECKPOINT_BUSY_SECONDS + 3
    assert log_bytes(path) > 3 * LOG_BYTES_MAX
    await database.write(insert("first after the reader", bytes(4_000_000)))
    await database.write(insert("second"))
    assert log_bytes(path) < 3 * LOG_BYTES_MAX


async def test_a_checkpoint_waits_for_its_time_and_for_something_to_do(tmp_path: Path) -> None:
    """The tick of a service that writes little; an idle one leaves the file alone."""
    path, clock = tmp_path / "some.db", ManualClock()
    with closing(connect(path)) as connection:
        checkpoints = Checkpoints(path, connection, clock)
        connection.execute("create table item (name text)")

        checkpoints.run_if_due()
        early = path.stat().st_size
        await clock.advance(limits.CHECKPOINT_SECONDS)
        checkpoints.run_if_due()
        moved = path.stat().st_size

    assert (4096, 8192) == (early, moved)


async def test_no_checkpoint_starts_while_somebody_writes(tmp_path: Path) -> None:
    """RESTART without the write lock goes on as PASSIVE: the very thing the WAL-reset bug needs."""
    path, clock = tmp_path / "some.db", ManualClock()
    with closing(connect(path)) as connection, closing(sqlite3.connect(path, isolation_level=None)) as foreign:
        checkpoints = Checkpoints(path, connection, clock)
        connection.execute("create table item (name text)")
        await clock.advance(limits.CHECKPOINT_SECONDS)

        foreign.execute("begin immediate")
        checkpoints.run_if_due()
        while_writing = path.stat().st_size
        foreign.execute("rollback")
        await clock.advance(limits.CHECKPOINT_SECONDS)
        checkpoints.run_if_due()

        assert (4096, 8192) == (while_writing, path.stat().st_size)


async def test_no_checkpoint_starts_while_another_process_has_the_lock(path: Path) -> None:
    """Its commit may be starting the log over: the other half of the WAL-reset bug."""
    clock = ManualClock()
    database = Database(path, clock=clock)
    await database.start()
    await database.write(lambda db: db.execute("create table item (name text primary key, body blob) strict"))
    writer = database._open_parts().writer

    async def size_after_a_tick() -> int:
        await clock.advance(limits.CHECKPOINT_SECONDS)
        writer.checkpoint_soon()
        await database.data_version()  # runs after it, on the same thread
        return path.stat().st_size

    other = WriterLock(path, _Sleepless())
    await database.data_version()  # the writer gives the lock back after it has answered
    assert other.try_acquire()
    while_locked = await size_after_a_tick()
    other.close()

    assert while_locked < await size_after_a_tick()
    await database.stop()


async def test_two_writers_of_one_file_share_it_fairly(database: Database, path: Path) -> None:
    """One that writes without pause must not keep the other from renewing its leases."""
    other = Database(path, clock=SystemClock())
    await other.start()
    is_over = False

    async def hammer() -> int:
        n = 0
        while not is_over:
            await asyncio.gather(*(database.write(insert(f"h{n}-{m}")) for m in range(20)))
            n += 20
        return n

    hammering = asyncio.ensure_future(hammer())
    async with asyncio.timeout(limits.STATEMENT_SECONDS):
        for n in range(20):
            await other.write(insert(f"other{n}"))
    is_over = True

    assert await hammering + 20 == await count(other)
    await other.stop()


async def test_data_version_changes_by_commits_of_others_only(database: Database, path: Path) -> None:
    """A wake-up by our own commits would make every relay poll at its own deletes."""
    other = Database(path, clock=SystemClock())
    await other.start()
    first = await database.data_version()

    await database.write(insert("own"))
    after_own = await database.data_version()
    await other.write(insert("foreign"))
    after_foreign = await database.data_version()

    assert first == after_own
    assert after_own != after_foreign
    await other.stop()


async def test_a_lock_that_is_kept_for_ever_is_an_outage_and_not_a_hang(database: Database, path: Path) -> None:
    """S5's neighbour: a process frozen while it writes."""
    with frozen_writer(path):
        lock = WriterLock(path, _Sleepless())
        with pytest.raises(StoreUnavailable, match=r"some\.db\.writer has been locked for over 5 s by process \d+"):
            lock.acquire()
        lock.close()
    await database.write(insert("after"))

    assert 1 == await count(database)


async def test_a_users_open_transaction_delays_writes_and_not_the_loop(database: Database, path: Path) -> None:
    """It waits on the writer's thread; were it on the loop, the user could never end it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as user:
        user.execute("begin immediate")
        waiting = asyncio.ensure_future(database.write(insert("a")))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        user.execute("rollback")
        await waiting

    assert 1 == await count(database)


async def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    """And nothing stays open: the leak check looks."""
    path = tmp_path / "notes.txt"
    path.write_bytes(b"not a database at all" * 100)
    database = Database(path, clock=SystemClock())

    with pytest.raises(StoreUnavailable, match=r"notes\.txt.*SQLITE_NOTADB"):
        await database.start()
    path.unlink()
    await database.start()
    await database.stop()


async def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """The start retries it like any outage."""
    (tmp_path / "file").write_bytes(b"")
    database = Database(tmp_path / "file" / "some.db", clock=SystemClock())

    with pytest.raises(StoreUnavailable, match=r"some\.db"):
        await database.start()


async def test_stop_before_start_and_start_twice_are_harmless(path: Path) -> None:
    """The contract of everything with a start."""
    database = Database(path, clock=SystemClock())
    await database.stop()
    await database.start()
    await database.start()
    await database.stop()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("SQLITE_BUSY", True),
        ("SQLITE_BUSY_SNAPSHOT", True),
        ("SQLITE_LOCKED", True),
        ("SQLITE_READONLY_DBMOVED", True),
        ("SQLITE_IOERR_FSYNC", True),
        ("SQLITE_CORRUPT", True),
        ("SQLITE_FULL", True),
        ("SQLITE_CANTOPEN", True),
        ("SQLITE_NOTADB", True),
        ("SQLITE_ERROR", False),
        ("SQLITE_CONSTRAINT_UNIQUE", False),
        ("SQLITE_MISMATCH", False),
        ("SQLITE_TOOBIG", False),
    ],
)
def test_trouble_of_the_file_is_told_from_trouble_of_the_statement(code: str, expected: bool) -> None:
    """The first pauses intake and costs no attempt, the second is somebody's bug."""
    error = sqlite3.OperationalError(code)
    error.sqlite_errorcode = getattr(sqlite3, code)

    assert expected == is_away(error)


def test_use_of_a_closed_connection_counts_as_trouble_of_the_file(tmp_path: Path) -> None:
    """`sqlite3` gives it no code; this pins its text."""
    connection = sqlite3.connect(tmp_path / "some.db")
    connection.close()

    with pytest.raises(sqlite3.ProgrammingError) as raised:
        connection.execute("select 1")

    assert is_away(raised.value)


class _Sleepless:
    """A runner whose pauses take no time: a test need not sit out the 5 s."""

    def submit(self, job: Callable[[], None]) -> None:
        job()

    def pause(self, seconds: float) -> None:
        pass

    def close(self) -> None:
        pass


@contextmanager
def frozen_writer(path: Path) -> Iterator[None]:
    """A process that holds the lock and no longer runs."""
    script = (
        "import sys, signal, fcntl, os\n"
        "fd = os.open(sys.argv[1], os.O_RDWR); fcntl.flock(fd, fcntl.LOCK_EX)\n"
        "os.kill(os.getpid(), signal.SIGSTOP)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(path) + ".writer"])
    try:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        yield
    finally:
        process.kill()
        process.wait()
