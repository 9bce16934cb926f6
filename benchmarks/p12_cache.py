"""P12 and P13: what a cached value costs, from memory and from Redis.

All contenders live in one process and take turns of SLICE calls. P12 is a hit in memory: `get`, `get_or_load` and a
function under `@cached`, over a bare coroutine call. P13 is a value that only Redis has: our cache may keep one entry
in memory and is asked for two keys in turn, so that each read goes to Redis; the peer is `get` of redis-py and the
decoding of the same bytes. Every read of ours also learns whether anything was invalidated.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import uvloop

from benchmarks.contest import Benchmark, Comparison, Sample, Target
from benchmarks.stage import Stage, check
from spoolproof import Service, Settings

CALLS = 20_000
REDIS_CALLS = 4000
SLICE = 200

Call = Callable[[], Awaitable[object]]


class Product(msgspec.Struct, frozen=True):
    sku: str
    name: str
    price: int
    tags: tuple[str, ...]


PRODUCT = Product("pen-0815", "A fountain pen with a medium nib", 4900, ("pens", "writing", "gifts"))


async def load(sku: str) -> Product:
    return PRODUCT


def measure_memory(stage: Stage, rounds: int) -> dict[str, list[Sample]]:
    found: Any = stage.turn("p12_cache", "memory", rounds=rounds, calls=stage.scale(CALLS, CALLS // 5))
    samples: dict[str, list[Sample]] = found
    return samples


def measure_redis(stage: Stage, rounds: int) -> dict[str, list[Sample]]:
    calls = stage.scale(REDIS_CALLS, REDIS_CALLS // 5)
    found: Any = stage.turn("p12_cache", "redis", rounds=rounds, calls=calls, url=stage.redis.url)
    samples: dict[str, list[Sample]] = found
    return samples


def turn_memory(rounds: int, calls: int) -> dict[str, list[Sample]]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_memory(rounds, calls))


def turn_redis(rounds: int, calls: int, url: str) -> dict[str, list[Sample]]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_redis(rounds, calls, url))


async def _memory(rounds: int, calls: int) -> dict[str, list[Sample]]:
    service = Service("bench", settings=Settings(store="memory://", broker="memory://", cache="memory"))
    products = service.cache("products", of=Product, ttl_seconds=3600)
    cached = products.cached("product:{sku}")(load)
    await service.start(only=())
    contenders: dict[str, Call] = {
        "bare": lambda: load("pen-0815"),
        "get": lambda: products.get("pen-0815"),
        "get_or_load": lambda: products.get_or_load("pen-0815", load),
        "decorator": lambda: cached("pen-0815"),
    }
    check(await products.get_or_load("pen-0815", load) == PRODUCT == await cached("pen-0815"), "no value")
    found = await _rounds(contenders, rounds, calls, time.process_time)  # nothing waits
    check(products.stats().loads == 2, "a hit in memory has loaded")
    await service.stop()
    return found


async def _redis(rounds: int, calls: int, url: str) -> dict[str, list[Sample]]:
    import redis.asyncio as redis

    service = Service("bench", settings=Settings(store="memory://", broker="memory://", cache=url))
    products = service.cache("products", of=Product, ttl_seconds=3600, entries_max=1)
    await service.start(only=())
    client = redis.Redis.from_url(url)
    decode = msgspec.msgpack.Decoder(Product).decode
    keys = ["pen-1", "pen-2"] * (calls // 2)
    for key in keys[:2]:
        await client.set(key, msgspec.msgpack.encode(PRODUCT))
        await products.set(key, PRODUCT)
    ours, theirs, loaded = iter(keys * rounds * 2), iter(keys * rounds * 2), iter(keys * rounds * 2)

    async def bare() -> Product:
        return decode(await client.get(next(theirs)))

    contenders: dict[str, Call] = {
        "redis-py": bare,
        "get": lambda: products.get(next(ours)),
        "get_or_load": lambda: products.get_or_load(next(loaded), load),
    }
    found = await _rounds(contenders, rounds, calls)
    stats = products.stats()
    check(stats.hits["redis"] >= calls * rounds and stats.loads == 0, "a read was not from Redis")
    await client.aclose()
    await service.stop()
    return found


async def _rounds(
    contenders: dict[str, Call], rounds: int, calls: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = {key: [] for key in contenders}
    for number in range(rounds + 1):
        spent = dict.fromkeys(contenders, 0.0)
        for _ in range((calls if number else SLICE) // SLICE):
            for key, call in contenders.items():
                begun = clock()
                for _ in range(SLICE):
                    await call()
                spent[key] += clock() - begun
        if number:  # the first is to warm up
            for key, seconds in spent.items():
                found[key].append({"whole": seconds / calls * 1e6})
    return found


def _at_most(bound: float) -> Target:
    return Target(bound, is_least=False)


_SWITCHES = {
    "values": "a frozen msgspec Struct of four fields",
    "loop": "uvloop; logging off",
    "rounds": "side by side",
}

P12 = Benchmark(
    id="P12",
    title="Cache hit in memory",
    contenders={
        "bare": "`await` of a coroutine that returns a constant",
        "get": "cache.get(key)",
        "get_or_load": "cache.get_or_load(key, load)",
        "decorator": "a function under @cache.cached('product:{sku}')",
    },
    measure_together=measure_memory,
    comparisons=(
        Comparison(ours="get", peer=None, label="get", metric="whole", unit="µs", target=_at_most(2)),
        Comparison(ours="get_or_load", peer=None, label="get_or_load", metric="whole", unit="µs", target=_at_most(2)),
        Comparison(ours="decorator", peer=None, label="decorator", metric="whole", unit="µs", target=_at_most(4)),
    ),
    switches={**_SWITCHES, "figures": "processor time"},
)
P13 = Benchmark(
    id="P13",
    title="Cache read from Redis",
    contenders={
        "redis-py": "redis.asyncio `get`, decoded",
        "get": "cache.get(key), not in memory",
        "get_or_load": "cache.get_or_load(key, load), not in memory",
    },
    measure_together=measure_redis,
    comparisons=(
        Comparison(
            ours="get", peer="redis-py", label="get ÷ redis-py", metric="whole", unit="µs", target=_at_most(1.15)
        ),
        Comparison(
            ours="get_or_load", peer="redis-py", label="get_or_load ÷ redis-py (a flight)", metric="whole", unit="µs"
        ),
    ),
    switches={**_SWITCHES, "Redis": "private, on 127.0.0.1; redis-py's own parser on both sides"},
)
