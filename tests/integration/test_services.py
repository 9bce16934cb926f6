"""Two services on one PostgreSQL database, each with a broker of its own."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from spoolproof import Service, load_settings
from spoolproof.message import pack_meta
from spoolproof.ports.services import Block
from spoolproof.testing.conformance import eventually
from spoolproof.testing.conformance._messages import make_message
from spoolproof.testing.stores import postgres_store

pytestmark = [pytest.mark.integration, pytest.mark.servers]

EVENTS = 60


async def test_two_services_on_one_database_ship_their_own_events_each(postgres_url: str) -> None:
    """Shipped by the other's relay an event is confirmed by the wrong broker, deleted, and never seen."""
    arrived: dict[str, list[int]] = {"shop": [], "bank": []}
    services = [_service(name, postgres_url, arrived[name]) for name in arrived]
    for service in services:
        await service.start()
    try:
        for number in range(EVENTS):
            for first, service in zip((0, EVENTS), services, strict=True):
                await service.publish({"n": first + number}, type="order", key=f"k{number % 7}")

        await eventually(lambda: sum(map(len, arrived.values())) >= 2 * EVENTS, seconds=20.0)
    finally:
        await asyncio.gather(*(service.stop() for service in services))

    assert set(range(EVENTS)) == set(arrived["shop"])
    assert set(range(EVENTS, 2 * EVENTS)) == set(arrived["bank"])


async def test_events_of_a_service_that_does_not_run_wait_for_it(postgres_url: str) -> None:
    """A process that only publishes has its block too; nobody else may empty it, and everybody can see it."""
    arrived: dict[str, list[int]] = {"shop": [], "bank": []}
    silent = _service("shop", postgres_url, arrived["shop"])
    await silent.start(only=())
    await silent.publish({"n": 1}, type="order")
    await silent.stop()
    other = _service("bank", postgres_url, arrived["bank"])
    await other.start()
    try:
        await other.publish({"n": 2}, type="order")
        await eventually(lambda: arrived["bank"] == [2])
        store = other.runtime.store
        blocks = await store.services.all()
        waiting = {name: (await store.outbox.backlog(block.shards)).rows for name, block in blocks.items()}
    finally:
        await other.stop()

    assert 1 == waiting["shop"]
    assert [] == arrived["shop"]


async def test_what_the_earlier_release_left_goes_to_the_service_that_wrote_it(postgres_url: str) -> None:
    """Its rows had no owner; they are known by their source, dead letters by their queue or their source."""
    async with postgres_store(postgres_url, migrate=False) as store:
        steps = store.migrations._steps
        store.migrations._steps = steps[:2]
        await store.migrations.apply()
        connection: Any = await asyncpg.connect(postgres_url)
        try:
            for number, name in enumerate(("shop", "bank")):
                await _left_by_the_earlier_release(connection, name, number)
            store.migrations._steps = steps
            await store.migrations.apply()
            rows = await connection.fetch("select shard, headers->>'source' as source from spoolproof.outbox")
            letters = await connection.fetch("select consumer, service from spoolproof.dead_letter")
        finally:
            await connection.close()

        assert {"shop": Block(0, 16), "bank": Block(16, 16)} == dict(await store.services.all())
    assert {("shop", 3), ("bank", 19)} == {(row["source"], row["shard"]) for row in rows}
    assert {
        ("shop.orders", ""),
        ("relay:shop", ""),
        ("bank.orders", "bank"),
        ("relay:bank", "bank"),
    } == {(row["consumer"], row["service"]) for row in letters}


def _service(name: str, store_url: str, numbers: list[int]) -> Service:
    settings = load_settings(store=store_url, broker="memory://", migrate="auto", exchange=f"{name}.events")
    service = Service(name, settings=settings)

    @service.on("order")
    async def note(order: dict[str, int]) -> None:
        numbers.append(order["n"])

    return service


async def _left_by_the_earlier_release(connection: Any, name: str, number: int) -> None:
    meta = pack_meta(make_message(source=name))
    started_at = datetime(2026, 1, 1 + number, tzinfo=UTC)
    await connection.execute(
        "insert into spoolproof.process (id, service, host, pid, roles, started_at, expires_at)"
        " values (gen_random_uuid(), $1, 'h', 1, '{outbox}', $2, $2)",
        name,
        started_at,
    )
    await connection.execute(
        "insert into spoolproof.outbox (shard, message_id, destination, type, headers, body)"
        " values (3, $1, 'events', 't', $2, '{}')",
        name,
        meta,
    )
    for consumer in (f"{name}.orders", f"relay:{name}"):
        await connection.execute(
            "insert into spoolproof.dead_letter (id, consumer, message_id, destination, type, headers, body, reason,"
            " fingerprint, error_class, error, stack, attempts, first_failed_at, last_failed_at)"
            " values (gen_random_uuid(), $1, 'm', 'events', 't', $2, '{}', 'r', 'f', 'c', 'e', '', '[]', now(), now())",
            consumer,
            meta,
        )
