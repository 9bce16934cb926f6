"""The cache on a file of this machine: shared by processes, kept over restarts, replaced when it is damaged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from spoolproof import Service, Settings
from spoolproof.cache.cache import Cache
from spoolproof.cache.part import CachePart
from spoolproof.telemetry.events import Event, listening
from spoolproof.testing.clock import ManualClock

pytestmark = pytest.mark.integration

Start = Callable[[], Awaitable["Shop"]]


class Shop:
    """One process's service, with one cache and a source of its values."""

    def __init__(self, folder: Path) -> None:
        self.service = Service("shop", settings=Settings(data_dir=folder, broker="memory://"))
        self.things: Cache[int] = self.service.cache("things", retry_throttle_seconds=0.001)
        self.value = 1
        self.loads = 0
        self.gate: asyncio.Event | None = None

    async def load(self, key: str) -> int:
        self.loads += 1
        found = self.value
        if self.gate is not None:
            await self.gate.wait()
        return found

    async def read(self, key: str = "a") -> int:
        return await self.things.get_or_load(key, self.load, tags=["t"])


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    async with AsyncExitStack() as block:

        async def make() -> Shop:
            shop = Shop(tmp_path)
            await shop.service.start(only=())
            block.push_async_callback(shop.service.stop)
            assert shop.service.runtime.part(CachePart)._failover.is_shared
            return shop

        yield make


@pytest.mark.parametrize("take_away", ["remove", "expire", "remove_tag", "expire_tag", "clear", "set"])
@pytest.mark.parametrize("is_deaf", [False, True])
async def test_a_load_that_began_before_an_invalidation_elsewhere_is_not_stored(
    start: Start, take_away: str, is_deaf: bool
) -> None:
    one, other = await start(), await start()
    if is_deaf:
        one.things._running.heard = lambda *_: None  # type: ignore[method-assign]
    one.gate = asyncio.Event()
    reading = asyncio.create_task(one.read())
    while not one.loads:
        await asyncio.sleep(0.001)

    one.value = other.value = 2
    if take_away == "set":
        await other.things.set("a", 2, tags=["t"])
    elif take_away == "clear":
        await other.things.clear()
    else:
        await getattr(other.things, take_away)("t" if take_away.endswith("tag") else "a")
    one.gate.set()

    assert 1 == await reading
    assert (2, 2) == (await one.read(), await other.read())


async def test_what_one_process_removes_the_other_forgets(start: Start) -> None:
    one, other = await start(), await start()
    assert (1, 1, 0) == (await one.read(), await other.read(), other.loads)
    one.value = other.value = 2
    await one.things.remove("a")

    async with asyncio.timeout(3):
        while other.things._running.find("things:a") is not None:
            await asyncio.sleep(0.01)

    assert (2, 2) == (await other.read(), await one.read())


async def test_values_and_removals_are_there_after_a_restart(start: Start) -> None:
    first = await start()
    await first.things.set_many({"a": 1, "b": 1, "c": 1}, tags=["t"])
    await first.things.remove("b")
    await first.service.stop()

    second = await start()

    assert {"a": 1, "c": 1} == await second.things.get_many(["a", "b", "c"])
    await second.things.remove_tag("t")
    await second.service.stop()
    assert {} == await (await start()).things.get_many(["a", "b", "c"])


async def test_a_damaged_file_is_put_aside_and_the_service_starts(start: Start, tmp_path: Path) -> None:
    """A lost cached value is a miss; a service that does not start is an outage."""
    first = await start()
    await first.read()
    await first.service.stop()
    file = tmp_path / "cache-shop.db"
    file.write_bytes(b"not a database" * 1000)
    told = list[Event]()

    with listening(told.append):
        second = await start()

    assert (1, 1) == (await second.read(), second.loads)
    assert 1 == len(list(tmp_path.glob("cache-shop.db.corrupt-*")))
    assert "cache.file_replaced" in [one.name for one in told]


async def test_a_full_disk_costs_hits_and_no_errors(start: Start) -> None:
    """Reads and loads go on, what is removed is gone, and the file takes it up again when it can."""
    one = await start()
    failover = one.service.runtime.part(CachePart)._failover
    assert 1 == await one.read()
    database = failover.shared._database  # type: ignore[union-attr]
    await database.write(lambda file: file.execute("pragma max_page_count = 1").fetchone())
    one.value = 2

    assert [2] * 100 == [await one.things.get_or_load(f"k{n}", one.load) for n in range(100)]
    await one.things.remove("a", "k7")

    assert (2, 2) == (await one.read(), await one.read("k8"))
    await database.write(lambda file: file.execute("pragma max_page_count = 1073741823").fetchone())
    async with asyncio.timeout(55):
        while not failover.is_shared or failover.pending:
            await asyncio.sleep(0.05)
    assert 2 == await one.read("k7")


async def test_a_clock_that_went_back_makes_nothing_fresh_for_longer(tmp_path: Path) -> None:
    """What was loaded an hour from now is of no known age: it is loaded anew, and served only if that fails."""
    clock = ManualClock()
    for value, error in ((1, None), (2, None), (3, ConnectionError("away"))):
        service = Service("shop", settings=Settings(data_dir=tmp_path, broker="memory://"), clock=clock)
        things: Cache[int] = service.cache("things", retry_throttle_seconds=0.001)

        async def load(key: str, value: int = value, error: Exception | None = error) -> int:
            if error is not None:
                raise error
            return value

        await service.start(only=())
        try:
            served = await things.fetch("a", load)
        finally:
            await service.stop()
        clock.move_wall(-3600)
        assert (min(value, 2), error is None) == (served.value, served.fresh)
