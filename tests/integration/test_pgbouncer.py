"""Behind a real PgBouncer in transaction mode, with SPOOLPROOF_LISTEN=off, everything works."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import asyncpg
import pytest

from spoolproof import Service, StoreUnavailable, Transaction
from spoolproof.ports.dead_letters import DeadLetterFilter
from spoolproof.settings import load_settings
from spoolproof.testing.servers import PgBouncerServer, PostgresServer
from spoolproof.testing.stores import postgres_store

pytestmark = [pytest.mark.integration, pytest.mark.servers]

JOBS = 60


@pytest.fixture(scope="module")
def pgbouncer(postgres: PostgresServer) -> Iterator[PgBouncerServer]:
    missing = PgBouncerServer.missing()
    if missing is not None:
        (pytest.fail if os.environ.get("CI", "").lower() == "true" else pytest.skip)(missing)
    with PgBouncerServer(postgres) as server:
        yield server


@pytest.fixture
def pooled_url(pgbouncer: PgBouncerServer, postgres_url: str) -> str:
    return pgbouncer.url_of(postgres_url.rpartition("/")[2])


async def test_a_service_behind_pgbouncer_works(pooled_url: str) -> None:
    """Migration, publish, relay, inbox, handler and dead letter; a session there lasts for one transaction."""
    service = Service(
        "pooled", settings=load_settings(store=pooled_url, broker="memory://", migrate="auto", listen="off")
    )
    done: list[int] = []
    has_all = asyncio.Event()

    @service.on("job", attempts=1)
    async def job(payload: dict[str, int], tx: Transaction) -> None:
        await tx.execute("insert into done values ($1)", payload["n"])
        async with tx.savepoint():
            await tx.publish({"n": payload["n"]}, type="job.done")
        if payload["n"] == 0:
            raise LookupError

    @service.on("job.done")
    async def job_done(payload: dict[str, int]) -> None:
        done.append(payload["n"])
        if len(done) == JOBS - 1:
            has_all.set()

    await service.start()
    try:
        async with service.transaction() as tx:
            await tx.execute("create table done (n int)")
        await asyncio.gather(*(service.publish({"n": n}, type="job") for n in range(JOBS)))
        async with asyncio.timeout(30):
            await has_all.wait()

        async with service.transaction() as tx:
            (count,) = await tx.fetch("select count(*) as n from done")
        letters = await service.runtime.store.dead_letters.search(DeadLetterFilter())
        assert JOBS - 1 == count["n"]
        assert ["LookupError"] == [letter.error_class.rpartition(".")[2] for letter in letters]
        assert list(range(1, JOBS)) == sorted(done)
    finally:
        await service.stop()


async def test_a_database_behind_pgbouncer_gets_our_settings(postgres: PostgresServer, pooled_url: str) -> None:
    """PgBouncer keeps no setting of a session: each transaction brings its own, and leaves none behind."""
    postgres.psql(f"alter database {pooled_url.rpartition('/')[2]} set default_transaction_isolation = 'serializable'")

    async with postgres_store(pooled_url, listen=False) as store:
        async with store.transaction() as tx:
            (row,) = await tx.fetch("select current_setting('transaction_isolation') as level")
        relay = await store._relay.fetch_value("select current_setting('enable_sort')")
        outside = await asyncpg.connect(pooled_url, statement_cache_size=0)
        try:
            async with outside.transaction():
                left = await outside.fetchval("select current_setting('enable_sort')")
        finally:
            await outside.close()

    assert ("read committed", "off", "on") == (row["level"], relay, left)


async def test_who_forgets_the_setting_is_told(pooled_url: str) -> None:
    """PgBouncer refuses our settings at the start of a session; the message names ours that helps."""
    with pytest.raises(StoreUnavailable, match="SPOOLPROOF_LISTEN=off"):
        async with postgres_store(pooled_url, listen=True):
            pass
