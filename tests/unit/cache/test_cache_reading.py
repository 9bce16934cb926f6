"""One cache in one process: who waits how long, who loads, and what each caller gets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from typing import Any

import msgspec
import pytest

from spoolproof import Service, Settings
from spoolproof.cache import read
from spoolproof.cache.cache import Cache
from spoolproof.errors import (
    BulkheadFull,
    CacheConfigError,
    CacheKeyInvalid,
    CacheRecursion,
    CacheValueInvalid,
    LimitReached,
    NotFound,
    NotStarted,
)


class Basket(msgspec.Struct):
    items: list[str]


Make = Callable[..., Any]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    service = Service("shop", settings=Settings(store="memory://", broker="memory://"))

    async def started(of: Any = None, **options: Any) -> Cache[Any]:
        cache = service.cache("things", of=of, **options)
        await service.start(only=())
        return cache

    yield started
    await service.stop()


class Source:
    """Counts its loads, and holds or fails them when told."""

    def __init__(self, value: Any = "v") -> None:
        self.value = value
        self.loads = 0
        self.error: BaseException | None = None
        self.gate: asyncio.Event | None = None
        self.begun = asyncio.Event()

    async def __call__(self, key: str) -> Any:
        self.loads += 1
        self.begun.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return self.value


async def test_ten_thousand_readers_one_load_and_the_first_may_leave(make: Make) -> None:
    """Who asked first is nobody special: when he is cancelled the others get their value."""
    cache, source = await make(), Source()
    source.gate = asyncio.Event()
    first = asyncio.create_task(cache.get_or_load("k", source))
    await source.begun.wait()
    others = [asyncio.create_task(cache.get_or_load("k", source)) for _ in range(10_000)]
    await asyncio.sleep(0)
    first.cancel()
    source.gate.set()

    assert ["v"] * 10_000 == await asyncio.gather(*others)
    assert (1, 1) == (source.loads, cache.stats().loads)


async def test_a_slow_loader_costs_a_reader_the_soft_timeout_and_its_late_value_is_kept(make: Make) -> None:
    cache = await make(soft_timeout_seconds=0.05)
    source = Source("old")
    await cache.get_or_load("k", source)
    await cache.expire("k")
    source.gate, source.value = asyncio.Event(), "new"

    served = await cache.fetch("k", source)
    source.gate.set()
    await asyncio.sleep(0.01)

    assert ("old", False, "timeout") == (served.value, served.fresh, served.reason)
    assert ("new", 2) == (await cache.get_or_load("k", source), source.loads)


async def test_a_loader_that_hangs_keeps_its_key_no_longer_than_its_deadline(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even one that ignores its cancellation; what it brings later is nobody's."""
    monkeypatch.setattr(read, "LOAD_SECONDS", 0.05)
    monkeypatch.setattr(read, "GRACE_SECONDS", 0.05)
    cache, done = await make(hard_timeout_seconds=1.5), asyncio.Event()

    async def stubborn(key: str) -> str:
        while not done.is_set():
            try:
                await done.wait()
            except asyncio.CancelledError:
                continue
        return "late"

    with pytest.raises(TimeoutError, match="cancelled after"):
        await cache.get_or_load("k", stubborn)
    assert "v" == await cache.get_or_load("k", Source())
    done.set()
    await asyncio.sleep(0.01)

    assert "v" == await cache.get("k")


async def test_nothing_at_hand_and_a_slow_loader_is_an_error_in_time(make: Make) -> None:
    cache, source = await make(soft_timeout_seconds=0.01, hard_timeout_seconds=0.05), Source()
    source.gate = asyncio.Event()

    with pytest.raises(TimeoutError, match=r"no value of 'k' in 0\.05 s"):
        await cache.get_or_load("k", source)
    source.gate.set()


