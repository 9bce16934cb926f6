"""Every shared cache keeps the contract: Redis, and a file of one machine."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from spoolproof.caches.redis import RedisCache
from spoolproof.caches.sqlite import SqliteCache
from spoolproof.clock import SystemClock
from spoolproof.ports.cache import SharedCache
from spoolproof.testing.conformance import SharedCacheConformance
from spoolproof.testing.conformance.shared_cache import Connect
from spoolproof.testing.servers import RedisServer


@pytest.mark.servers
class TestRedis(SharedCacheConformance):
    @pytest.fixture
    async def connect(self, redis: RedisServer) -> AsyncIterator[Connect]:
        redis.start()
        name = f"suite-{uuid.uuid4().hex[:8]}"
        async with AsyncExitStack() as block:

            async def make() -> SharedCache:
                made = RedisCache(redis.url, name)
                block.push_async_callback(made.close)
                await made.start()
                return made

            yield make


class TestSqlite(SharedCacheConformance):
    @pytest.fixture
    async def connect(self, tmp_path: Path) -> AsyncIterator[Connect]:
        async with AsyncExitStack() as block:

            async def make() -> SharedCache:
                made = SqliteCache(tmp_path / "cache.db", SystemClock())
                block.push_async_callback(made.close)
                await made.start()
                return made

            yield make
