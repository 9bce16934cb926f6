"""A key that is held: nothing of it runs before its head was dealt with, then all of it, in order."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Unpack

import msgspec
import pytest

from spoolproof import Service, Transaction, event
from spoolproof.consumer.options import HandlerOptions
from spoolproof.consumer.retire import open_held
from spoolproof.dead_letters.replay import discard, replay
from spoolproof.errors import Conflict
from spoolproof.ports.dead_letters import DeadLetterFilter, DeadLetterRecord, DeadLetterState
from spoolproof.ports.held_keys import HeldKeys
from spoolproof.settings import Settings

QUEUE = "held.steps"


@event("held.step")
class Step(msgspec.Struct):
    key: str
    n: int


class Shop:
    """A service that fails the steps in `broken`, each at once."""

    def __init__(self, store: str, **options: Unpack[HandlerOptions]) -> None:
        self.service = Service("held", settings=Settings(store=store, broker="memory://"))
        self.broken: set[int] = set()
        self.done: list[tuple[str, int]] = []

        options = options or {"ordered": True, "on_key_failure": "hold_key"}

        @self.service.on(Step, queue=QUEUE, attempts=1, **options)
        async def step(step: Step, tx: Transaction) -> None:
            if step.n in self.broken:
                raise ValueError(f"step {step.n} is broken")
            self.done.append((step.key, step.n))

    async def publish(self, key: str, *numbers: int) -> None:
        for n in numbers:
            await self.service.publish(Step(key, n), key=key)

    async def letters(self, state: DeadLetterState) -> list[DeadLetterRecord]:
        return list(await self.service.runtime.store.dead_letters.search(DeadLetterFilter(state=state)))

    async def until(self, condition: Callable[[], object], state: DeadLetterState, count: int) -> None:
        async with asyncio.timeout(15):
            while not condition() or len(await self.letters(state)) != count:
                await asyncio.sleep(0.01)

    async def head(self) -> str:
        (head,) = await self.letters(DeadLetterState.OPEN)
        return head.id


@asynccontextmanager
async def shop_on(store: str, **options: Unpack[HandlerOptions]) -> AsyncIterator[Shop]:
    shop = Shop(store, **options)
    async with shop.service.lifespan():
        yield shop


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/store.db"


@pytest.mark.parametrize("verb", ["replay", "discard"])
async def test_a_key_waits_for_its_head_and_then_runs_in_order(store: str, verb: str) -> None:
    """Skipping one step of an account would make all that follow wrong."""
    async with shop_on(store) as shop:
        shop.broken = {1}
        await shop.publish("ann", 0, 1, 2, 3)
        await shop.publish("bob", 10, 11)
        await shop.until(lambda: len(shop.done) == 3, DeadLetterState.HELD, 2)
        assert {("ann", 0), ("bob", 10), ("bob", 11)} == set(shop.done)
        await shop.service.runtime.store.ping()
        (key,) = await shop.service.runtime.store.port(HeldKeys).all(QUEUE, 10)
        assert ("ann", 2) == (key.key, key.messages)
        (waiting, _) = await shop.letters(DeadLetterState.HELD)
        with pytest.raises(Conflict, match="is held; only an open one can be replayed; it runs by itself"):
            await replay(shop.service.runtime.store, waiting.id, actor="me", reason="why not")

        shop.broken = set()
        act = replay if verb == "replay" else discard
        reason = {"reason": "mended"} if verb == "replay" else {"note": "not needed"}
        await act(shop.service.runtime.store, await shop.head(), actor="me", **reason)  # type: ignore[operator]

        await shop.until(lambda: ("ann", 3) in shop.done, DeadLetterState.HELD, 0)
        await shop.publish("ann", 4)
        await shop.until(lambda: ("ann", 4) in shop.done, DeadLetterState.HELD, 0)
        expected = [0, 1, 2, 3, 4] if verb == "replay" else [0, 2, 3, 4]
        assert expected == [n for key, n in shop.done if key == "ann"]
        assert [] == list(await shop.service.runtime.store.port(HeldKeys).all(QUEUE, 10))


@pytest.mark.parametrize("options", [{"ordered": True}, {"concurrency": 1}], ids=["skips", "is not ordered"])
async def test_what_is_held_runs_also_when_its_handler_holds_keys_no_more(
    tmp_path: Path, options: HandlerOptions
) -> None:
    store = f"sqlite:///{tmp_path}/store.db"
    async with shop_on(store) as before:
        before.broken = {1}
        await before.publish("ann", 1, 2, 3)
        await before.until(lambda: True, DeadLetterState.HELD, 2)
    async with shop_on(store, **options) as shop:
        await replay(shop.service.runtime.store, await shop.head(), actor="me", reason="mended")

        await shop.until(lambda: len(shop.done) == 3, DeadLetterState.HELD, 0)
        assert [1, 2, 3] == [n for _, n in shop.done]


async def test_what_is_held_in_a_queue_that_is_retired_is_open_for_a_person(store: str) -> None:
    """And until then nobody discards it along with what has failed."""
    async with shop_on(store) as shop:
        shop.broken = {1}
        await shop.publish("ann", 1, 2, 3)
        await shop.until(lambda: True, DeadLetterState.HELD, 2)
        assert 1 == await shop.service.dead_letters.matching("discard")

        await open_held(shop.service.runtime.store, QUEUE)

        assert [1, 2, 3] == [Step(**json.loads(one.message.body)).n for one in await shop.letters(DeadLetterState.OPEN)]
        assert {"handler", "retired"} == {one.reason for one in await shop.letters(DeadLetterState.OPEN)}


async def test_a_held_message_that_fails_holds_the_rest(store: str) -> None:
    """It is the head then; a replay of it that fails changes nothing."""
    async with shop_on(store) as shop:
        shop.broken = {1, 3}
        await shop.publish("ann", 1, 2, 3, 4)
        await shop.until(lambda: True, DeadLetterState.HELD, 3)
        await discard(shop.service.runtime.store, await shop.head(), actor="me", note="not needed")
        await shop.until(lambda: [("ann", 2)] == shop.done, DeadLetterState.HELD, 1)
        await shop.publish("ann", 5)
        await shop.until(lambda: True, DeadLetterState.HELD, 2)
        for _ in range(2):
            head = await shop.head()
            await replay(shop.service.runtime.store, head, actor="me", reason="try again")
            async with asyncio.timeout(15):
                while [head] != [one.id for one in await shop.letters(DeadLetterState.OPEN) if one.replays]:
                    await asyncio.sleep(0.01)
        assert [("ann", 2)] == shop.done

        shop.broken = set()
        await replay(shop.service.runtime.store, await shop.head(), actor="me", reason="mended")

        await shop.until(lambda: len(shop.done) == 4, DeadLetterState.HELD, 0)
        assert [2, 3, 4, 5] == [n for _, n in shop.done]
