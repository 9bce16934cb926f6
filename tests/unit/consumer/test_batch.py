"""Handlers of many messages at once: one call and one commit, and no message that pays for another."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from spoolproof import Delivery, RegistrationError, Service, Transaction
from spoolproof.ports.dead_letters import DeadLetterState
from spoolproof.settings import Settings
from spoolproof.testing.clock import ManualClock


async def test_what_has_arrived_runs_in_one_call() -> None:
    service = Service("shop")
    calls: list[list[int]] = []

    @service.on("order", queue="orders", batch=50, batch_seconds=0.05)
    async def book(orders: list[dict[str, int]], tx: Transaction) -> None:
        calls.append([order["n"] for order in orders])
        await tx.publish({"booked": len(orders)}, type="booked", destination="queue:orders.booked")

    @service.on("booked", queue="orders.booked")
    async def note(payload: dict[str, int]) -> None: ...

    async with service.test() as app:
        for n in range(120):
            await app.publish({"n": n}, type="order")
        await app.settled()

        assert list(range(120)) == sorted(n for call in calls for n in call)
        assert len(calls) < 60
        assert max(map(len, calls)) <= 50
        assert 120 == sum(one["booked"] for one in app.published("booked"))
        booked = [message for message in app.messages if message.type == "booked"]
        assert {None} == {message.causation_id for message in booked if message.body != b'{"booked":1}'}


async def test_one_bad_message_costs_its_neighbours_nothing() -> None:
    """All of the batch is rolled back; then each runs by itself, and only the bad one is retried and given up."""
    service = Service("shop")
    attempts: Counter[int] = Counter()

    @service.on("order", queue="orders", batch=20, batch_seconds=0.05, attempts=2)
    async def book(orders: list[dict[str, int]], tx: Transaction) -> None:
        for order in orders:
            await tx.execute("insert into effect (n) values ($1)", order["n"])
        if len(orders) == 1:
            attempts[orders[0]["n"]] += 1
        if any(order["n"] == 7 for order in orders):
            raise ValueError("seven")

    async with service.test(store="sqlite") as app:
        async with app.transaction() as tx:
            await tx.execute("create table effect (n integer)")
            for n in range(20):
                await tx.publish({"n": n}, type="order")
        await app.settled()
        async with app.transaction() as tx:
            effects = Counter(row["n"] for row in await tx.fetch("select n from effect"))

        assert dict.fromkeys([n for n in range(20) if n != 7], 1) == effects
        assert 2 == attempts[7]
        assert [b'{"n":7}'] == [letter.message.body for letter in app.dead_letters]
        assert set(attempts.values()) <= {1, 2}


async def test_a_message_that_comes_twice_has_one_effect() -> None:
    service = Service("shop")
    seen: Counter[int] = Counter()

    @service.on("order", queue="orders", batch=10, batch_seconds=0.05)
    async def book(orders: list[dict[str, int]], tx: Transaction) -> None:
        seen.update(order["n"] for order in orders)

    async with service.test() as app:
        for _ in range(2):
            await asyncio.gather(*(app.publish({"n": n}, type="order", id=f"order-{n}") for n in range(5)))
        await app.settled()

    assert dict.fromkeys(range(5), 1) == seen


async def test_dead_letters_that_are_replayed_together_are_resolved() -> None:
    service = Service("shop")
    is_mended = False

    @service.on("order", queue="orders", batch=20, batch_seconds=0.05, attempts=1)
    async def book(orders: list[dict[str, int]], tx: Transaction) -> None:
        if not is_mended:
            raise ValueError("not yet")

    async with service.test(store="sqlite") as app:
        for n in range(6):
            await app.publish({"n": n}, type="order")
        await app.settled()
        is_mended = True
        for letter in app.dead_letters:
            await service.dead_letters.replay(letter.id, actor="ada", reason="mended")
        await app.settled()

        assert 6 == (await service.runtime.store.dead_letters.counts())[DeadLetterState.RESOLVED]


async def test_whoever_asks_a_batch_gets_an_answer() -> None:
    service = Service("shop")

    @service.on("double", queue="doubles", batch=20, batch_seconds=0.05)
    async def double(asked: list[dict[str, int]], tx: Transaction) -> dict[str, int]:
        return {"n": sum(2 * one["n"] for one in asked)}

    async with service.test():
        asking = (service.request({"n": n}, type="double", timeout=5) for n in range(5))
        assert [{"n": 2 * n} for n in range(5)] == await asyncio.gather(*asking)


@pytest.mark.parametrize("size", [2, 1])
async def test_a_lane_that_a_handler_ends_keeps_none_of_its_batch(size: int) -> None:
    """Whether that was in the run of all or of one: what it leaves comes again, to the lane that goes on."""
    clock = ManualClock()
    service = Service("shop", settings=Settings(store="memory://", broker="memory://"), clock=clock)
    seen: set[int] = set()
    has_ended = False

    @service.on("order", queue="orders", batch=20, batch_seconds=0.05, concurrency=1)
    async def book(orders: list[dict[str, int]], tx: Transaction) -> None:
        nonlocal has_ended
        if not has_ended and len(orders) > 1 >= size:
            raise ValueError("each by itself")
        task = asyncio.current_task()
        if not has_ended and task is not None:
            has_ended = True
            task.cancel()
            await asyncio.sleep(1)
        seen.update(order["n"] for order in orders)

    async with clock.auto_advance():
        await service.start()
        try:
            async with service.transaction() as tx:
                for n in range(6):
                    await tx.publish({"n": n}, type="order")
            async with asyncio.timeout(10):
                while len(seen) < 6:
                    await asyncio.sleep(0.01)
        finally:
            await service.stop()


async def test_what_a_task_published_in_a_batch_that_failed_is_kept() -> None:
    """The task outlives the batch, and will not publish it again: it must not go with what is rolled back."""
    service = Service("shop")
    noted: Counter[int] = Counter()
    published, ends = asyncio.Event(), asyncio.Event()
    tasks = set()

    async def poller() -> None:
        await service.publish({"n": 1}, type="noted", destination="queue:notes")
        published.set()
        await ends.wait()

    @service.on("noted", queue="notes")
    async def note(payload: dict[str, int]) -> None:
        noted[payload["n"]] += 1

    @service.on("order", queue="orders", batch=10, batch_seconds=0.05)
    async def book(orders: list[dict[str, int]], tx: Transaction) -> None:
        if len(orders) > 1:
            tasks.add(asyncio.create_task(poller()))
            await published.wait()
            raise ValueError("not all of them at once")

    async with service.test() as app:
        async with app.transaction() as tx:
            for n in range(5):
                await tx.publish({"n": n}, type="order")
        await app.settled()
        ends.set()
        await asyncio.gather(*tasks)

    assert 1 == len(tasks)
    assert {1: 1} == noted


async def _listless(order: dict[str, int], tx: Transaction) -> None: ...


async def _alone(orders: list[dict[str, int]]) -> None: ...


async def _fine(orders: list[dict[str, int]], tx: Transaction) -> None: ...


async def _curious(orders: list[dict[str, int]], tx: Transaction, delivery: Delivery) -> None: ...


def _plain(orders: list[dict[str, int]]) -> None: ...


@pytest.mark.parametrize(
    ("function", "options", "fault"),
    [
        (_listless, {"batch": 10}, r"batch= gives it a list\[dict"),
        (_alone, {"batch": 10}, "take a Transaction, or say dedupe='none'"),
        (_fine, {"batch": 1}, "batch=1: a whole number from 2 to 1000"),
        (_fine, {"batch": 10, "batch_seconds": -1}, "batch_seconds=-1: a number of seconds"),
        (_fine, {"batch": 10, "ordered": True}, "drop one of them"),
        (_curious, {"batch": 10}, "no Delivery"),
        (_plain, {"batch": 10, "dedupe": "none"}, "batch= is for an `async def`"),
    ],
)
def test_a_batch_that_cannot_be_made_is_refused(function: object, options: dict[str, object], fault: str) -> None:
    with pytest.raises(RegistrationError, match=fault):
        Service("shop").on("order", queue="orders", **options)(function)  # type: ignore[arg-type, type-var]
