"""The cache on a real Redis: what each read and invalidation gives while it is killed, frozen, full, or another one."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from spoolproof import Service, Settings
from spoolproof.cache.cache import Cache
from spoolproof.cache.part import CachePart
from spoolproof.testing.servers import RedisServer

pytestmark = [pytest.mark.integration, pytest.mark.servers]


class Product(msgspec.Struct, frozen=True):
    sku: str
    price: int


class Shop:
    """One process's service with one cache, and a source of its values that counts."""

    def __init__(self, name: str, url: str, store: Path, **options: Any) -> None:
        settings = Settings(store=f"sqlite:///{store}", broker="memory://", cache=url)
        self.service = Service(name, settings=settings)
        self.products: Cache[Product] = self.service.cache("products", of=Product, **options)
        self.loads = 0
        self.price = 1
        self.error: Exception | None = None
        self.gate: asyncio.Event | None = None

    async def load(self, sku: str) -> Product:
        self.loads += 1
        price = self.price
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return Product(sku, price)

    async def read(self, sku: str = "a") -> int:
        return (await self.products.get_or_load(sku, self.load)).price

    @property
    def failover(self) -> Any:
        return self.service.runtime.part(CachePart)._failover

    async def is_shared(self, wanted: bool = True, seconds: float = 10) -> None:
        async with asyncio.timeout(seconds):
            while self.failover.is_shared is not wanted:
                await asyncio.sleep(0.01)


Start = Callable[..., Awaitable[Shop]]


@pytest.fixture
async def start(redis: RedisServer, tmp_path: Path) -> AsyncIterator[Start]:
    """Starts processes of one service, as far as they share nothing but Redis and the store."""
    redis.start()
    name = f"shop-{uuid.uuid4().hex[:8]}"
    async with AsyncExitStack() as block:

        async def make(url: str = "", **options: Any) -> Shop:
            shop = Shop(name, url or redis.url, tmp_path / "store.db", **options)
            await shop.service.start(only=())
            block.push_async_callback(shop.service.stop)
            return shop

        yield make


async def test_five_hundred_readers_are_one_question_and_one_load(redis: RedisServer, start: Start) -> None:
    """What makes a cache fall over is everybody asking at once."""
    shop = await start()
    before = int(redis.ask("INFO", "commandstats").partition("cmdstat_mget:calls=")[2].partition(",")[0] or 0)

    found = await asyncio.gather(*(shop.read() for _ in range(500)))

    after = int(redis.ask("INFO", "commandstats").partition("cmdstat_mget:calls=")[2].partition(",")[0])
    assert ([1] * 500, 1, 1) == (found, shop.loads, after - before)


async def test_what_one_process_loads_and_removes_the_other_sees(start: Start) -> None:
    one, other = await start(), await start()
    await one.read()
    other.price = one.price = 2

    assert (1, 0) == (await other.read(), other.loads)
    await one.products.remove("a")
    async with asyncio.timeout(2):
        while other.products._running.find("products:a") is not None:
            await asyncio.sleep(0.001)

    assert (2, 1) == (await other.read(), other.loads)


@pytest.mark.parametrize("take_away", ["remove", "expire", "remove_tag", "expire_tag", "clear", "set"])
@pytest.mark.parametrize("is_deaf", [False, True])
async def test_a_load_that_began_before_an_invalidation_elsewhere_is_not_stored(
    start: Start, take_away: str, is_deaf: bool
) -> None:
    """The oldest race of caches: read the row, somebody changes it and removes the key, store what was read. Whether
    it was heard or not, Redis refuses it."""
    one, other = await start(), await start()
    if is_deaf:
        one.failover.hear = one.failover.followers["products"].heard = lambda *_: None
        await asyncio.sleep(0.01)
    one.gate = asyncio.Event()
    reading = asyncio.create_task(one.products.get_or_load("a", one.load, tags=["t"]))
    while not one.loads:
        await asyncio.sleep(0.001)

    one.price = other.price = 2
    if take_away == "set":
        await other.products.set("a", Product("a", 2))
    elif take_away == "clear":
        await other.products.clear()
    else:
        await getattr(other.products, take_away)("t" if take_away.endswith("tag") else "a")
    one.gate.set()

    assert 1 == (await reading).price  # it had asked before
    assert (2, 2) == (await one.read(), await other.read())


