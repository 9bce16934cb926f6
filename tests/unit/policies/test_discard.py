"""A result that nobody gets is ended: its connection goes back before the next attempt needs it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from spoolproof.policies import AttemptTimeout, Classifier, Fallback, Hedge, Kind, Policy, Registry, Retry, Timeout
from spoolproof.testing.clock import ManualClock

from .conftest import settle

Make = Callable[..., Policy]

BUSY = Classifier().result(lambda value: Kind.TRANSIENT if getattr(value, "is_busy", False) else None)


class Closed:
    """A response that knows how it was closed."""

    def __init__(self, is_busy: bool = True) -> None:
        self.is_busy = is_busy
        self.by: list[str] = []

    def close(self) -> None:
        self.by.append("close")


class Streamed(Closed):
    async def aclose(self) -> None:
        await asyncio.sleep(0)
        self.by.append("aclose")


class Pool:
    """Has one connection; a response that is not closed keeps it."""

    def __init__(self, kind: type[Closed], busy_times: int) -> None:
        self.kind = kind
        self.busy_times = busy_times
        self.given: list[Closed] = []

    def ask_sync(self) -> Closed:
        assert all(response.by for response in self.given), "the pool is empty"
        self.given.append(self.kind(is_busy=len(self.given) < self.busy_times))
        return self.given[-1]

    async def ask(self) -> Closed:
        return self.ask_sync()


@pytest.mark.parametrize(("kind", "how"), [(Closed, "close"), (Streamed, "aclose")])
async def test_a_result_that_is_tried_again_is_closed_before_the_back_off(
    make: Make, clock: ManualClock, kind: type[Closed], how: str
) -> None:
    policy = make(Retry(3, delay_seconds=60, delay_seconds_max=60), classify=BUSY, idempotent=True)
    pool = Pool(kind, busy_times=1)
    call = asyncio.ensure_future(policy.call(pool.ask))
    await settle()
    assert ([how], False) == (pool.given[0].by, call.done())

    await clock.advance(60)

    assert (pool.given[1], []) == (await call, pool.given[1].by)


async def test_the_result_a_caller_gets_is_open_whatever_it_means(make: Make, clock: ManualClock) -> None:
    policy = make(Retry(2, delay_seconds=0), classify=BUSY, idempotent=True)
    pool, pool_sync = Pool(Closed, busy_times=9), Pool(Closed, busy_times=9)

    found = [await policy.call(pool.ask), await asyncio.to_thread(policy.call_sync, pool_sync.ask_sync)]

    assert [["close"], []] == [one.by for one in pool.given] == [one.by for one in pool_sync.given]
    assert [pool.given[1], pool_sync.given[1]] == found


async def test_a_result_that_a_fallback_replaces_is_closed_once_it_has_answered(make: Make) -> None:
    """Not before: a rung may read it, and may return it."""
    seen: list[list[str]] = []

    def rung(error: Any) -> str:
        seen.append([*error.value.by])
        return "stale"

    policy = make(Fallback(rung), classify=BUSY)
    keeping = make(Fallback(lambda error: error.value), classify=BUSY, name="keeping")
    failing = make(Fallback(lambda error: 1 / 0), classify=BUSY, name="failing")
    pool, pool_sync = Pool(Streamed, 9), Pool(Closed, 9)

    assert ["stale", "stale"] == [await policy.call(pool.ask), policy.call_sync(pool_sync.ask_sync)]
    assert ([[], []], ["aclose"], ["close"]) == (seen, pool.given[0].by, pool_sync.given[0].by)
    for other in (keeping, failing):
        assert [] == (await other.call(Pool(Streamed, 9).ask)).by


async def test_the_result_of_a_loser_is_closed(make: Make, clock: ManualClock) -> None:
    policy = make(Hedge(), Timeout(4), classify=BUSY, idempotent=True)
    pool = Pool(Streamed, busy_times=1)
    may_end = asyncio.Event()

    async def ask() -> Closed:
        response = pool.kind(is_busy=not pool.given)
        pool.given.append(response)
        if response.is_busy:
            await may_end.wait()
        return response

    call = asyncio.ensure_future(policy.call(ask))
    await clock.advance(1)
    may_end.set()
    await settle()

    first, second = pool.given
    assert second is await call
    assert (True, []) == (first.by in ([], ["aclose"]), second.by)  # it may have been cancelled before it could answer


@pytest.mark.parametrize("part", [Retry, Fallback, Hedge])
async def test_whoever_says_what_to_do_with_it_does_all_of_it(
    make: Make, clock: ManualClock, caplog: pytest.LogCaptureFixture, part: type[Any]
) -> None:
    """What that raises is logged, and the call goes on."""
    handed: list[Closed] = []

    def on_discard(response: Closed) -> None:
        handed.append(response)
        raise ValueError("not here")

    parts = {
        Retry: [Retry(2, delay_seconds=0, on_discard=on_discard)],
        Fallback: [Fallback("stale", on_discard=on_discard).then("older")],
        Hedge: [Retry(1), Hedge(on_discard=on_discard), Timeout(4)],
    }[part]
    policy = make(*parts, classify=BUSY, idempotent=True)
    kept: list[Closed] = []

    async def ask() -> Closed:
        kept.append(Closed(is_busy=not kept))
        return kept[-1]

    await policy.call(ask)

    if part is not Hedge:  # it starts no second attempt beside one that has answered
        assert (kept[:1], []) == (handed, kept[0].by)
        assert 1 == sum("on_discard_failed policy=psp error=ValueError" in one for one in caplog.messages)


async def test_closing_that_hangs_or_fails_does_not_keep_the_call(
    make: Make, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Hanging(Closed):
        async def aclose(self) -> None:
            await asyncio.get_running_loop().create_future()

    policy = make(Retry(2, delay_seconds=0), classify=BUSY, idempotent=True)
    answers: list[Any] = ["fine", Hanging()]

    async def ask() -> Any:
        return answers.pop()

    async with clock.auto_advance():
        assert "fine" == await policy.call(ask)

    assert any("on_discard_failed" in one for one in caplog.messages)


def test_a_result_that_comes_after_its_thread_was_given_up_is_closed() -> None:
    policy = Policy("late", Timeout(0.02), registry=Registry({}))
    may_end, is_closed = threading.Event(), threading.Event()

    class Late:
        def close(self) -> None:
            is_closed.set()

    def slow() -> Late:
        may_end.wait(30)
        return Late()

    with pytest.raises(AttemptTimeout):
        policy.call_sync(slow)
    may_end.set()

    assert is_closed.wait(30)
