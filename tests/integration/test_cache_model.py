"""Two processes, one Redis, against a model: whatever they do to each other, a removed value never comes back.

The source is a number for each key that only rises. Whoever changes it takes the old value away afterwards, as services
do. From the moment that returned, in his process, and from the moment the other process heard of it, in that one, no
read that begins may give a number below, whether loads were on their way, failed, or connections were cut.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import defaultdict
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from spoolproof import Service, Settings
from spoolproof.cache.failover import Failover
from spoolproof.cache.part import CachePart
from spoolproof.testing.servers import RedisServer

pytestmark = [pytest.mark.integration, pytest.mark.servers]

PROCESS = st.integers(0, 1)
KEY = st.sampled_from("ab")
CHANGE = st.tuples(st.sampled_from(["remove", "remove_tag", "clear", "set", "expire"]), PROCESS, KEY)
STEP = st.one_of(
    CHANGE.map(lambda change: ("change", change)),
    st.tuples(CHANGE, CHANGE).map(lambda both: ("both", *both)),
    st.tuples(st.just("read"), PROCESS, KEY),
    st.tuples(st.just("begin"), PROCESS, KEY),
    st.tuples(st.just("many"), PROCESS),
    st.tuples(st.just("finish")),
    st.tuples(st.just("source"), st.booleans()),
    st.tuples(st.just("cut"), st.sampled_from(["pubsub", "normal"])),
)


class World:
    """Both processes, the source, and what may be read."""

    def __init__(self, redis: RedisServer) -> None:
        self.redis = redis
        name = f"model-{uuid.uuid4().hex[:8]}"
        made = [Settings(store="memory://", broker="memory://", cache=redis.url) for _ in range(2)]
        self.services = [Service(name, settings=one) for one in made]
        options: Any = {"retry_throttle_seconds": 0.001, "soft_timeout_seconds": 0.1, "hard_timeout_seconds": 0.3}
        self.caches = [service.cache("things", **options) for service in self.services]
        self.truth = defaultdict[str, int](lambda: 1)
        self.gone = [defaultdict[str, int](int) for _ in range(2)]  # below this is removed
        self.stale = [defaultdict[str, int](int) for _ in range(2)]  # below this is not served while the source works
        self.is_up = True
        self.gate = asyncio.Event()
        self.waiting: list[asyncio.Task[None]] = []

    async def load(self, key: str, *, is_held: bool = False) -> int:
        if not self.is_up:
            raise ConnectionError("away")
        found = self.truth[key]
        if is_held:
            await self.gate.wait()
        return found

    async def read(self, process: int, key: str) -> None:
        least = self.gone[process][key]
        wanted = self.stale[process][key] if self.is_up else 0
        try:
            found = await self.caches[process].get_or_load(key, self.load, tags=["t"])
        except (ConnectionError, TimeoutError):  # a load that is held holds its readers
            return
        assert found >= least, f"{key}={found} came back in process {process}; below {least} is removed"
        if self.is_up:
            assert found >= wanted

    async def begin(self, process: int, key: str) -> None:
        async def held(key: str) -> int:
            return await self.load(key, is_held=True)

        async def wait() -> None:
            least = self.gone[process][key]
            with suppress(ConnectionError, TimeoutError):  # a load that is held holds its readers
                assert await self.caches[process].get_or_load(key, held, tags=["t"]) >= least

        self.waiting.append(asyncio.create_task(wait()))
        await asyncio.sleep(0.002)

    async def many(self, process: int) -> None:
        async def load(keys: list[str]) -> dict[str, int]:
            return {key: await self.load(key) for key in keys}

        least = dict(self.gone[process])
        try:
            found = await self.caches[process].get_or_load_many(["a", "b"], load, tags=["t"])
        except (ConnectionError, TimeoutError):  # a load that is held holds its readers
            return
        assert all(value >= least.get(key, 0) for key, value in found.items())

    async def finish(self) -> None:
        self.gate.set()
        await asyncio.gather(*self.waiting)
        self.waiting.clear()
        self.gate = asyncio.Event()

    async def change(self, *changes: tuple[str, int, str]) -> None:
        """Change the source, take away, and wait until both have heard."""
        for verb, _, key in changes:
            for one in "ab" if verb in ("remove_tag", "clear") else key:
                self.truth[one] += 1
        await asyncio.gather(*(self._take_away(*change) for change in changes))
        await self.settle()
        for verb, _, key in changes:
            for one in "ab" if verb in ("remove_tag", "clear") else key:
                for process in range(2):
                    self.stale[process][one] = self.truth[one]
                    if verb not in ("expire", "set"):
                        self.gone[process][one] = self.truth[one]

    async def settle(self) -> None:
        """Return when what was kept is done and both have heard all: what is told last is heard last."""
        async with asyncio.timeout(20):
            while not all(one.is_shared and not one.pending for one in self.failovers):
                await asyncio.sleep(0.002)
            for teller, hearer in ((0, 1), (1, 0)):
                turn = self.caches[hearer]._running.turn
                await self.caches[teller].remove("fence")
                while self.caches[hearer]._running.turn == turn:
                    await asyncio.sleep(0.001)
            while not all(one.is_shared and not one.pending for one in self.failovers):
                await asyncio.sleep(0.002)

    @property
    def failovers(self) -> list[Failover]:
        return [service.runtime.part(CachePart)._failover for service in self.services]

    async def _take_away(self, verb: str, process: int, key: str) -> None:
        cache = self.caches[process]
        if verb == "set":
            await cache.set(key, self.truth[key], tags=["t"])
        elif verb == "clear":
            await cache.clear()
        else:
            await getattr(cache, verb)("t" if verb == "remove_tag" else key)

    def source(self, is_up: bool) -> None:
        self.is_up = is_up

    async def cut(self, kind: str) -> None:
        await asyncio.to_thread(self.redis.ask, "CLIENT", "KILL", "TYPE", kind)

    async def run(self, steps: list[tuple[Any, ...]]) -> None:
        for verb, *arguments in steps:
            done = getattr(self, "change" if verb == "both" else verb)(*arguments)
            if done is not None:
                await done
        await self.finish()
        self.is_up = True
        for process in range(2):
            for key in "ab":
                await self.read(process, key)


@settings(
    max_examples=15,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
@given(steps=st.lists(STEP, min_size=4, max_size=16))
def test_a_removed_value_never_comes_back(redis: RedisServer, steps: list[tuple[Any, ...]]) -> None:
    async def scene() -> None:
        world = World(redis)
        for service in world.services:
            await service.start(only=())
        try:
            await world.settle()
            await world.run(steps)
        finally:
            for service in world.services:
                await service.stop()

    redis.start()
    asyncio.run(scene())
