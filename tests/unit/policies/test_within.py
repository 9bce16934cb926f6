"""`within`, the time limit of handlers and fallbacks: it costs nothing until they wait, and then is one."""

from __future__ import annotations

import asyncio
from collections.abc import Generator

import pytest

from spoolproof.clock import SYSTEM
from spoolproof.policies.running.timeout import within


async def test_a_coroutine_that_never_waits_returns_its_value() -> None:
    async def at_once() -> int:
        return 7

    assert 7 == await within(at_once(), 0.0, SYSTEM)


async def test_a_coroutine_that_waits_goes_on_where_it_was() -> None:
    """Several waits, of futures and of tasks, each with its result."""

    async def several() -> list[int]:
        first = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(first.set_result, 1)
        values = [await first]
        for number in (2, 3):
            await asyncio.sleep(0)
            values.append(number)
        async with asyncio.timeout(5):
            values.append(await asyncio.sleep(0, 4))
        return values

    assert [1, 2, 3, 4] == await within(several(), 5.0, SYSTEM)


@pytest.mark.parametrize("waits", [0, 1, 3])
async def test_its_error_is_raised_as_it_is(waits: int) -> None:
    async def fail() -> None:
        for _ in range(waits):
            await asyncio.sleep(0)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await within(fail(), 5.0, SYSTEM)


async def test_it_is_cut_off_at_its_limit_and_cleans_up() -> None:
    """A hanging handler's `finally` must run: it may hold the transaction."""
    cleaned = []

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append("up")

    with pytest.raises(TimeoutError):
        await within(hang(), 0.01, SYSTEM)

    assert ["up"] == cleaned


async def test_a_cancellation_from_outside_is_no_timeout() -> None:
    """L19: a drain that cuts a handler off must not look like its failure."""
    started = asyncio.Event()

    async def hang() -> None:
        started.set()
        await asyncio.Event().wait()

    task = asyncio.ensure_future(within(hang(), 60.0, SYSTEM))
    await started.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_body_that_the_collector_has_closed_first_ends_its_limit_quietly() -> None:
    """Both are dropped together, and the collector closes them in an order of its own."""

    async def wait() -> None:
        await _Bare()

    body = wait()
    limited = within(body, 60.0, SYSTEM)
    limited.send(None)
    body.close()

    limited.close()


class _Bare:
    """Waits for ever, without a loop."""

    def __await__(self) -> Generator[None, None, None]:
        yield
