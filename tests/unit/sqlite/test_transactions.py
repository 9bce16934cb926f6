"""Transactions held across awaits: one at a time, and the writer is free again whatever becomes of their owner."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable

import pytest

from spoolproof.errors import NotInTransaction, StoreUnavailable, TransactionTooLong
from spoolproof.sqlite import Database

ENDLESS = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n"


def insert(name: str, body: bytes = b"") -> Callable[[sqlite3.Connection], str]:
    def work(db: sqlite3.Connection) -> str:
        db.execute("insert into item values (?, ?)", (name, body))
        return name

    return work


async def names(database: Database) -> list[str]:
    rows = await database.read(lambda db: db.execute("select name from item order by rowid").fetchall())
    return [name for (name,) in rows]


async def assert_free(database: Database) -> None:
    """Another transaction and another write get through."""
    async with asyncio.timeout(2):
        async with database.transaction() as tx:
            await tx.run(insert("free"))
        await database.write(lambda db: db.execute("delete from item where name = 'free'"))


async def test_writes_and_transactions_take_turns(database: Database) -> None:
    """Neither starves the other, and neither sees the other's half."""
    order: list[str] = []

    async def transact(name: str) -> None:
        async with database.transaction() as tx:
            await tx.run(insert(f"{name}1"))
            await tx.run(insert(f"{name}2"))
        order.append(name)

    async def write(name: str) -> None:
        await database.write(insert(name))
        order.append(name)

    await asyncio.gather(transact("t"), write("w"), transact("u"), write("x"))

    assert {"t", "u", "w", "x"} == set(order)
    found = await names(database)
    assert found.index("t2") == found.index("t1") + 1
    assert found.index("u2") == found.index("u1") + 1


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError, KeyboardInterrupt])
async def test_a_block_that_raises_undoes_everything(database: Database, error: type[BaseException]) -> None:
    """Whatever it raises."""

    async def fail() -> None:
        async with database.transaction() as tx:
            await tx.run(insert("a"))
            raise error

    with pytest.raises(error):
        await fail()

    assert [] == await names(database)
    await assert_free(database)


async def test_cancelled_while_waiting_for_its_turn(database: Database) -> None:
    """The turn goes to the next in line."""
    async with database.transaction() as tx:
        waiting = asyncio.ensure_future(assert_free(database))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting.cancel()
        await tx.run(insert("a"))

    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ["a"] == await names(database)
    await assert_free(database)


async def test_cancelled_in_the_moment_its_turn_comes(database: Database) -> None:
    """It was given the connection and never hears of it: somebody must take it back."""
    waiting: list[asyncio.Future[None]] = []
    database.write_soon(insert("a"), lambda _: waiting[0].cancel())
    waiting.append(asyncio.ensure_future(assert_free(database)))

    with pytest.raises(asyncio.CancelledError):
        await waiting[0]

    await assert_free(database)
    assert ["a"] == await names(database)


@pytest.mark.parametrize("times", [1, 2])
async def test_cancelled_in_the_middle_of_a_statement(database: Database, times: int) -> None:
    """The statement goes on in its thread; what follows waits for it, and nothing of it is kept.

    The second cancel hits the owner while it waits for its rollback.
    """
    may_go_on, has_begun = threading.Event(), threading.Event()

    def slow(db: sqlite3.Connection) -> None:
        insert("a")(db)
        has_begun.set()
        assert may_go_on.wait(5)

    async def own() -> None:
        async with database.transaction() as tx:
            await tx.run(slow)

    owner = asyncio.ensure_future(own())
    async with asyncio.timeout(5):
        while not has_begun.is_set():
            await asyncio.sleep(0.001)
    for _ in range(times):
        owner.cancel()
        await asyncio.sleep(0)
    may_go_on.set()

    with pytest.raises(asyncio.CancelledError):
        await owner
    await assert_free(database)
    assert [] == await names(database)


async def test_cancelled_in_the_middle_of_its_commit(database: Database) -> None:
    """Committed or not, never half; and the writer is free."""

    async def own(tx_is_open: asyncio.Event) -> None:
        async with database.transaction() as tx:
            await tx.run(insert("a"))
            await tx.run(insert("b"))
            tx_is_open.set()

    for _ in range(20):
        tx_is_open = asyncio.Event()
        owner = asyncio.ensure_future(own(tx_is_open))
        await tx_is_open.wait()
        owner.cancel()
        await asyncio.gather(owner, return_exceptions=True)
        await assert_free(database)
        assert await names(database) in ([], ["a", "b"])
        await database.write(lambda db: db.execute("delete from item"))