@pytest.mark.parametrize("how", ["kill", "freeze"])
async def test_redis_away_and_back(redis: RedisServer, start: Start, how: str) -> None:
    """Reads go on, removals are kept; when it is back with what it held, nothing removed is there."""
    shop, peer = await start(), await start()
    await shop.products.set_many({key: Product(key, 1) for key in "abcd"})
    await asyncio.sleep(1.1)  # until the append-only file is flushed
    getattr(redis, how)()

    assert 1 == await shop.read("a")
    shop.price = peer.price = 2
    await shop.products.remove("b", "c")
    assert (2, 1) == (await shop.read("b"), shop.loads)
    await shop.is_shared(False)
    assert any("redis is not used" in one for one in shop.service.runtime.part(CachePart).report().issues)
    assert "unhealthy" == shop.service.runtime.monitor.status_of("redis")
    redis.start()
    await shop.is_shared()
    await peer.is_shared()
    assert "healthy" == shop.service.runtime.monitor.status_of("redis")

    assert [2, 2] == [await peer.read("b"), await peer.read("c")]
    assert 0 == len(await shop.service.runtime.store.state.all(shop.failover._kind))


async def test_frozen_redis_costs_a_tenth_of_a_second_with_a_stale_value_at_hand(
    redis: RedisServer, start: Start
) -> None:
    shop = await start(ttl_seconds=0.2, retry_throttle_seconds=0.001)
    await shop.read()
    await asyncio.sleep(0.3)
    shop.error = ConnectionError("the database, too")
    redis.freeze()
    try:
        loop = asyncio.get_running_loop()
        took = []
        for _ in range(8):
            begun = loop.time()
            served = await shop.products.fetch("a", shop.load)
            took.append(loop.time() - begun)
            assert (1, False) == (served.value.price, served.fresh)
            await asyncio.sleep(0.005)
        assert max(took) < 0.25  # 0.1 s and a slow machine
        assert took[-1] < 0.05  # by then it is left alone
        assert not shop.failover.is_shared
    finally:
        redis.thaw()
    await shop.is_shared()


async def test_full_redis(redis: RedisServer, start: Start) -> None:
    """Reads go on, what is loaded stays in memory, what is removed is gone, and kept until its mark is there."""
    shop, peer = await start(), await start()
    await shop.products.set_many({key: Product(key, 1) for key in "ab"})
    redis.ask("CONFIG", "SET", "maxmemory", "1")
    try:
        shop.price = peer.price = 2
        assert (1, 0) == (await peer.read("a"), peer.loads)
        assert (2, 2, 1) == (await shop.read("c"), await shop.read("c"), shop.loads)
        assert shop.failover.is_shared
        await shop.products.set("d", Product("d", 5))
        assert (True, 5) == (shop.failover.is_shared, await shop.read("d"))

        await shop.products.remove("b")

        assert (False, 2) == (shop.failover.is_shared, await shop.read("b"))
        assert 1 == len(await shop.service.runtime.store.state.all(shop.failover._kind))
        assert 2 == await peer.read("b")
    finally:
        redis.ask("CONFIG", "SET", "maxmemory", "0")
    await shop.is_shared()
    assert (2, 0) == (await peer.read("b"), len(shop.failover.pending))


