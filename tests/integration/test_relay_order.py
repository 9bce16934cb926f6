"""Order per key on a store whose transactions overlap: ids are given out before anybody can see the row."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import asyncpg
import msgspec
import pytest

from spoolproof import Service, event, load_settings
from spoolproof.message import Message, shard_of

pytestmark = [pytest.mark.integration, pytest.mark.servers]

SHARDS = 16


@event("relay_order.step")
class Step(msgspec.Struct):
    n: int


@pytest.mark.parametrize("patience_seconds", [0.05, 60.0])
async def test_a_late_committer_is_not_overtaken_by_its_own_key(
    postgres_url: str, patience_seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S7, L27: others of its shard were shipped while its transaction was open, so its id is below what the relay has
    read, whether its cursor waits for it or has moved on; what the same writer publishes next, after its commit, is
    above."""
    monkeypatch.setattr("spoolproof.limits.LATE_WRITER_SECONDS", patience_seconds)
    service = Service("relay_order", settings=load_settings(store=postgres_url, broker="memory://", migrate="auto"))
    seen: list[int] = []

    @service.on(Step, concurrency=1)
    async def note(step: Step) -> None:
        seen.append(step.n)

    neighbour = next(key for key in map(str, range(1000)) if shard(key) == shard("writer"))
    connection: Any = await asyncpg.connect(postgres_url)
    await service.start()
    try:
        async with connection.transaction():
            await service.publish(Step(1), key="writer", transaction=connection)
            await service.publish(Step(0), key=neighbour)
            await until(lambda: seen == [0])
            await service.publish(Step(0), key=neighbour)
            await until(lambda: seen == [0, 0])
        await service.publish(Step(2), key="writer")

        await until(lambda: len(seen) == 4)
    finally:
        await service.stop()
        await connection.close()

    assert [0, 0, 1, 2] == seen


def shard(key: str) -> int:
    return shard_of(Message(id="-", type="t", source="s", time=datetime.now(UTC), body=b"", key=key), SHARDS)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(8):
        while not condition():
            await asyncio.sleep(0.005)
