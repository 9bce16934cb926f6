"""A whole service on SQS and SNS: from publish to replay, and while moto's server dies and forgets everything."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from spoolproof import Delivery, Service, Settings, event
from spoolproof.dead_letters.replay import replay
from spoolproof.ports.broker import ConnectionState
from spoolproof.ports.dead_letters import DeadLetterFilter
from spoolproof.testing.servers import MotoServer

pytestmark = [pytest.mark.integration, pytest.mark.servers]

ORDERS = 400
OUTAGE_SECONDS = 1.5


@event("sqs.order")
class Order(msgspec.Struct):
    n: int


def make_service(server: MotoServer, folder: Path) -> Service:
    url = server.url_of(f"{uuid.uuid4().hex[:8]}-")
    return Service("shop", settings=Settings(store=f"sqlite:///{folder}/store.db", broker=url))


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> float:
    """Return after how many seconds it was true."""
    started = time.monotonic()
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)
    return time.monotonic() - started


async def test_from_publish_over_retry_and_dead_letter_to_replay(moto: MotoServer, tmp_path: Path) -> None:
    """The same life of a message as on every broker: two attempts at once, one after a delay, a person, success."""
    moto.start()
    service = make_service(moto, tmp_path)
    attempts: list[int] = []
    is_mended = False

    @service.on(Order, queue="shop.orders", attempts=3, delays=(1,))
    async def handle(order: Order, delivery: Delivery) -> None:
        attempts.append(delivery.attempt)
        if not is_mended:
            raise ValueError("no stock")

    await service.start()
    try:
        dead_letters = service.runtime.store.dead_letters
        await service.publish(Order(1))

        async def found(state: str) -> list[Any]:
            return [one for one in await dead_letters.search(DeadLetterFilter()) if one.state == state]

        async with asyncio.timeout(30):
            while not (letters := await found("open")):
                await asyncio.sleep(0.05)
        is_mended = True
        await replay(service.runtime.store, letters[0].id, actor="anna", reason="stock is back")
        await until(lambda: len(attempts) == 4)
        async with asyncio.timeout(10):
            while not await found("resolved"):
                await asyncio.sleep(0.05)

        assert [1, 2, 3, 1] == attempts
        assert ("shop.orders", "handler") == (letters[0].consumer, letters[0].reason)
        assert 0 == await service.runtime.broker.depth("shop.orders")
    finally:
        await service.stop()


async def test_a_server_that_dies_and_forgets_costs_only_what_it_had_confirmed(
    moto: MotoServer, tmp_path: Path
) -> None:
    """E3: what was not confirmed is in the outbox, goes out within a second of the return, and queues, topics and
    subscriptions are there again by themselves. What moto had confirmed and forgot is moto's alone: AWS keeps it."""
    moto.start()
    service = make_service(moto, tmp_path)
    handled: Counter[int] = Counter()

    @service.on(Order, queue="shop.orders", concurrency=10)
    async def handle(order: Order) -> None:
        handled[order.n] += 1

    await service.start()
    try:
        await until(lambda: service.broker.status.state is ConnectionState.CONNECTED)
        accepted: list[int] = []

        async def client() -> None:
            while len(accepted) < ORDERS:
                n = len(accepted)
                accepted.append(n)
                await service.publish(Order(n))
                await asyncio.sleep(0.005)

        load = asyncio.create_task(client())
        await until(lambda: len(handled) > 20)
        await asyncio.to_thread(moto.kill)
        await until(lambda: service.broker.status.state is not ConnectionState.CONNECTED)
        handled_before, backlog_from = set(handled), len(accepted)
        await asyncio.sleep(OUTAGE_SECONDS)
        in_outbox = await _waiting(service)
        await asyncio.to_thread(moto.start)
        seconds = await until(lambda: bool(set(handled) - handled_before))
        await load
        await until(lambda: set(range(backlog_from, ORDERS)) <= set(handled))
        async with asyncio.timeout(30):
            while await _waiting(service):
                await asyncio.sleep(0.05)

        assert in_outbox > 0
        assert seconds < 8.0, "the relay resumes within a second; the rest is this machine's"
        lost = set(range(ORDERS)) - set(handled)
        assert lost <= set(range(backlog_from)), "what was accepted while nothing answered has all arrived"
        assert len(lost) <= 256, "at most a window was confirmed and not yet handled"
        assert {1} == set(handled.values()), "and nothing ran twice"
        assert [] == list(await service.runtime.store.dead_letters.search(DeadLetterFilter()))
    finally:
        await service.stop()


async def _waiting(service: Service) -> int:
    async with service.transaction() as tx:
        row = await tx.fetch_one("select count(*) as n from spoolproof_outbox")
    assert row is not None
    return int(row["n"])
