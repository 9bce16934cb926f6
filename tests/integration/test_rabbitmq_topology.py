"""`spoolproof topology` on a real node: what is missing, what differs, what is declared, and what never is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pika
import pytest

pytestmark = [pytest.mark.integration, pytest.mark.servers]

SHOP = """
import msgspec
from spoolproof import Service, event

service = Service("shop")


@event("shop.order")
class Order(msgspec.Struct):
    n: int


@service.on(Order, queue="shop.orders", dedupe="none")
async def take(order: Order) -> None: ...
"""
OTHERS = {"x-queue-type": "quorum", "x-overflow": "reject-publish", "x-dead-letter-strategy": "at-least-once"}


@pytest.fixture
def topology(tmp_path: Path, rabbitmq_url: str) -> Callable[..., tuple[int, dict[str, Any]]]:
    """Run a verb of `spoolproof topology`; returns its exit code and document."""
    (tmp_path / "shop.py").write_text(SHOP)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SPOOLPROOF", "RABBITMQ"))}

    def run(verb: str, broker: str = rabbitmq_url) -> tuple[int, dict[str, Any]]:
        done = subprocess.run(
            [sys.executable, "-m", "spoolproof", "topology", verb, "shop:service", "--json"],
            env=inherited | {"SPOOLPROOF_BROKER": broker},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "Traceback" not in done.stderr
        return done.returncode, json.loads(done.stdout)

    return run


def found(document: dict[str, Any]) -> dict[str, str]:
    return {item["what"]: item["found"] for item in document["items"]}


def as_operator(url: str, work: Callable[[Any], Any]) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        work(connection.channel())


def test_what_is_missing_is_shown_and_declared_only_when_told(topology: Any) -> None:
    """A person sees what a deploy will make before it makes it."""
    code, planned = topology("plan")
    assert 0 == code
    assert {"missing"} == set(found(planned).values())
    assert 1 == topology("verify")[0], "plan made something"

    code, applied = topology("apply")
    assert (0, True) == (code, applied["is_as_wanted"])
    assert "was missing, declared" == found(applied)["queue shop.orders"]

    code, verified = topology("verify")
    assert 0 == code
    assert {"as wanted"} == set(found(verified).values())
    assert any("bindings" in one for one in verified["unseen"])


def test_what_differs_is_named_kept_and_said_how_to_mend(topology: Any, rabbitmq_url: str) -> None:
    """Arguments cannot be changed, and a queue deleted by a tool takes its messages along."""
    topology("apply")

    def spoil(channel: Any) -> None:
        for name in ("shop.orders", "shop.orders.dead", "shop.unrouted"):
            channel.queue_delete(name)
        own = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "shop.orders.dead", "x-delivery-limit": 5}
        channel.queue_declare("shop.orders", durable=True, arguments={**OTHERS, **own})
        channel.queue_declare("shop.unrouted", durable=True)
        channel.exchange_delete("shop.retry")
        channel.basic_publish("", "shop.orders", b"kept")

    as_operator(rabbitmq_url, spoil)

    code, document = topology("apply")

    shown = found(document)
    assert (1, False) == (code, document["is_as_wanted"])
    assert "x-delivery-limit is 5: at or below its 8 attempts" in shown["queue shop.orders"]
    assert "not quorum" in shown["queue shop.unrouted"]
    assert "was missing, declared" == shown["queue shop.orders.dead"] == shown["exchange shop.retry"]
    remedies = {item["what"]: item["remedy"] for item in document["items"]}
    assert "delete_queue shop.orders --if-empty" in remedies["queue shop.orders"]
    assert 1 == topology("verify")[0]
    with pika.BlockingConnection(pika.URLParameters(rabbitmq_url)) as connection:
        assert 1 == connection.channel().queue_declare("shop.orders", passive=True).method.message_count


def test_a_broker_that_is_away_is_3(topology: Any) -> None:
    """A pipeline tells drift from a broker it cannot reach."""
    code, document = topology("verify", "amqp://127.0.0.1:1/")

    assert (3, "not_reachable") == (code, document["error"]["code"])
