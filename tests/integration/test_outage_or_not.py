"""What a real PostgreSQL answers, and whether it says an outage, one message's own failure, or bad luck."""

from __future__ import annotations

import asyncio
import os
import resource
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from spoolproof import Service, StoreUnavailable, Transaction
from spoolproof.brokers.memory import MemoryBroker
from spoolproof.clock import SystemClock
from spoolproof.destination import to_queue
from spoolproof.message import Message, Outgoing
from spoolproof.ports.dead_letters import DeadLetterFilter
from spoolproof.settings import load_settings
from spoolproof.testing.servers import PostgresServer
from spoolproof.testing.stores import postgres_store

pytestmark = [pytest.mark.integration, pytest.mark.servers]


def _service(url: str) -> Service:
    return Service("shop", settings=load_settings(store=url, broker="memory://", migrate="auto"))


async def _until(condition: Callable[[], bool], seconds: float = 40.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def _set(postgres: PostgresServer, url: str, *settings: str) -> None:
    """Set something on the database, and end its sessions, so that it holds for all."""
    name = url.rpartition("/")[2]
    for setting in settings:
        await asyncio.to_thread(postgres.psql, f"alter database {name} set {setting}")
    end = f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'"
    await asyncio.to_thread(postgres.psql, end)


async def test_a_database_that_only_reads_lets_no_handler_call_the_world_again_and_again(
    postgres: PostgresServer, postgres_url: str
) -> None:
    """A failover to a standby lasts, and a bank is not asked four times a second meanwhile. The messages come from a
    service whose database is well; when ours writes again all of them are done, none is given up."""
    service, clock = _service(postgres_url), SystemClock()
    calls: Counter[int] = Counter()

    @service.on("charge", queue="charge")
    async def charge(payload: dict[str, int]) -> None:
        calls[payload["n"]] += 1

    await service.start()
    try:
        store, broker = service.runtime.store, service.runtime.broker.inner
        assert isinstance(broker, MemoryBroker)
        await _set(postgres, postgres_url, "default_transaction_read_only = on")
        for n in range(5):
            message = Message(id=f"m{n}", type="charge", source="s", time=clock.now(), body=b'{"n": %d}' % n)
            broker.submit(Outgoing(message=message, destination=to_queue("charge")), n, lambda results: None)
        await asyncio.sleep(3)  # a dozen looks of a gate that takes a read for an answer
        with pytest.raises(StoreUnavailable):
            await store.ping()
        in_the_outage = max(calls.values(), default=0)  # none, where the gate saw its sessions end before the messages

        await _set(postgres, postgres_url, "default_transaction_read_only = off")
        await _until(lambda: broker.server.depth("charge") == 0 and len(calls) == 5)
        handled = [await store.inbox.contains("charge", key) for key in await _inbox_keys(service)]

        assert in_the_outage <= 2
        assert [True] * 5 == handled
        assert [] == list(await store.dead_letters.search(DeadLetterFilter()))
    finally:
        await service.stop()


async def _inbox_keys(service: Service) -> list[str]:
    async with asyncio.timeout(20):
        while True:
            with suppress(StoreUnavailable):  # the sessions ended by the test itself
                async with service.transaction() as tx:
                    rows = await tx.fetch("select message_id from spoolproof.inbox where consumer = 'charge'")
                if len(rows) == 5:
                    return [row["message_id"] for row in rows]
            await asyncio.sleep(0.05)


async def test_what_a_message_does_to_its_own_transaction_is_no_outage(
    postgres: PostgresServer, postgres_url: str
) -> None:
    """It ran for ever, uncounted, and held up all others each time: a transaction left idle over the database's limit,
    a sort over the limit for temporary files."""
    await _set(postgres, postgres_url, "idle_in_transaction_session_timeout = '200ms'", "temp_file_limit = '1MB'")
    service = _service(postgres_url)
    runs: Counter[str] = Counter()

    @service.on("idle", attempts=2)
    async def idle(payload: dict[str, int], tx: Transaction) -> None:
        runs["idle"] += 1
        await asyncio.sleep(0.6)
        await tx.execute("select 1")

    @service.on("sort", attempts=2)
    async def sort(payload: dict[str, int], tx: Transaction) -> None:
        runs["sort"] += 1
        await tx.fetch("select md5(g::text) from generate_series(1, 300000) g order by 1 limit 1 offset 299999")

    @service.on("innocent")
    async def innocent(payload: dict[str, int], tx: Transaction) -> None:
        runs["innocent"] += 1

    await service.start()
    try:
        for kind in ("idle", "sort", *["innocent"] * 20):
            await service.publish({}, type=kind)
        found: list[str] = []

        async def look() -> None:
            while len(found) < 2:
                letters = await service.runtime.store.dead_letters.search(DeadLetterFilter())
                found[:] = sorted(letter.consumer for letter in letters)
                await asyncio.sleep(0.1)

        async with asyncio.timeout(40):
            await look()

        assert ["idle", "sort"] == [name.rpartition(".")[2] for name in found]
        assert {"idle": 5, "sort": 5, "innocent": 20} == runs  # two that count, after three that do not
    finally:
        await service.stop()


async def test_the_victims_of_deadlocks_are_run_again_and_not_blamed(
    postgres: PostgresServer, postgres_url: str
) -> None:
    """PostgreSQL asks for it. Counted, they all came back in the same second, met again, and became dead letters."""
    await _set(postgres, postgres_url, "deadlock_timeout = '20ms'")
    service = _service(postgres_url)
    transfers, runs, done = 12, 0, 0

    @service.on("transfer", concurrency=4)
    async def transfer(payload: dict[str, list[int]], tx: Transaction) -> None:
        nonlocal runs, done
        runs += 1
        for account in payload["accounts"]:
            await tx.execute("update account set cents = cents + 1 where id = $1", account)
            await asyncio.sleep(0.02)
        done += 1

    await service.start()
    try:
        async with service.transaction() as tx:
            await tx.execute("create table account (id int primary key, cents int)")
            await tx.execute("insert into account select g, 0 from generate_series(1, 2) g")
        for n in range(transfers):
            await service.publish({"accounts": [1, 2] if n % 2 else [2, 1]}, type="transfer")
        await _until(lambda: done >= transfers)

        assert [] == list(await service.runtime.store.dead_letters.search(DeadLetterFilter()))
        assert runs > transfers  # or the test has shown nothing
    finally:
        await service.stop()


@contextmanager
def _no_descriptors() -> Iterator[None]:
    """Leave this process without a free file descriptor for the length of the block."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 3, hard))
    taken: list[int] = []
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_process_out_of_file_descriptors_finds_its_database_away_until_there_are_some(
    postgres_url: str,
) -> None:
    """Whoever used them up, no message is to blame; and what opens a connection must survive it."""
    async with postgres_store(postgres_url, listen=False) as store:
        for pool in store._pools:
            pool.drop_idle()
        await asyncio.sleep(0)  # the dropped ones close in a callback
        with _no_descriptors():
            with pytest.raises(StoreUnavailable, match="open files"):
                await store.ping()
            with pytest.raises(StoreUnavailable, match="open files"):
                async with store.transaction():
                    pass

        await store.ping()
        async with store.transaction() as tx:
            assert [1] == [row["n"] for row in await tx.fetch("select 1 as n")]
