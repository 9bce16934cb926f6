"""Messages that only a stranger would send, on a real RabbitMQ: each ends as an effect or a dead letter."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pika
import pytest
from pika import spec

from spoolproof import Service
from spoolproof.dead_letters.replay import replay
from spoolproof.ports.dead_letters import DeadLetterFilter, DeadLetterRecord
from spoolproof.settings import load_settings

pytestmark = [pytest.mark.integration, pytest.mark.servers]


class Raw(spec.BasicProperties):  # type: ignore[misc]
    """Properties of which every byte is ours: headers, message id and type."""

    def __init__(self, table: bytes, id: str, type: str) -> None:
        super().__init__()
        self.bytes = (table, id.encode(), type.encode())

    def encode(self) -> list[bytes]:
        table, id, type = self.bytes
        flags = struct.pack(">HI", 1 << 13 | 1 << 7 | 1 << 5, len(table))
        return [flags, table, bytes((len(id),)) + id, bytes((len(type),)) + type]


MILLISECONDS = b"\x04sentT" + struct.pack(">Q", 1_772_000_000_000)
DEEP = {"a": {"b": {"c": [1, {"d": None}]}}}


def send(url: str, messages: list[tuple[str, bytes, Any]]) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        for queue, body, properties in messages:
            channel.basic_publish("", queue, body, properties)


async def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.05)


async def test_every_hostile_message_ends_somewhere_and_steers_nothing(
    rabbitmq_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """S10, L17: one log line each, and those behind it go on."""
    caplog.set_level(logging.INFO)
    service = Service("shop", settings=load_settings(data_dir=tmp_path, broker=rabbitmq_url))
    handled: list[object] = []

    @service.on("job", queue="shop.q")
    async def job(payload: dict[str, Any]) -> None:
        handled.append(payload["n"])

    def properties(**given: Any) -> pika.BasicProperties:
        return pika.BasicProperties(**{"type": "job", **given})

    ours = {
        "spoolproof-queue": "elsewhere",
        "spoolproof-history": "[" * 3000,
        "spoolproof-attempt": "many",
        "spoolproof-first-unknown-at": "0001-01-01T00:00:00+23:59",
        "x-death": "rubbish",
        "cloudEvents_time": "0001-01-01T00:00:00+23:59",
        "CC": ["shop.q.dead"],
    }
    await service.start()
    try:
        await until(lambda: service.broker.status.state == "connected")
        store = service.runtime.store
        await asyncio.to_thread(
            send,
            rabbitmq_url,
            [
                ("shop.q", b'{"n":1}', Raw(MILLISECONDS, "m-1", "job")),
                ("shop.q", b'{"n":2}', properties(message_id="m-2", headers={b"\xff": "name", "bytes": b"\xff\x00"})),
                ("shop.q", b'{"n":3}', properties(message_id="m-3", headers={"deep": DEEP})),
                ("shop.q", b'{"n":4}', properties(message_id="m-4", expiration="60000")),
                ("shop.q", b"not json", properties(message_id="m-5", headers=ours)),
                ("shop.unrouted", b'{"n":6}', properties(message_id="m-6", headers={"spoolproof-queue": "payments"})),
                ("shop.q.dead", b'{"n":7}', properties(message_id="m" * 255, headers=ours)),
                ("shop.q", b'{"n":8}', properties(message_id="m-8")),
            ],
        )
        await until(lambda: {1, 2, 3, 4, 8} <= set(handled))
        letters = await until_letters(service, 3)
        assert ["shop.q", "shop.q", "shop.unrouted"] == sorted(letter.consumer for letter in letters)

        # and what can be handled is handled by its replay
        (seventh,) = [letter for letter in letters if letter.message.body == b'{"n":7}']
        await replay(store, seventh.id, actor="ann", reason="why")
        await until(lambda: 7 in handled)
    finally:
        await service.drain(5)
        await service.stop()

    assert [1, 2, 3, 4, 7, 8] == sorted(handled)  # type: ignore[type-var]
    assert [] == [record.getMessage() for record in caplog.records if record.exc_info]


async def until_letters(service: Service, count: int) -> list[DeadLetterRecord]:
    async with asyncio.timeout(20):
        while len(found := await service.runtime.store.dead_letters.search(DeadLetterFilter())) < count:
            await asyncio.sleep(0.05)
    return list(found)
