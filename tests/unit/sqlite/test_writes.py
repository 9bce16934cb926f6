"""Group commit: one fsync for many, and nobody pays for a neighbour."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from spoolproof import limits
from spoolproof.clock import SystemClock
from spoolproof.errors import StoreBusy, StoreUnavailable
from spoolproof.sqlite import Database

Work = Callable[[sqlite3.Connection], object]


def insert(name: str, body: bytes = b"") -> Callable[[sqlite3.Connection], str]:
    def work(db: sqlite3.Connection) -> str:
        db.execute("insert into item values (?, ?)", (name, body))
        return name

    return work


async def names(database: Database) -> list[str]:
    rows = await database.read(lambda db: db.execute("select name from item order by rowid").fetchall())
    return [name for (name,) in rows]


async def traced(database: Database) -> list[str]:
    """Return the list that every later statement of the writer is added to."""
    statements: list[str] = []
    await database.write(lambda db: db.set_trace_callback(statements.append))
    statements.clear()
    return statements


class Gate:
    """Work that keeps the writer's thread until `open`; what is submitted meanwhile waits in the queue."""

    def __init__(self) -> None:
        self._is_open = threading.Event()
        self.has_entered = threading.Event()

    def work(self, _: sqlite3.Connection) -> None:
        self.has_entered.set()
        assert self._is_open.wait(10)

    def open(self) -> None:
        self._is_open.set()


async def until(event: threading.Event) -> None:
    async with asyncio.timeout(5):
        while not event.is_set():
            await asyncio.sleep(0.001)


async def test_what_waits_together_shares_one_commit(database: Database) -> None:
    """An fsync costs as much for one row as for two hundred."""
    statements = await traced(database)

    results = await asyncio.gather(*(database.write(insert(f"n{n}")) for n in range(200)))

    assert [f"n{n}" for n in range(200)] == results
    assert results == await names(database)
    assert ["BEGIN IMMEDIATE", "COMMIT"] == [line for line in statements if not line.startswith("insert")]


async def test_a_batch_has_an_upper_size(database: Database) -> None:
    """The first in it must not wait for thousands."""
    statements = await traced(database)

    await asyncio.gather(*(database.write(insert(f"n{n}")) for n in range(limits.WRITER_BATCH_MAX + 1)))

    assert 2 == statements.count("COMMIT")


async def test_a_result_is_given_out_only_after_its_commit(database: Database, path: Path) -> None:
    """A Receipt is handed out on it: another connection sees the row by then."""
    seen: list[int] = []
    other = sqlite3.connect(path)

    def done(_: object) -> None:
        seen.append(other.execute("select count(*) from item").fetchone()[0])

    for n in range(5):
        database.write_soon(insert(f"n{n}"), done)
    await database.write(insert("last"))
    other.close()

    assert [6] * 5 == seen


@pytest.mark.parametrize("culprit", [0, 3, 6])
async def test_work_that_fails_costs_its_neighbours_nothing(database: Database, culprit: int) -> None:
    """One duplicate key among seven: six commits, one error, and it is that one's own."""
    await database.write(insert("taken"))
    wanted = ["taken" if n == culprit else f"n{n}" for n in range(7)]

    results = await asyncio.gather(*(database.write(insert(name)) for name in wanted), return_exceptions=True)

    assert isinstance(results[culprit], sqlite3.IntegrityError)
    assert sorted({"taken", *wanted}) == sorted(await names(database))
    assert [name for name in wanted if name != "taken"] == [result for result in results if isinstance(result, str)]


async def test_several_failures_in_one_batch_stay_apart(database: Database) -> None:
    """Also what a failing piece had written before it failed is undone."""

    def write_and_fail(db: sqlite3.Connection) -> None:
        db.execute("insert into item values ('half', x'')")
        raise ValueError("its own")

    works: list[Work] = [insert("a"), write_and_fail, insert("b"), write_and_fail, insert("c"), insert("a")]
    results = await asyncio.gather(*(database.write(work) for work in works), return_exceptions=True)

    assert ["a", "b", "c"] == await names(database)
    assert [str, ValueError, str, ValueError, str, sqlite3.IntegrityError] == [type(result) for result in results]


async def test_a_full_disk_is_told_to_everybody_in_the_batch(database: Database) -> None:
    """SQLite rolls the whole transaction back: nobody may be told that it is stored."""
    await database.write(lambda db: db.execute("pragma max_page_count = 20").fetchone())
    works = [insert("small"), insert("large", bytes(500_000)), insert("after")]

    results = await asyncio.gather(*(database.write(work) for work in works), return_exceptions=True)

    assert [StoreUnavailable] * 3 == [type(result) for result in results]
    assert "SQLITE_FULL" in str(results[0])
    assert [] == await names(database)
    assert "small" == await database.write(insert("small"))


