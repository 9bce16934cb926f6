"""Orders placed at a bounded rate while servers fail, and the sums afterwards.

The clients' own record of what was accepted is the reference. A client whose call ends in StoreUnavailable does not
know whether it was taken and tries again under the same id, as a real one would. Half of the clients write a business
row with their event, half only publish.

Run as a program this file is a process that only relays, for tests that freeze one.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import asyncpg
import msgspec
import pika

from spoolproof import Delivery, Service, Settings, StoreUnavailable, Transaction, event, load_settings

NAMESPACE = UUID("c5a1f6de-2a43-4f0b-8d0a-6a7c6d0a4c55")
CLIENTS = 4
KEYS_EACH = 5
PACE_SECONDS = 0.04  #: of each client: 100 orders a second together
RETRY_SECONDS = 0.05
QUIET_SECONDS_MAX = 25.0
POLL_SECONDS = 0.02

TABLES = """
create table placed (n integer not null, key text not null);
create table effect (
  position bigint generated always as identity, queue text not null, key text not null, n integer not null,
  attempt integer not null);
"""
ORDERED, PARALLEL = "outage.ordered", "outage.parallel"
INSERT = "insert into effect (queue, key, n, attempt) values ($1, $2, $3, $4)"

CLEAN: dict[str, Any] = {
    "lost": [],
    "doubled": [],
    "invented": [],
    "out_of_order": [],
    "rows_without_order": [],
    "attempts_burnt": [],
    "dead_letters": [],
    "left_in_outbox": 0,
    "left_in_broker": {},
}


@event("outage.order")
class Order(msgspec.Struct):
    n: int
    key: str


def make_service(settings: Settings, may_run: asyncio.Event, *, is_ordered: bool = False) -> Service:
    """Two consumers of every order: one at a time, whose order can be checked, and ten at a time.

    may_run: while it is not set, handlers wait at their first line. is_ordered: the first asks for the order of a key;
    without that it is kept only while nothing is redelivered out of turn.
    """
    turns: dict[str, Any] = {"ordered": True} if is_ordered else {"concurrency": 1, "prefetch": 20}
    service = Service("outage", settings=settings)

    @service.on(Order, queue=ORDERED, **turns)
    async def ordered(order: Order, delivery: Delivery, tx: Transaction) -> None:
        await may_run.wait()
        await tx.execute(INSERT, ORDERED, order.key, order.n, delivery.attempt)

    @service.on(Order, queue=PARALLEL)
    async def parallel(order: Order, delivery: Delivery, tx: Transaction) -> None:
        await may_run.wait()
        await tx.execute(INSERT, PARALLEL, order.key, order.n, delivery.attempt)

    return service


class Outage:
    """A service under load. `accepted`: what its clients were told is safe, as (number, key) in order."""

    def __init__(
        self, postgres_url: str, rabbitmq_url: str, settings: Settings, pace_seconds: float, *, is_ordered: bool
    ) -> None:
        self.accepted: list[tuple[int, str]] = []
        self.may_run = asyncio.Event()
        self.may_run.set()
        self.service = make_service(settings, self.may_run, is_ordered=is_ordered)
        self._postgres_url = postgres_url
        self._rabbitmq_url = rabbitmq_url.partition(",")[0]
        self._pace_seconds = pace_seconds
        self._numbers = itertools.count(1)
        self._has_ended = False
        self._clients: list[asyncio.Task[None]] = []

    async def begin(self, *roles: str) -> None:
        """Start the service and the load; returns once effects come."""
        await self.service.start(**({"only": roles} if roles else {}))
        async with self.service.transaction() as tx:
            await tx.raw.execute(TABLES)  # type: ignore[attr-defined]
        self._clients = [asyncio.create_task(self._client(number)) for number in range(CLIENTS)]
        await self.progress()

    async def end(self, quiet_seconds_max: float = QUIET_SECONDS_MAX) -> dict[str, Any]:
        """End the load, wait until all is quiet, stop the service and return the sums; CLEAN when all is well."""
        self._has_ended = True
        await asyncio.gather(*self._clients)
        deadline = time.monotonic() + quiet_seconds_max
        while not await self._is_quiet() and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        await self.service.drain(5.0)
        await self.service.stop()
        left_in_broker = await asyncio.to_thread(self._left_in_broker)
        return {**await self._sums(), "left_in_broker": left_in_broker}

    async def abandon(self) -> None:
        """Let go of everything, whatever has happened."""
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        await self.service.stop()

    async def ask(self, sql: str, *args: object) -> list[Any]:
        """Query the database over a connection of its own."""
        connection = await asyncpg.connect(self._postgres_url, timeout=10)
        try:
            return list(await connection.fetch(sql, *args, timeout=10))
        finally:
            await connection.close(timeout=10)

    async def progress(self, seconds_max: float = 15.0) -> float:
        """Return after how many seconds an effect was there that was not when this was called."""
        before = await self._count("select count(*) from effect")
        return await self._until("select count(*) > $1 from effect", before, seconds_max=seconds_max)

    async def watch_backlog(self) -> Callable[[], Awaitable[float]]:
        """Note what waits in the outbox; the result waits until a row of it was confirmed and returns the seconds."""
        newest = await self._count("select coalesce(max(id), 0) from spoolproof.outbox")
        before = await self._count("select count(*) from spoolproof.outbox where id <= $1", newest)
        assert before > 0, "no backlog: the fault did not stop the relay"
        sql = "select count(*) < $2 from spoolproof.outbox where id <= $1"
        return lambda: self._until(sql, newest, before, seconds_max=15.0)

    async def shards_of(self, pid: int) -> int:
        """Return how many shards a process holds."""
        return await self._count(
            "select count(*) from spoolproof.lease l join spoolproof.process p on p.id = l.owner"
            " where l.kind = 'outbox' and l.lease_until > clock_timestamp() and p.pid = $1",
            pid,
        )

    async def all_effected(self, orders: list[tuple[int, str]]) -> bool:
        """Say whether every one of these has had its effects."""
        numbers = [n for n, _ in orders]
        return 2 * len(numbers) == await self._count("select count(*) from effect where n = any ($1)", numbers)

    # --- load ------------------------------------------------------------------------------------------------------

    async def _client(self, number: int) -> None:
        while not self._has_ended:
            n = next(self._numbers)
            key = f"key-{number}-{n % KEYS_EACH}"
            while not await self._is_taken(n, key, with_row=number % 2 == 0):
                await asyncio.sleep(RETRY_SECONDS)
            self.accepted.append((n, key))
            await asyncio.sleep(self._pace_seconds)

    async def _is_taken(self, n: int, key: str, *, with_row: bool) -> bool:
        id = str(uuid5(NAMESPACE, str(n)))
        try:
            if not with_row:
                await self.service.publish(Order(n, key), key=key, id=id)
                return True
            async with self.service.transaction() as tx:
                if not await tx.fetch("select n from placed where n = $1", n):
                    await tx.execute("insert into placed (n, key) values ($1, $2)", n, key)
                    await tx.publish(Order(n, key), key=key, id=id)
        except StoreUnavailable:
            return False
        return True

    # --- sums ------------------------------------------------------------------------------------------------------

    async def _count(self, sql: str, *args: object) -> int:
        return int((await self.ask(sql, *args))[0][0])

    async def _until(self, sql: str, *args: object, seconds_max: float) -> float:
        connection = await asyncpg.connect(self._postgres_url, timeout=10)
        try:
            began = time.monotonic()
            while not await connection.fetchval(sql, *args, timeout=10):
                assert time.monotonic() < began + seconds_max, f"waited {seconds_max:g} s for {sql}"
                await asyncio.sleep(POLL_SECONDS)
            return time.monotonic() - began
        finally:
            await connection.close(timeout=10)

    async def _is_quiet(self) -> bool:
        return await self._count("select count(*) from spoolproof.outbox") == 0 and await self.all_effected(
            self.accepted
        )

    async def _sums(self) -> dict[str, Any]:
        effects = await self.ask("select queue, key, n, attempt from effect order by position")
        placed = {row["n"] for row in await self.ask("select n from placed")}
        letters = await self.ask("select consumer, reason, message_id from spoolproof.dead_letter")
        numbers = [n for n, _ in self.accepted]
        counts = Counter((row["queue"], row["n"]) for row in effects)
        in_order: dict[str, list[int]] = defaultdict(list)
        for row in effects:
            if row["queue"] == ORDERED:
                in_order[row["key"]].append(row["n"])
        return {
            "lost": [(queue, n) for queue in (ORDERED, PARALLEL) for n in numbers if not counts[queue, n]],
            "doubled": [one for one, count in counts.items() if count > 1],
            "invented": sorted({row["n"] for row in effects} - set(numbers)),
            "out_of_order": [key for key, seen in in_order.items() if seen != sorted(seen)],
            "rows_without_order": sorted(placed - set(numbers)),
            "attempts_burnt": [tuple(row) for row in effects if row["attempt"] != 1],
            "dead_letters": [tuple(row) for row in letters],
            "left_in_outbox": await self._count("select count(*) from spoolproof.outbox"),
        }

    def _left_in_broker(self) -> dict[str, int]:
        """Return the queues that still hold something. Nobody consumes any more, so nothing is unacked."""
        with pika.BlockingConnection(pika.URLParameters(self._rabbitmq_url)) as connection:
            channel = connection.channel()
            names = [ORDERED, PARALLEL, f"{ORDERED}.dead", f"{PARALLEL}.dead", "outage.unrouted", "outage.delay.1s"]
            counts = {name: channel.queue_declare(name, passive=True).method.message_count for name in names}
        return {name: count for name, count in counts.items() if count}


@contextlib.asynccontextmanager
async def outage(
    postgres_url: str,
    rabbitmq_url: str,
    *,
    lease_seconds: float = 15.0,
    pace_seconds: float = PACE_SECONDS,
    is_ordered: bool = False,
) -> AsyncIterator[Outage]:
    """Make an outage to begin and end inside the block."""
    settings = load_settings(store=postgres_url, broker=rabbitmq_url, migrate="auto", lease_seconds=lease_seconds)
    one = Outage(postgres_url, rabbitmq_url, settings, pace_seconds, is_ordered=is_ordered)
    try:
        yield one
    finally:
        await one.abandon()


@contextlib.contextmanager
def relay_process(postgres_url: str, rabbitmq_url: str, folder: Path, lease_seconds: float) -> Iterator[int]:
    """Run a process that only relays; gives its pid and ends it, frozen or not."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("SPOOLPROOF", "RABBITMQ"))},
        "SPOOLPROOF_STORE": postgres_url,
        "SPOOLPROOF_BROKER": rabbitmq_url,
        "SPOOLPROOF_LEASE_SECONDS": str(lease_seconds),
    }
    with (folder / "relay.log").open("ab") as log:
        process = subprocess.Popen([sys.executable, __file__], env=environment, cwd=folder, stderr=log)
    try:
        yield process.pid
        process.terminate()
        assert process.wait(15) == 0, (folder / "relay.log").read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


async def relay_until_terminated() -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    service = make_service(load_settings(), asyncio.Event())
    await service.start(only=("relay",))
    await ended.wait()
    await service.drain()
    await service.stop()


if __name__ == "__main__":
    import logging

    logging.basicConfig(level="INFO", stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    asyncio.run(relay_until_terminated())