async def test_one_that_stays_open_too_long_is_rolled_back(database: Database) -> None:
    """SQLite has one writer: the others go on, and its owner hears why at its next step."""

    async def hold() -> None:
        async with database.transaction() as tx:
            await tx.run(insert("a"))
            await assert_free(database)  # which waits until this transaction is gone
            with pytest.raises(TransactionTooLong, match=r"0\.2 s"):
                await tx.run(insert("b"))

    with pytest.raises(TransactionTooLong):
        await hold()

    assert [] == await names(database)
    await assert_free(database)


async def test_a_statement_that_runs_too_long_is_interrupted(database: Database) -> None:
    """Nobody else gets to write before it ends."""

    async def hold() -> None:
        async with database.transaction() as tx:
            await tx.run(lambda db: db.execute(ENDLESS).fetchone())

    async with asyncio.timeout(5):
        with pytest.raises(TransactionTooLong):
            await hold()

    await assert_free(database)


async def test_a_full_disk_ends_the_transaction_for_good(database: Database) -> None:
    """SQLite has rolled back; an owner who swallows the error must not commit the rest alone."""
    await database.write(lambda db: db.execute("pragma max_page_count = 20").fetchone())

    async def swallow() -> None:
        async with database.transaction() as tx:
            await tx.run(insert("before"))
            with pytest.raises(StoreUnavailable, match="SQLITE_FULL"):
                await tx.run(insert("large", bytes(500_000)))
            with pytest.raises(StoreUnavailable, match="SQLITE_FULL"):
                await tx.run(insert("after"))

    with pytest.raises(StoreUnavailable, match="SQLITE_FULL"):
        await swallow()

    assert [] == await names(database)
    await assert_free(database)


async def test_a_block_that_commits_by_itself_is_told_so(database: Database) -> None:
    """Statements after it would each commit alone."""

    async def end_it() -> None:
        async with database.transaction() as tx:
            with pytest.raises(NotInTransaction, match="leave both to the block"):
                await tx.run(lambda db: db.execute("commit"))
            await tx.run(insert("a"))

    with pytest.raises(NotInTransaction):
        await end_it()

    assert [] == await names(database)
    await assert_free(database)


async def test_the_owners_mistakes_pass_as_they_are(database: Database) -> None:
    """And do not end the transaction, as in SQLite itself."""
    async with database.transaction() as tx:
        await tx.run(insert("a"))
        with pytest.raises(sqlite3.IntegrityError):
            await tx.run(insert("a"))
        await tx.run(insert("b"))

    assert ["a", "b"] == await names(database)


async def test_a_constraint_checked_at_commit_undoes_everything(database: Database) -> None:
    """The driver's error, and a connection without leftovers."""
    await database.write(
        lambda db: db.execute("create table part (of_item text references item deferrable initially deferred) strict")
    )

    async def break_it() -> None:
        async with database.transaction() as tx:
            await tx.run(lambda db: db.execute("insert into part values ('nothing')"))

    with pytest.raises(sqlite3.IntegrityError):
        await break_it()

    await assert_free(database)


async def test_an_ended_transaction_refuses_further_use(database: Database) -> None:
    """Its statement would land in somebody else's."""
    async with database.transaction() as tx:
        await tx.run(insert("a"))

    with pytest.raises(NotInTransaction):
        await tx.run(insert("b"))


async def test_stop_ends_the_open_one_and_those_that_wait(database: Database) -> None:
    """Their owners hear it; nothing of theirs is kept, and stop does not wait for them."""
    heard: list[type[BaseException]] = []
    is_open = asyncio.Event()

    async def hold() -> None:
        try:
            async with database.transaction() as tx:
                await tx.run(insert("a"))
                is_open.set()
                await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            heard.append(type(error))

    async def wait() -> None:
        try:
            await assert_free(database)
        except StoreUnavailable as error:
            heard.append(type(error))

    holder = asyncio.ensure_future(hold())
    await is_open.wait()
    waiter = asyncio.ensure_future(wait())
    await asyncio.sleep(0)

    async with asyncio.timeout(2):
        await database.stop()
        await waiter
    holder.cancel()
    await holder

    assert [StoreUnavailable, asyncio.CancelledError] == heard