async def test_work_that_ends_the_transaction_is_refused_with_its_batch(database: Database) -> None:
    """What follows would commit statement by statement."""
    results = await asyncio.gather(
        database.write(insert("a")), database.write(lambda db: db.execute("rollback")), return_exceptions=True
    )

    assert [StoreUnavailable] * 2 == [type(result) for result in results]
    assert [] == await names(database)


async def test_a_full_queue_refuses_at_once(database: Database) -> None:
    """Nothing accepted is dropped, so the queue has an end, and the caller hears it."""
    gate, done = Gate(), []
    database.write_soon(gate.work, done.append)
    await until(gate.has_entered)
    for n in range(limits.WRITER_REQUESTS_MAX):
        database.write_soon(insert(f"n{n}"), done.append)

    with pytest.raises(StoreBusy) as raised:
        database.write_soon(insert("one more"), done.append)
    gate.open()
    await database.stop()

    assert (limits.WRITER_REQUESTS_MAX,) * 2 == (raised.value.current, raised.value.maximum)
    assert limits.WRITER_REQUESTS_MAX + 1 == len(done)
    assert not [result for result in done if isinstance(result, Exception)]


async def test_bodies_that_wait_have_a_limit_together(database: Database) -> None:
    """Ten thousand requests of a megabyte each would be the end of the process."""
    gate, done = Gate(), []
    database.write_soon(gate.work, done.append)
    await until(gate.has_entered)
    database.write_soon(insert("a"), done.append, body_bytes=limits.WRITER_BYTES_MAX - 1)

    with pytest.raises(StoreBusy, match=str(limits.WRITER_BYTES_MAX)):
        database.write_soon(insert("b"), done.append, body_bytes=2)
    gate.open()
    async with asyncio.timeout(5):
        while len(done) < 2:
            await asyncio.sleep(0.001)
    await database.write(insert("c"), body_bytes=limits.WRITER_BYTES_MAX + 1)  # alone, it fits

    assert ["a", "c"] == await names(database)


async def test_a_caller_that_was_cancelled_leaves_its_row_and_its_neighbours_alone(database: Database) -> None:
    """Its work may be committing at that moment: the outcome is unknown to it, never to the others."""
    gate = Gate()
    first = asyncio.ensure_future(database.write(gate.work))
    await until(gate.has_entered)
    cancelled = asyncio.ensure_future(database.write(insert("a")))
    other = asyncio.ensure_future(database.write(insert("b")))
    await asyncio.sleep(0)

    cancelled.cancel()
    gate.open()

    await first
    assert "b" == await other
    with pytest.raises(asyncio.CancelledError):
        await cancelled


async def test_a_callback_that_raises_does_not_leave_others_waiting(database: Database) -> None:
    """Its error goes to the loop's handler; the batch's other callers still hear their results."""
    reported: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    def raises(_: object) -> None:
        raise ValueError("mine")

    database.write_soon(insert("a"), raises)
    assert "b" == await database.write(insert("b"))

    assert ["mine"] == [str(context["exception"]) for context in reported]


async def test_stop_commits_what_was_accepted_and_refuses_what_comes_later(database: Database, path: Path) -> None:
    """A drain loses nothing; whoever is late meets one known error."""
    done: list[object] = []
    for n in range(3):
        database.write_soon(insert(f"n{n}"), done.append)

    await database.stop()
    await database.stop()

    assert ["n0", "n1", "n2"] == done
    with pytest.raises(StoreUnavailable):
        await database.write(insert("late"))
    with pytest.raises(StoreUnavailable):
        await database.read(lambda db: db.execute("select 1"))
    with pytest.raises(StoreUnavailable):
        await database.data_version()
    again = Database(path, clock=SystemClock())
    await again.start()
    assert ["n0", "n1", "n2"] == await names(again)
    await again.stop()


async def test_a_reader_cannot_write_and_does_not_wait_for_the_writer(database: Database) -> None:
    """A dashboard must not stop publishers, nor the other way round."""
    gate = Gate()
    held = asyncio.ensure_future(database.write(gate.work))
    await until(gate.has_entered)

    assert [] == await names(database)
    with pytest.raises(StoreUnavailable, match="readonly"):
        await database.read(insert("a"))

    gate.open()
    await held


async def test_everything_runs_inline_on_another_runner(path: Path) -> None:
    """The simulator's seam: no thread, the same results in the same order."""

    class Inline:
        def __init__(self, name: str) -> None:
            self.name = name

        def submit(self, job: Callable[[], None]) -> None:
            job()

        def pause(self, seconds: float) -> None:
            raise AssertionError("nobody else has the lock")

        def close(self) -> None:
            pass

    before = threading.active_count()
    database = Database(path, clock=SystemClock(), make_runner=Inline)
    await database.start()
    await database.write(lambda db: db.execute("create table item (name text primary key, body blob) strict"))
    await asyncio.gather(*(database.write(insert(f"n{n}")) for n in range(3)))
    async with database.transaction() as tx:
        await tx.run(insert("n3"))

    assert ["n0", "n1", "n2", "n3"] == await names(database)
    assert before == threading.active_count()
    await database.stop()
