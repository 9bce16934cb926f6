"""The cache on a real Redis: what each read and invalidation gives while it is killed, frozen, full, or another one."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
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


@asynccontextmanager
async def own_redis(*options: str) -> AsyncIterator[RedisServer]:
    with RedisServer(*options) as server:
        yield server


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
async def test_a_load_that_began_before_an_invalidation_elsewhere_is_not_stored(start: Start, take_away: str) -> None:
    """The oldest race of caches: read the row, somebody changes it and removes the key, store what was read."""
    one, other = await start(), await start()
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


async def test_redis_killed_and_back(redis: RedisServer, start: Start) -> None:
    """Reads go on, removals are kept; when it is back with what it held, nothing removed is there."""
    shop, peer = await start(), await start()
    await shop.products.set_many({key: Product(key, 1) for key in "abcd"})
    await asyncio.sleep(1.1)  # until the append-only file is flushed
    redis.kill()

    assert 1 == await shop.read("a")
    shop.price = peer.price = 2
    await shop.products.remove("b", "c")
    assert (2, 1) == (await shop.read("b"), shop.loads)
    await shop.is_shared(False)
    assert any("redis is not used" in one for one in shop.service.runtime.part(CachePart).report().issues)
    redis.start()
    await shop.is_shared()
    await peer.is_shared()

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
