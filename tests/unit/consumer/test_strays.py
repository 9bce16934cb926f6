"""What a handler may raise besides errors: each is a failure of that attempt, and no lane ends over it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from spoolproof import Service, Transaction, event
from spoolproof.ports.dead_letters import DeadLetterFilter
from spoolproof.settings import Settings
from spoolproof.testing.clock import ManualClock

LANES = 2


@event("stray.job")
class Job(msgspec.Struct):
    n: int


@event("stray.checked")
class Checked(msgspec.Struct):
    n: int

    def __post_init__(self) -> None:
        if self.n < 0:
            sys.exit("a validator of the user's")


class Untold(Exception):
    def __str__(self) -> str:
        return self.response["message"]  # type: ignore[attr-defined, no-any-return]


class Untouchable(Exception):
    def __getattribute__(self, name: str) -> object:
        raise RuntimeError(name)


async def awaits_something_cancelled() -> None:
    inner = asyncio.ensure_future(asyncio.Event().wait())
    inner.cancel()
    await inner


async def raises_cancelled() -> None:
    raise asyncio.CancelledError


async def exits() -> None:
    sys.exit(3)


async def raises_generator_exit() -> None:
    raise GeneratorExit


async def raises_a_group() -> None:
    raise BaseExceptionGroup("both", [SystemExit(1), ValueError("x")])


async def raises_without_text() -> None:
    raise Untold


async def raises_without_attributes() -> None:
    raise Untouchable


STRAYS: tuple[Callable[[], Awaitable[None]], ...] = (
    awaits_something_cancelled,
    raises_cancelled,
    exits,
    raises_generator_exit,
    raises_a_group,
    raises_without_text,
    raises_without_attributes,
)


@pytest.mark.parametrize("takes_tx", [True, False], ids=["with tx", "without tx"])
@pytest.mark.parametrize("stray", STRAYS, ids=lambda stray: stray.__name__)
async def test_whatever_a_handler_raises_counts_as_its_attempt(
    stray: Callable[[], Awaitable[None]], takes_tx: bool
) -> None:
    """S2: attempts, back-off, then one dead letter with class and stack; the queue goes on with all its lanes."""
    clock = ManualClock()
    service = Service("stray", settings=Settings(store="memory://", broker="memory://"), clock=clock)
    runs: list[int] = []

    async def run(job: Job) -> None:
        runs.append(job.n)
        if job.n < LANES:
            await stray()

    if takes_tx:

        @service.on(Job, queue="stray.jobs", concurrency=LANES, attempts=3)
        async def handle(job: Job, tx: Transaction) -> None:
            await run(job)
    else:

        @service.on(Job, queue="stray.jobs", concurrency=LANES, attempts=3)
        async def handle_outside(job: Job) -> None:
            await run(job)

    async with clock.auto_advance():
        await service.start()
        try:
            for n in range(LANES + 6):
                await service.publish(Job(n))
            await until(lambda: len(runs) == 3 * LANES + 6)
            letters = await until_letters(service, LANES)
        finally:
            await service.stop()

    assert sorted([0, 0, 0, 1, 1, 1, *range(2, LANES + 6)]) == sorted(runs)
    assert {"handler"} == {letter.reason for letter in letters}
    assert {3} == {len(letter.attempts) for letter in letters}
    assert all(letter.stack and letter.error for letter in letters)


async def test_a_handler_that_cancels_its_own_task_does_not_end_its_lane() -> None:
    """Nobody can tell it from a cancellation of the lane; so the lane goes on in a new task, and the message comes
    again."""
    clock = ManualClock()
    service = Service("stray", settings=Settings(store="memory://", broker="memory://"), clock=clock)
    runs: list[int] = []

    @service.on(Job, queue="stray.jobs", concurrency=1)
    async def handle(job: Job) -> None:
        runs.append(job.n)
        task = asyncio.current_task()
        if len(runs) == 1 and task is not None:
            task.cancel()
            await asyncio.sleep(1)

    async with clock.auto_advance():
        await service.start()
        try:
            await service.publish(Job(1))
            await service.publish(Job(2))
            await until(lambda: {1, 2} <= set(runs[1:]))
        finally:
            await service.stop()


async def test_a_model_that_exits_while_it_is_read_is_unreadable() -> None:
    """A validator is the user's code too."""
    clock = ManualClock()
    service = Service("stray", settings=Settings(store="memory://", broker="memory://"), clock=clock)

    @service.on(Checked, queue="stray.checked")
    async def handle(checked: Checked) -> None:
        raise AssertionError("never read")

    async with clock.auto_advance():
        await service.start()
        try:
            await service.publish({"n": -1}, type="stray.checked")
            (letter,) = await until_letters(service, 1)
        finally:
            await service.stop()

    assert "decode" == letter.reason
    assert "a validator of the user's" in letter.error


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def until_letters(service: Service, count: int):  # type: ignore[no-untyped-def]
    async with asyncio.timeout(10):
        while len(found := await service.runtime.store.dead_letters.search(DeadLetterFilter())) < count:
            await asyncio.sleep(0.001)
    return found