async def test_a_failing_loader_is_answered_by_what_there_is_and_left_alone_for_a_while(make: Make) -> None:
    cache, source = await make(), Source()
    await cache.get_or_load("k", source)
    await cache.expire("k")
    source.error = ConnectionError("away")

    served = [await cache.fetch("k", source) for _ in range(5)]

    assert ["error", *["throttled"] * 4] == [one.reason for one in served]
    assert {"v"} == {one.value for one in served}
    assert (2, 5) == (source.loads, cache.stats().stale)
    assert "detail=error" in served[0].headers()["Cache-Status"]
    with pytest.raises(ConnectionError):
        await cache.get_or_load("other", source)


@pytest.mark.parametrize("error", [NotFound("no"), PermissionError("revoked")])
async def test_an_error_that_is_an_answer_takes_the_value_away(make: Make, error: Exception) -> None:
    """A revocation hidden by a stale value is a hole."""
    cache, source = await make(), Source()
    await cache.get_or_load("k", source)
    await cache.expire("k")
    source.error = error
    with pytest.raises(type(error)):
        await cache.get_or_load("k", source)
    source.error = ConnectionError("away")

    with pytest.raises(ConnectionError):
        await cache.get_or_load("k", source)


@pytest.mark.parametrize("how", ["remove", "remove_tag", "clear"])
async def test_a_removed_value_is_not_served_by_a_load_that_fails_later(make: Make, how: str) -> None:
    cache, source = await make(soft_timeout_seconds=0.5), Source("old")
    await cache.get_or_load("k", source, tags=["t"])
    await cache.expire("k")
    source.gate = asyncio.Event()
    source.begun.clear()
    reading = asyncio.create_task(cache.get_or_load("k", source, tags=["t"]))
    await source.begun.wait()

    await getattr(cache, how)(*({"remove": "k", "remove_tag": "t"}[how],) if how != "clear" else ())
    source.error = ConnectionError("away")
    source.gate.set()

    with pytest.raises(ConnectionError):
        await reading
    with pytest.raises(ConnectionError):
        await cache.get_or_load("k", source)


async def test_each_caller_has_a_copy_of_his_own(make: Make) -> None:
    cache, source = await make(Basket), Source(Basket(["a"]))

    for _ in range(3):
        found = await asyncio.gather(*(cache.get_or_load("k", source) for _ in range(3)))
        for one in found:
            assert ["a"] == one.items
            one.items.append("mine")
    (await cache.get("k")).items.clear()

    assert Basket(["a"]) == await cache.get("k")


async def test_none_is_a_value_for_a_short_while(make: Make) -> None:
    cache, source = await make(negative_ttl_seconds=0.05), Source(None)

    assert [None, None] == [await cache.get_or_load("k", source) for _ in range(2)]
    await asyncio.sleep(0.07)
    source.value = "there"

    assert ("there", 2) == (await cache.get_or_load("k", source), source.loads)


async def test_a_value_in_use_is_renewed_behind_its_readers(make: Make) -> None:
    cache, source = await make(ttl_seconds=0.2, eager_ratio=0.3), Source("old")
    await cache.get_or_load("k", source)
    source.value = "new"
    await asyncio.sleep(0.1)

    assert "old" == await cache.get_or_load("k", source)
    await asyncio.sleep(0.01)
    assert ("new", 2) == (await cache.get("k"), source.loads)


async def test_what_cannot_be_cached_is_returned_and_not_kept(make: Make) -> None:
    cache = await make(value_bytes_max=100)
    large, strange = Source("x" * 200), Source(Basket(["a"]))

    assert "x" * 200 == await cache.get_or_load("large", large)
    one, other = await asyncio.gather(*(cache.get_or_load("strange", strange) for _ in range(2)))

    assert (Basket(["a"]), 1) == (one, strange.loads)
    assert one is not other
    assert {} == await cache.get_many(["large", "strange"])
    with pytest.raises(CacheValueInvalid, match="at most 100"):
        await cache.set("large", "x" * 200)


