"""A cache on a Redis that sentinels or a cluster lead to, also when it is another one than before."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spoolproof import Service, Settings
from spoolproof.cache.part import CachePart
from spoolproof.testing.servers import RedisServer
from spoolproof.testing.servers.process import PrivateServer

pytestmark = [pytest.mark.integration, pytest.mark.servers]


class Sentinel(PrivateServer):
    """One sentinel, which is enough for a quorum of one. It is redis-server in another mode."""

    kind = "sentinel"

    def __init__(self, watched: RedisServer) -> None:
        super().__init__()
        self.port = self._new_port()
        config = self.directory / "sentinel.conf"
        config.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.directory}\n"
            f"sentinel monitor shop 127.0.0.1 {watched.port} 1\n"
            "sentinel down-after-milliseconds shop 500\nsentinel failover-timeout shop 2000\n"
        )
        self._server = self._new_process("sentinel", "redis-server", str(config), "--sentinel", env=watched._env)
        self._watched = watched

    @classmethod
    def missing(cls) -> str | None:
        return RedisServer.missing()

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:{self.port}/shop/0"

    def _start(self) -> None:
        self._server.start()

    def _is_ready(self) -> bool:
        command = ["redis-cli", "-p", str(self.port), "sentinel", "slaves", "shop"]
        return "127.0.0.1" in subprocess.run(command, capture_output=True, text=True, timeout=30).stdout

    def _stop(self) -> None:
        self._server.stop(15)


class Shop:
    def __init__(self, url: str, folder: Path) -> None:
        settings = Settings(store=f"sqlite:///{folder}/store.db", broker="memory://", cache=url)
        self.service = Service("shop", settings=settings)
        self.prices = self.service.cache("prices", of=int)
        self.loads = 0

    async def load(self, sku: str) -> int:
        self.loads += 1
        return self.loads

    async def is_shared(self, wanted: bool = True) -> None:
        async with asyncio.timeout(60):
            while self.failover.is_shared is not wanted:
                await asyncio.sleep(0.02)

    @property
    def failover(self) -> Any:
        return self.service.runtime.part(CachePart)._failover


@pytest.fixture
def pair() -> Iterator[tuple[RedisServer, RedisServer, Sentinel]]:
    if missing := RedisServer.missing():
        pytest.skip(missing)
    with RedisServer() as primary:
        primary.start()
        with RedisServer.replica_of(primary) as replica, Sentinel(primary) as sentinel:
            replica.start()
            sentinel.start()
            yield primary, replica, sentinel


@pytest.mark.timeout(120)
async def test_sentinels_lead_to_the_next_one(pair: tuple[RedisServer, RedisServer, Sentinel], tmp_path: Path) -> None:
    """Killed, its replica is promoted; what was removed before does not come back from it."""
    primary, replica, sentinel = pair
    shop = Shop(sentinel.url, tmp_path)
    await shop.service.start(only=())
    try:
        await shop.is_shared()
        assert 1 == await shop.prices.get_or_load("pen", shop.load)
        await shop.prices.remove("pen")

        primary.kill()
        await shop.is_shared(False)
        await shop.is_shared()
        assert "role:master" in replica.ask("INFO", "replication")
        assert 2 == await shop.prices.get_or_load("pen", shop.load)
        assert "sp:{shop}:prices:pen" in replica.ask("KEYS", "sp:{shop}:*")
    finally:
        await shop.service.stop()


@pytest.mark.timeout(120)
async def test_a_cluster_leads_to_the_node_of_the_slot(tmp_path: Path) -> None:
    """Here all slots are on the second of two nodes, and the URL names the first."""
    if missing := RedisServer.missing():
        pytest.skip(missing)
    cluster = ("--cluster-enabled", "yes", "--cluster-announce-ip", "127.0.0.1", "--cluster-node-timeout", "2000")
    with RedisServer(*cluster) as first, RedisServer(*cluster) as second:
        first.start()
        second.start()
        second.ask("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        first.ask("CLUSTER", "MEET", "127.0.0.1", str(second.port))
        async with asyncio.timeout(60):
            while "cluster_state:ok" not in first.ask("CLUSTER", "INFO"):
                await asyncio.sleep(0.1)
        shop = Shop(f"redis+cluster://127.0.0.1:{first.port}", tmp_path)
        await shop.service.start(only=())
        try:
            await shop.is_shared()
            assert [1, 1] == [await shop.prices.get_or_load("pen", shop.load) for _ in range(2)]
            await shop.prices.remove("pen")
            assert 2 == await shop.prices.get_or_load("pen", shop.load)
            assert "sp:{shop}:prices:pen" in second.ask("KEYS", "sp:{shop}:*")
        finally:
            await shop.service.stop()
