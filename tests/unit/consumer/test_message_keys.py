"""One id in the hands of two producers: what is a duplicate, and what is not."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from spoolproof import Delivery, Service, Transaction
from spoolproof.clock import SystemClock
from spoolproof.destination import to_queue
from spoolproof.ids import derived_id
from spoolproof.message import Message, Outgoing
from spoolproof.ports.dead_letters import DeadLetterFilter
from spoolproof.settings import Settings
from spoolproof.testing.conformance import eventually

ID = "6f2c1f7e-58d5-4f0c-9a7e-0d2f8f1f2b11"
QUEUE = "report"


class Report:
    """A service that notes the events it handles."""

    def __init__(self) -> None:
        self.service = Service("report", settings=Settings(store="memory://", broker="memory://"))
        self.handled: list[tuple[str, str]] = []
        self.keys: list[str] = []
        self.fails = False

        @self.service.on("placed", "paid", queue=QUEUE, attempts=1)
        async def note(payload: dict[str, int], delivery: Delivery, tx: Transaction) -> None:
            self.keys.append(delivery.idempotency_key)
            if self.fails:
                raise ValueError("no paper")
            self.handled.append((delivery.message.source, delivery.message.type))

    async def send(self, source: str, type: str, *, id: str = ID) -> None:
        message = Message(id=id, type=type, source=source, time=SystemClock().now(), body=b'{"n":1}')
        store = self.service.runtime.store
        await store.outbox.append([Outgoing(message=message, destination=to_queue(QUEUE))], None)
        store.wakeup.notify()

    async def until_quiet(self) -> None:
        """Return when a last message, which comes after all others, is through."""
        count = len(self.keys)
        await self.send("last", "placed", id=f"last-{count}")
        await eventually(lambda: derived_id(QUEUE, derived_id("last", "placed", f"last-{count}")) in self.keys)


@pytest.fixture
async def report() -> AsyncIterator[Report]:
    made = Report()
    await made.service.start()
    yield made
    await made.service.stop()


async def test_one_uuid_of_two_sources_or_types_is_two_events(report: Report) -> None:
    """The id of the order, or of the event that caused it: by CloudEvents an id is unique per source only."""
    events = [("orders", "placed"), ("bank", "placed"), ("orders", "paid")]
    for source, type in events:
        await report.send(source, type)
    await eventually(lambda: len(report.handled) >= len(events))
    await report.send("bank", "placed")
    await report.until_quiet()

    assert sorted([*events, ("last", "placed")]) == sorted(report.handled)


async def test_each_of_them_has_a_dead_letter_of_its_own(report: Report) -> None:
    """The second must not write over the first."""
    report.fails = True
    await report.send("orders", "placed")
    await report.send("bank", "placed")

    async def has_two() -> bool:
        return 2 == len(await report.service.runtime.store.dead_letters.search(DeadLetterFilter(message_id=ID)))

    await eventually(has_two)


async def test_what_the_earlier_release_handled_is_not_handled_again(report: Report) -> None:
    """It kept the bare UUID."""
    store = report.service.runtime.store
    async with store.transaction() as tx:
        await store.inbox.record(tx, QUEUE, ID)

    await report.send("orders", "placed")
    await report.until_quiet()

    assert [("last", "placed")] == report.handled


async def test_two_events_under_one_id_have_two_idempotency_keys(report: Report) -> None:
    """A payment provider that saw one key for both would answer the second with the result of the first."""
    await report.send("orders", "placed", id=ID)
    await report.send("returns", "placed", id=ID)
    await eventually(lambda: len(report.keys) == 2)

    keys = {derived_id(QUEUE, derived_id(source, "placed", ID)) for source in ("orders", "returns")}
    assert keys == set(report.keys)
