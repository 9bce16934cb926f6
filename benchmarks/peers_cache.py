"""What caches serve when something fails: eight failures, on a real Redis, for six libraries. By hand, not in CI.

    python -m venv /tmp/peers
    /tmp/peers/bin/pip install 'spoolproof[redis]' cashews aiocache cachetools dogpile.cache cachekit
    /tmp/peers/bin/python benchmarks/peers_cache.py

Each library is set up as its own documentation recommends for this, and runs in a process of its own. A reader is given
up after five seconds. `known` is a key that was read before the failure, `cold` one that was not; their source works
but in the seventh failure.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import version
from typing import Any

from spoolproof.testing.servers import RedisServer

PATIENCE = 5.0
TRIAL_SECONDS = 40
Load = Callable[[str], Awaitable[str]]
FAILURES = (
    "killed",
    "frozen",
    "full",
    "restarted empty",
    "password changed",
    "read-only",
    "loader fails",
    "500 readers",
)


class Source:
    """What is cached. ttl: of the fresh values in seconds."""

    def __init__(self) -> None:
        self.loads = 0
        self.version = 1
        self.fails = False
        self.seconds = 0.0

    async def load(self, key: str) -> str:
        self.loads += 1
        await asyncio.sleep(self.seconds)
        if self.fails:
            raise ConnectionError("the source is away")
        return f"{key} v{self.version}"

    def load_sync(self, key: str) -> str:
        self.loads += 1
        time.sleep(self.seconds)
        if self.fails:
            raise ConnectionError("the source is away")
        return f"{key} v{self.version}"


class Contender:
    """One library. package: whose version is shown."""

    package = ""

    async def start(self, url: str, source: Source, ttl: float) -> None:
        raise NotImplementedError

    async def read(self, key: str) -> str:
        raise NotImplementedError

    async def stop(self) -> None:
        return None


class Spoolproof(Contender):
    package = "spoolproof"

    async def start(self, url: str, source: Source, ttl: float) -> None:
        from spoolproof import Service, Settings

        self._service = Service("peers", settings=Settings(store="memory://", broker="memory://", cache=url))
        self._cache = self._service.cache("values", ttl_seconds=ttl)
        self._source = source
        await self._service.start()

    async def read(self, key: str) -> str:
        return str(await self._cache.get_or_load(key, self._source.load))

    async def stop(self) -> None:
        await self._service.stop()


class Cashews(Contender):
    package = "cashews"

    async def start(self, url: str, source: Source, ttl: float) -> None:
        from cashews import cache

        cache.setup(url, client_side=True)
        read = cache(ttl=ttl, key="v:{key}", lock=True)(source.load)
        self._read = cache.failover(ttl="1d", key="f:{key}")(read)
        self._cache = cache

    async def read(self, key: str) -> str:
        return str(await self._read(key))

    async def stop(self) -> None:
        await self._cache.close()


class Aiocache(Contender):
    package = "aiocache"

    async def start(self, url: str, source: Source, ttl: float) -> None:
        from aiocache import Cache, cached_stampede

        port = int(url.rsplit(":", 1)[1].split("/")[0])

        @cached_stampede(cache=Cache.REDIS, endpoint="127.0.0.1", port=port, ttl=ttl, key_builder=lambda f, key: key)
        async def read(key: str) -> str:
            return await source.load(key)

        self._read = read

    async def read(self, key: str) -> str:
        return str(await self._read(key))


class Cachetools(Contender):
    """A TTLCache over redis-py, as both documents show it."""

    package = "cachetools"

    async def start(self, url: str, source: Source, ttl: float) -> None:
        import redis.asyncio as redis
        from cachetools import TTLCache

        self._memory: Any = TTLCache(10_000, ttl)
        self._redis: Any = redis.from_url(url)
        self._source, self._ttl = source, ttl

    async def read(self, key: str) -> str:
        if key in self._memory:
            return str(self._memory[key])
        found = await self._redis.get(key)
        if found is None:
            found = (await self._source.load(key)).encode()
            await self._redis.set(key, found, px=int(self._ttl * 1000))
        self._memory[key] = found.decode()
        return str(found.decode())

    async def stop(self) -> None:
        await self._redis.aclose()


class Threaded(Contender):
    """A library that blocks, in as many threads as there are readers."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(512)

    def read_sync(self, key: str) -> str:
        raise NotImplementedError

    async def read(self, key: str) -> str:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self.read_sync, key)