async def test_a_password_that_changes(redis: RedisServer, start: Start) -> None:
    """Nothing but a person mends it: the service runs on memory, says so, and is back when they have."""
    shop = await start()
    await shop.products.set_many({key: Product(key, 1) for key in "ab"})
    redis.ask("CONFIG", "SET", "requirepass", "secret")
    redis.password = "secret"
    try:
        redis.ask("CLIENT", "KILL", "TYPE", "normal")
        redis.ask("CLIENT", "KILL", "TYPE", "pubsub")
        shop.price = 2
        await shop.is_shared(False)
        assert 1 == await shop.read("a")
        await shop.products.remove("b")
        assert (2, 1) == (await shop.read("b"), shop.loads)
        async with asyncio.timeout(5):
            while "password" not in " ".join(shop.service.runtime.part(CachePart).report().issues):
                await asyncio.sleep(0.05)
    finally:
        redis.ask("CONFIG", "SET", "requirepass", "")
        redis.password = ""
    await shop.is_shared()
    assert not shop.failover.pending


@pytest.mark.parametrize("how", ["empty", "older", "flushed"])
async def test_redis_that_forgot_gives_nothing_back(redis: RedisServer, start: Start, how: str) -> None:
    """A fail-over loses the last writes, a removal among them; what it removed must not be there again."""
    shop, peer = await start(), await start()
    await shop.products.set_many({key: Product(key, 1) for key in "ab"})
    assert [1, 1] == [await peer.read("a"), await peer.read("b")]
    await asyncio.sleep(1.1)
    data, old = redis.directory / "appendonlydir", redis.directory / "old"
    shutil.copytree(data, old)
    shop.price = peer.price = 2
    await shop.products.remove("b")

    if how == "flushed":
        redis.ask("FLUSHALL")
        shutil.rmtree(old)
    else:
        redis.kill()
        shutil.rmtree(data)
        old.rename(data) if how == "older" else shutil.rmtree(old)
        redis.start()
    third = await start()
    third.price = 2

    assert 2 == await third.read("b")
    await shop.is_shared()
    await peer.is_shared()
    assert [2, 2, 2] == [await shop.read("b"), await peer.read("b"), await third.read("b")]
    assert 1 <= await peer.read("a")


async def test_a_replica_that_only_reads(redis: RedisServer, start: Start) -> None:
    """It cannot keep a removal, so nothing is read from it."""
    primary = await start()
    await primary.products.set("a", Product("a", 1))
    with RedisServer.replica_of(redis) as replica:
        deadline = asyncio.get_running_loop().time() + 10
        while "master_link_status:up" not in replica.ask("INFO", "replication"):
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.05)
        shop = await start(replica.url)
        shop.price = 2
        assert (2, False) == (await shop.read(), shop.failover.is_shared)
        await shop.products.remove("a")
        assert 1 == len(await shop.service.runtime.store.state.all(shop.failover._kind))
        # whoever has the primary does it
        async with asyncio.timeout(40):
            while await primary.products.get("a") is not None:
                await asyncio.sleep(0.05)


@pytest.mark.parametrize(("how", "is_source_up"), [("cut", True), ("cut", False), ("gap", True), ("gap", False)])
async def test_what_is_told_and_not_heard_is_noticed(
    redis: RedisServer, start: Start, how: str, is_source_up: bool
) -> None:
    """Pub/sub forgets whoever is not there; the count does not. Nor is what was removed served as stale then."""
    shop, peer = await start(), await start()
    await shop.read()
    await peer.read()
    shop.price = peer.price = 2
    listener = peer.failover.followers["products"]
    listener.heard = lambda *_: None
    await shop.products.remove("a")
    del listener.heard
    assert 1 == peer.products._running.find("products:a").value.price
    if how == "cut":
        redis.ask("CLIENT", "KILL", "TYPE", "pubsub")
    else:  # as if one had been lost on its way, and another had come
        redis.ask("INCR", f"sp:{{{shop.service.name}}}@bell")
        await shop.products.remove("other")

    peer.error = None if is_source_up else ConnectionError("away")
    async with asyncio.timeout(40):
        try:
            while await peer.read() != 2:
                await asyncio.sleep(0.05)
        except ConnectionError:
            assert not is_source_up