async def test_many_at_once(make: Make) -> None:
    cache, asked = await make(), list[list[str]]()

    async def load(keys: list[str]) -> dict[str, str]:
        asked.append(keys)
        return {key: key.upper() for key in keys if key != "c"}

    await cache.set("a", "known", tags=["t"])
    assert {"a": "known", "b": "B"} == await cache.get_or_load_many(["a", "b", "c"], load)
    assert {"a": "known", "b": "B"} == await cache.get_many(["a", "b", "c"])
    await cache.remove_tag("t")
    assert {"b": "B"} == await cache.get_many(["a", "b", "c"])
    assert [["b", "c"]] == asked
    with pytest.raises(LimitReached):
        await cache.get_many([str(n) for n in range(10_001)])


async def test_parts_are_cleared_by_themselves(make: Make) -> None:
    cache = await make()
    seven, eight = cache.within("tenant-7"), cache.within("tenant-8")
    for one in (cache, seven, eight):
        await one.set("k", "v", tags=["t"])
    await seven.clear()
    assert ["v", None, "v"] == [await one.get("k") for one in (cache, seven, eight)]
    await cache.remove_tag("t")
    assert [None, None] == [await cache.get("k"), await eight.get("k")]
    await eight.set("k", "v")
    await cache.clear()
    assert await eight.get("k") is None


async def test_a_loader_inherits_nothing_and_cannot_ask_for_itself(make: Make) -> None:
    """It is nobody's: with the caller's transaction in its context it would write into it after its end."""
    cache, tenant = await make(), ContextVar[str]("tenant", default="nobody")
    tenant.set("caller")

    async def load(key: str) -> str:
        return tenant.get() if key == "context" else str(await cache.get_or_load("self", load))

    assert "nobody" == await cache.get_or_load("context", load)
    with pytest.raises(CacheRecursion):
        await cache.get_or_load("self", load)


async def test_more_loads_than_may_run_are_refused(make: Make) -> None:
    cache, source = await make(loads_max=2), Source()
    source.gate = asyncio.Event()
    running = [asyncio.create_task(cache.get_or_load(str(n), source)) for n in range(2)]
    await source.begun.wait()
    await asyncio.sleep(0.01)

    with pytest.raises(BulkheadFull):
        await cache.get_or_load("more", source)
    source.gate.set()
    await asyncio.gather(*running)
    assert "v" == await cache.get_or_load("more", source)


async def test_a_cached_function(make: Make) -> None:
    cache, calls = await make(), []

    @cache.cached("basket:{name}")
    async def basket(name: str, size: int = 1) -> Basket:
        calls.append(name)
        return Basket([name] * size)

    assert [Basket(["a"]), Basket(["a"]), Basket(["b"])] == [await basket(name) for name in ("a", "a", "b")]
    assert ["a", "b"] == calls
    await cache.remove("basket:a")
    await basket(name="a")
    assert ["a", "b", "a"] == calls


async def test_bad_input_is_refused_by_name(make: Make) -> None:
    cache = await make()
    for key in ("", "a\n", "x" * 1025, 5, None):
        with pytest.raises(CacheKeyInvalid, match="key "):
            await cache.get_or_load(key, Source())
    with pytest.raises(CacheKeyInvalid, match="list of tags"):
        await cache.set("k", "v", tags="t")
    with pytest.raises(CacheKeyInvalid, match="list of keys"):
        await cache.get_many("abc")


def test_a_cache_declared_wrongly_says_all_that_is_wrong() -> None:
    service = Service("shop")
    with pytest.raises(CacheConfigError) as caught:
        service.cache("Bad Name", ttl_seconds=0, soft_timeout_seconds=float("nan"), tll_seconds=3)
    assert 4 == len(caught.value.faults)
    with pytest.raises(CacheConfigError, match="below hard_timeout_seconds"):
        service.cache("x", soft_timeout_seconds=20)
    service.cache("x")
    with pytest.raises(CacheConfigError, match="declared already"):
        service.cache("x")


async def test_a_cache_is_used_while_its_service_runs() -> None:
    cache = Service("shop").cache("x")
    with pytest.raises(NotStarted, match="before its service"):
        await cache.get_or_load("k", Source())