class Dogpile(Threaded):
    package = "dogpile.cache"

    async def start(self, url: str, source: Source, ttl: float) -> None:
        from dogpile.cache import make_region

        self._source = source
        arguments = {"url": url, "socket_timeout": 0.5, "redis_expiration_time": 86_400}
        self._region = make_region().configure("dogpile.cache.redis", expiration_time=ttl, arguments=arguments)

    def read_sync(self, key: str) -> str:
        return str(self._region.get_or_create(key, lambda: self._source.load_sync(key)))


class Cachekit(Threaded):
    package = "cachekit"

    async def start(self, url: str, source: Source, ttl: float) -> None:
        os.environ["REDIS_URL"] = os.environ["CACHEKIT_REDIS_URL"] = url
        from cachekit import cache

        @cache.production(ttl=int(max(1, ttl)), namespace="values")
        async def read(key: str) -> str:
            return await source.load(key)

        self._read: Any = read

    async def read(self, key: str) -> str:
        return str(await self._read(key))


CONTENDERS: dict[str, type[Contender]] = {
    one.__name__.lower(): one for one in (Spoolproof, Cashews, Aiocache, Cachetools, Dogpile, Cachekit)
}


async def asked(contender: Contender, key: str, expected: str) -> str:
    """Return what one reader gets, and after how long."""
    began = time.monotonic()
    try:
        async with asyncio.timeout(PATIENCE):
            value = await contender.read(key)
        told = {f"{key} v1": "v1", f"{key} v2": "v2"}.get(value, f"wrong: {value[:20]}")
    except TimeoutError:
        told = "nothing"
    except BaseException as error:
        told = type(error).__name__
    seconds = time.monotonic() - began
    return told if seconds < 0.1 else f"{told}, {seconds:.1f} s"


async def trial(name: str, failure: str) -> str:
    with RedisServer() as server:
        server.start()
        contender, source = CONTENDERS[name](), Source()
        ttl = 1.0 if failure == "loader fails" else 60.0
        await contender.start(server.url, source, ttl)
        try:
            if failure == "500 readers":
                source.seconds = 0.2
                began = time.monotonic()
                answers = await asyncio.gather(*(asked(contender, "cold", "v1") for _ in range(500)))
                wrong = sum(not one.startswith("v1") for one in answers)
                return f"{source.loads} loads, {time.monotonic() - began:.1f} s" + (
                    f", {wrong} failed" if wrong else ""
                )
            await contender.read("known")
            await asyncio.sleep(0.2)
            await broken(server, failure, source)
            source.version = 2
            if failure == "loader fails":
                return await asked(contender, "known", "v1")
            return f"known {await asked(contender, 'known', 'v1')}; cold {await asked(contender, 'cold', 'v2')}"
        finally:
            if failure == "frozen":
                server.thaw()
            with suppress(Exception):  # not what is asked here
                async with asyncio.timeout(5):
                    await contender.stop()


async def broken(server: RedisServer, failure: str, source: Source) -> None:
    match failure:
        case "killed":
            server.kill()
        case "frozen":
            server.freeze()
        case "full":
            server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
            server.ask("CONFIG", "SET", "maxmemory", "1")
        case "restarted empty":
            server.forget()
        case "password changed":
            server.ask("CONFIG", "SET", "requirepass", "another")
            server.password = "another"
            server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        case "read-only":
            server.ask("REPLICAOF", "127.0.0.1", "1")
        case "loader fails":
            await asyncio.sleep(1.5)  # what is there is stale now
            source.fails = True
    await asyncio.sleep(0.3)


def main() -> None:
    if len(sys.argv) == 3:
        logging.disable(logging.CRITICAL)
        try:
            told = asyncio.run(trial(*sys.argv[1:]))
        except BaseException as error:
            told = f"no result: {type(error).__name__}: {error}"[:120]
        print(json.dumps(told), flush=True)
        os._exit(0)  # threads that hang are the library's
    rows = []
    for name, contender in CONTENDERS.items():
        cells = []
        for failure in FAILURES:
            command = [sys.executable, __file__, name, failure]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=TRIAL_SECONDS)
            except subprocess.TimeoutExpired:
                cells.append(f"the process hangs, {TRIAL_SECONDS} s")
            else:
                lines = done.stdout.strip().splitlines()
                cells.append(json.loads(lines[-1]) if lines else f"no result: {done.stderr[-80:]}")
            print(f"{name:12} {failure:18} {cells[-1]}", file=sys.stderr, flush=True)
        rows.append((f"{contender.package} {version(contender.package)}", cells))
    print("| Failure | " + " | ".join(name for name, _ in rows) + " |")
    print("|---|" + "---|" * len(rows))
    for number, failure in enumerate(FAILURES):
        print(f"| {failure} | " + " | ".join(cells[number] for _, cells in rows) + " |")


if __name__ == "__main__":
    main()