@pytest.mark.parametrize("failpoint", ["cache.after_keep", "cache.after_deliver"])
async def test_an_invalidation_outlives_an_outage_and_a_kill(
    redis: RedisServer, start: Start, tmp_path: Path, failpoint: str
) -> None:
    """Killed where it is kept and nobody was told, and where it is done and still kept."""
    first = await start()
    await first.products.set_many({key: Product(key, 1) for key in "ab"})
    name = first.service.name
    await first.service.stop()
    redis.freeze()  # and not killed: a Redis that was started anew is not believed anyway
    code = textwrap.dedent(f"""
        import asyncio, os
        from spoolproof import Service
        service = Service({name!r})
        products = service.cache("products")
        async def main():
            await service.start(only=())
            print("started", flush=True)
            await products.remove("b")
            print("removed", flush=True)
            input()
            await asyncio.sleep(20)
        asyncio.run(main())
    """)
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("SPOOLPROOF", "REDIS"))}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=clean
        | {
            "SPOOLPROOF_STORE": f"sqlite:///{tmp_path / 'store.db'}",
            "SPOOLPROOF_BROKER": "memory://",
            "SPOOLPROOF_CACHE": redis.url,
            "SPOOLPROOF_FAILPOINTS": f"{failpoint}=kill",
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdin is not None
        assert "started" == process.stdout.readline().strip()
        if failpoint == "cache.after_deliver":
            assert "removed" == process.stdout.readline().strip()
            redis.thaw()
            process.stdin.write("\n")
            process.stdin.flush()
        assert -signal.SIGKILL == await asyncio.to_thread(process.wait, 20)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stdin.close()
    redis.thaw()
    next_one = await start()
    next_one.price = 2

    await next_one.is_shared()
    assert 2 == await next_one.read("b")
    assert {} == dict(await next_one.service.runtime.store.state.all(next_one.failover._kind))


async def test_more_than_can_be_kept_one_by_one_is_one_removal_of_all(redis: RedisServer, start: Start) -> None:
    """A thousand rows take longer than their caller waits; too much removed is a miss, too little is a lie."""
    shop = await start()
    keys = [f"k{n}" for n in range(1000)]
    await shop.products.set_many({key: Product(key, 1) for key in [*keys, "kept"]})
    redis.freeze()
    try:
        await shop.products.remove(*keys)
        assert 1 == len(await shop.service.runtime.store.state.all(shop.failover._kind))
    finally:
        redis.thaw()
    await shop.is_shared()

    assert {} == await shop.products.get_many([*keys, "kept"])


async def test_a_removal_in_an_outage_reaches_the_other_processes_through_the_store(
    redis: RedisServer, start: Start
) -> None:
    """What serves stale values in an outage must not serve what was removed in it."""
    shop, peer = await start(), await start()
    await shop.products.set("b", Product("b", 1))
    assert 1 == await peer.read("b")
    peer.error = ConnectionError("away, too")
    redis.freeze()
    try:
        await shop.products.remove("b")
        async with asyncio.timeout(9):
            with pytest.raises(ConnectionError):
                while await peer.read("b"):
                    await asyncio.sleep(0.1)
    finally:
        redis.thaw()
    await peer.is_shared()


async def test_killed_in_the_middle_of_a_pipeline_nothing_half_done_is_served(redis: RedisServer, start: Start) -> None:
    """Some of a thousand removals may have been made: all of them are, before Redis is read again."""
    shop, peer = await start(), await start()
    keys = [f"k{n}" for n in range(900)]
    await shop.products.set_many({key: Product(key, 1) for key in keys})
    await asyncio.sleep(1.1)  # until the append-only file is flushed
    shop.price = peer.price = 2

    removing = asyncio.ensure_future(shop.products.remove(*keys))
    await asyncio.sleep(0.002)  # wherever it is by then
    redis.kill()
    await removing
    redis.start()
    await shop.is_shared()
    await peer.is_shared()

    assert {2} == {product.price for product in (await peer.products.get_or_load_many(keys, _priced(peer))).values()}


def _priced(shop: Shop) -> Callable[[list[str]], Awaitable[dict[str, Product]]]:
    async def load(keys: list[str]) -> dict[str, Product]:
        return {key: Product(key, shop.price) for key in keys}

    return load
