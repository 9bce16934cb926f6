"""What somebody has set on the database or the role, for every session, stands in the way of no message."""

from __future__ import annotations

import asyncio

import asyncpg
import msgspec
import pytest

from spoolproof import Service, Transaction, event
from spoolproof.settings import load_settings
from spoolproof.testing.servers import PostgresServer
from spoolproof.testing.stores import postgres_store

pytestmark = [pytest.mark.integration, pytest.mark.servers]

MEAN = {
    "default_transaction_isolation": "serializable",
    "statement_timeout": "1ms",
    "lock_timeout": "1ms",
    "idle_session_timeout": "500ms",
    "transaction_timeout": "10s",
    "search_path": "nowhere",
    "synchronous_commit": "off",
    "standard_conforming_strings": "off",
    "bytea_output": "escape",
    "DateStyle": "SQL, DMY",
    "IntervalStyle": "sql_standard",
    "TimeZone": "Asia/Kathmandu",
    "transform_null_equals": "on",
    "extra_float_digits": "-15",
    "enable_indexscan": "off",
}


@event("settings.placed")
class Placed(msgspec.Struct):
    n: int


def _set(postgres: PostgresServer, url: str, **settings: str) -> None:
    for name, value in settings.items():
        postgres.psql(f"alter database {url.rpartition('/')[2]} set {name} = '{value}'")


async def test_a_database_with_odd_defaults_serves_as_any_other(postgres: PostgresServer, postgres_url: str) -> None:
    """Somebody else's defaults are for somebody else's sessions: from the migration to the ack all goes well at once,
    and in order."""
    _set(postgres, postgres_url, **MEAN)
    service = Service("shop", settings=load_settings(store=postgres_url, broker="memory://", migrate="auto"))
    handled: list[tuple[int, int]] = []
    has_all = asyncio.Event()

    @service.on(Placed, concurrency=1)
    async def handle(placed: Placed, tx: Transaction) -> None:
        await tx.execute("select pg_sleep(0.01)")
        (row,) = await tx.fetch("select current_setting('transaction_isolation') as level, count(*) as n from public.t")
        assert "read committed" == row["level"]
        await tx.execute("insert into public.t values ($1)", placed.n)
        handled.append((placed.n, row["n"]))
        if len(handled) == 20:
            has_all.set()

    await service.start()
    try:
        async with service.transaction() as tx:
            await tx.execute("create table public.t (n int)")
        for n in range(20):
            await service.publish(Placed(n), key="k")
        async with asyncio.timeout(30):
            await has_all.wait()
    finally:
        await service.stop()

    assert [(n, n) for n in range(20)] == handled


async def test_a_second_delivery_waits_for_the_first_whatever_the_isolation(
    postgres: PostgresServer, postgres_url: str
) -> None:
    """In a serializable transaction its inbox row would be an error, and the message would pay with an attempt."""
    _set(postgres, postgres_url, default_transaction_isolation="repeatable read", statement_timeout="100ms")

    async with postgres_store(postgres_url) as store:

        async def second() -> bool:
            async with store.transaction() as tx:
                await tx.fetch("select 1")
                is_waiting.set()
                return await store.inbox.record(tx, "orders", "m1")

        is_waiting = asyncio.Event()
        async with store.transaction() as tx:
            first = await store.inbox.record(tx, "orders", "m1")
            waiter = asyncio.create_task(second())
            await is_waiting.wait()
            await tx.execute("select pg_sleep(0.3)")

        assert (True, False) == (first, await waiter)


async def test_a_limit_that_a_handler_sets_itself_is_its_own(postgres_url: str) -> None:
    """It asked for it: its error passes, and counts. The next transaction of the connection is free of it."""
    async with postgres_store(postgres_url) as store:
        with pytest.raises(asyncpg.QueryCanceledError):
            async with store.transaction() as tx:
                await tx.execute("set statement_timeout = '20ms'")
                await tx.execute("select pg_sleep(5)")

        async with store.transaction() as tx:
            (row,) = await tx.fetch("select current_setting('statement_timeout') as limit")

    assert "0" == row["limit"]


async def test_a_migration_waits_for_another_whatever_the_isolation(
    postgres: PostgresServer, postgres_url: str
) -> None:
    """Processes that start together: the second must see what the first one did, not what there was before."""
    _set(postgres, postgres_url, default_transaction_isolation="repeatable read")

    async with postgres_store(postgres_url, migrate=False) as one, postgres_store(postgres_url, migrate=False) as other:
        names = await asyncio.gather(one.migrations.apply(), other.migrations.apply())

        assert one.migrations.needed == sum(map(len, names))
        assert one.migrations.needed == await other.migrations.found()
