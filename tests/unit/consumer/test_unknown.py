"""A type or a version that no handler here knows waits out a rolling deploy before it is given up."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import msgspec
import pytest

from spoolproof import Service, event
from spoolproof.brokers.memory import MemoryBroker
from spoolproof.consumer.failure import GiveUp, SendCopy, decide_refusal
from spoolproof.destination import to_queue
from spoolproof.message import FIRST_UNKNOWN_AT, HeaderValue, Message, Outgoing
from spoolproof.ports.dead_letters import DeadLetterFilter, DeadLetterRecord
from spoolproof.settings import Settings
from spoolproof.testing.clock import ManualClock

QUEUE = "unknown.orders"
ID = "0190a0b0-0000-7000-8000-000000000001"


@event("unknown.order")
class Order(msgspec.Struct):
    n: int


def service_on(clock: ManualClock, *types: type | str) -> tuple[Service, list[object]]:
    service = Service("unknown", settings=Settings(store="memory://", broker="memory://"), clock=clock)
    seen: list[object] = []

    @service.on(*types, queue=QUEUE)
    async def handle(payload: Order) -> None:
        seen.append(payload)

    return service, seen


def broker_of(service: Service) -> MemoryBroker:
    broker = service.runtime.broker.inner
    assert isinstance(broker, MemoryBroker)
    return broker


def deliver(service: Service, clock: ManualClock, **fields: object) -> None:
    values = {"id": ID, "type": "unknown.order", "source": "test", "time": clock.now(), "body": b'{"n":1}'}
    message = msgspec.convert({**values, **fields}, Message)
    outgoing = Outgoing(message=message, destination=to_queue(QUEUE))
    broker_of(service).server.publish(outgoing, service.runtime.topology(), clock.monotonic())


async def letters(service: Service) -> list[DeadLetterRecord]:
    return list(await service.runtime.store.dead_letters.search(DeadLetterFilter()))


async def until_letter(service: Service) -> DeadLetterRecord:
    async with asyncio.timeout(10):
        while not (found := await letters(service)):
            await asyncio.sleep(0.001)
    return found[0]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [({"type": "unknown.yet"}, "unknown_type"), ({"schemaversion": 2}, "unknown_version")],
)
async def test_it_waits_fifteen_minutes_and_counts_no_attempt(fields: dict[str, object], reason: str) -> None:
    """Two releases of one service made dead letters of half of the good messages."""
    clock = ManualClock()
    service, seen = service_on(clock, Order)
    async with clock.auto_advance():
        await service.start()
        try:
            deliver(service, clock, **fields)
            letter = await until_letter(service)
        finally:
            await service.stop()

    assert (reason, ()) == (letter.reason, letter.attempts)
    assert 900 <= clock.monotonic() < 1000
    assert [] == seen


async def test_a_release_that_knows_it_takes_it_meanwhile() -> None:
    """The other half of the deploy."""
    clock = ManualClock()
    old, _ = service_on(clock, Order)
    async with clock.auto_advance():
        await old.start()
        try:
            deliver(old, clock, type="unknown.yet")
            server = broker_of(old).server
            async with asyncio.timeout(10):
                while not server.due_times():
                    await asyncio.sleep(0)
            (delayed,) = server._delayed
            known = msgspec.structs.replace(delayed.message, type="unknown.order")  # what the new release calls it
            assert FIRST_UNKNOWN_AT in known.headers
            server._delayed.clear()
            deliver(old, clock, type=known.type, headers=known.headers)
            store = old.runtime.store
            async with asyncio.timeout(10):
                while not store.table("inbox"):  # type: ignore[attr-defined]
                    await asyncio.sleep(0.001)
        finally:
            await old.stop()


FUTURE = datetime(2999, 1, 1, tzinfo=UTC).isoformat()


@pytest.mark.parametrize("since", [FUTURE, "rubbish", "2020-01-01", 7, True, ""])
async def test_no_header_makes_it_wait_for_ever(since: HeaderValue) -> None:
    """A stranger may have set it."""
    clock = ManualClock()
    service, _ = service_on(clock, Order)
    async with clock.auto_advance():
        await service.start()
        try:
            deliver(service, clock, type="unknown.yet", headers={FIRST_UNKNOWN_AT: since})
            letter = await until_letter(service)
        finally:
            await service.stop()

    assert "unknown_type" == letter.reason
    assert clock.monotonic() < 1000


def copy(seconds: int) -> SendCopy:
    return SendCopy(seconds, counts=False)


@pytest.mark.parametrize(
    ("reason", "waited", "expected"),
    [
        ("unknown_type", 0.0, copy(5)),
        ("unknown_type", 5.0, copy(5)),
        ("unknown_type", 10.0, copy(15)),
        ("unknown_version", 25.0, copy(60)),
        ("unknown_version", 899.0, copy(60)),
        ("unknown_type", 900.0, GiveUp("unknown_type", "d")),
        ("decode", 0.0, GiveUp("decode", "d")),
        ("expired", 0.0, GiveUp("expired", "d")),
    ],
)
def test_what_follows_a_refusal(reason: str, waited: float, expected: SendCopy | GiveUp) -> None:
    """It stays away for as long again as it has waited, at most a minute; the new release has it soon."""
    assert expected == decide_refusal(reason, "d", waited_seconds=waited)
