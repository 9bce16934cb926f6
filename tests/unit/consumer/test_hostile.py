"""Whatever lies in our queues ends as an effect or a dead letter, whatever its headers say, and delays nobody."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spoolproof import Service, Transaction, event, limits
from spoolproof.brokers.memory import MemoryBroker
from spoolproof.caught import storable_text
from spoolproof.consumer.part import ConsumerPart
from spoolproof.consumer.work import instant_of
from spoolproof.dead_letters.keep import keep
from spoolproof.dead_letters.record import consumer_dead_letter, history_of, shortened
from spoolproof.destination import to_queue
from spoolproof.ids import Ids
from spoolproof.message import HISTORY, OWN_HEADERS, Message, Outgoing, check_message
from spoolproof.ports.dead_letters import DeadLetterFilter, DeadLetterRecord
from spoolproof.settings import Settings
from spoolproof.stores.memory import MemoryStore
from spoolproof.testing.clock import ManualClock

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PLACES = ("hostile.q", "hostile.q.dead", "hostile.unrouted")

instants = st.datetimes(timezones=st.sampled_from([UTC, None])).map(lambda moment: moment.isoformat())
values = st.one_of(
    st.text(max_size=30),
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    instants,
    st.sampled_from(["[" * 2000, '[{"at":1}]', "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "x" * 20_000]),
)
headers = st.dictionaries(st.sampled_from(sorted(OWN_HEADERS)) | st.text(max_size=10), values, max_size=6)
messages = st.builds(
    Message,
    id=st.one_of(st.just(""), st.text(max_size=10), st.just("i" * 3000), st.uuids().map(str)),
    type=st.sampled_from(["hostile.job", "", "hostile.unheard_of", "t\0", "t" * 3000]),
    source=st.text(max_size=5),
    time=st.just(NOW),
    body=st.sampled_from([b'{"n":1}', b"", b"\xff\xfe", b"[[[[", b'{"n":"x"}']),
    schemaversion=st.sampled_from([1, 2, -1, 2**31]),
    key=st.none() | st.text(max_size=5),
    correlation_id=st.none() | st.text(max_size=5),
    expires_at=st.sampled_from([None, NOW - timedelta(days=1), NOW + timedelta(days=400)]),
    headers=headers,
)


@event("hostile.job")
class Job(msgspec.Struct):
    n: int


class Hostile:
    """A service whose queues a stranger may write to."""

    def __init__(self) -> None:
        self.clock = ManualClock(NOW)
        self.service = Service("hostile", settings=Settings(store="memory://", broker="memory://"), clock=self.clock)

        @self.service.on(Job, queue="hostile.q")
        async def handle(job: Job, tx: Transaction) -> None:
            tx.raw.setdefault("effects", []).append(job.n)  # type: ignore[attr-defined]

    @property
    def store(self) -> MemoryStore:
        store = self.service.runtime.store
        assert isinstance(store, MemoryStore)
        return store

    async def until_idle(self) -> None:
        broker = self.service.runtime.broker.inner
        assert isinstance(broker, MemoryBroker)
        part = self.service.runtime.part(ConsumerPart)

        def is_busy() -> object:
            unsettled = [one for subscription in broker._subscriptions for one in subscription._unsettled]
            waiting = [worker for worker in part.workers if worker.in_flight]
            return (
                unsettled or waiting or broker.server.due_times() or any(q.ready for q in broker.server.queues.values())
            )

        async with asyncio.timeout(20):
            while is_busy():
                await asyncio.sleep(0.001)

    def put(self, place: str, message: Message) -> None:
        broker = self.service.runtime.broker.inner
        assert isinstance(broker, MemoryBroker)
        outgoing = Outgoing(message=message, destination=to_queue(place))
        broker.server.publish(outgoing, self.service.runtime.topology(), self.clock.monotonic())


@given(sent=st.lists(st.tuples(st.sampled_from(PLACES), messages), min_size=1, max_size=5))
@settings(max_examples=40, deadline=None)
async def test_every_message_ends_as_an_effect_or_a_dead_letter(sent: Sequence[tuple[str, Message]]) -> None:
    """S10: of 26,000 hostile messages a few ended nowhere."""
    hostile = Hostile()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(limits, "UNKNOWN_SECONDS_MAX", 0.0)  # fifteen minutes of every loop's turns show nothing more
        effects, letters = await ends_of(hostile, sent)

    assert len(sent) + 1 == effects + len(letters)
    for letter in letters:
        kept = letter.message
        filled = {"type": kept.type or "t", "source": kept.source or "s", "key": kept.key or None}
        check_message(msgspec.structs.replace(kept, **{**filled, "headers": {}}))
        assert letter.destination == to_queue(letter.consumer)


async def ends_of(hostile: Hostile, sent: Sequence[tuple[str, Message]]) -> tuple[int, Sequence[DeadLetterRecord]]:
    """Send the messages and a good one behind them; returns the number of effects, and the dead letters."""
    async with hostile.clock.auto_advance():
        await hostile.service.start()
        try:
            ids = Ids(hostile.clock)
            for number, (place, message) in enumerate(sent):
                # two that share one identity are one message: that is what an identity says
                id = message.id and f"{number}{message.id}"
                hostile.put(place, msgspec.structs.replace(message, id=id))
            hostile.put("hostile.q", msgspec.structs.replace(GOOD, id=ids.message_id()))
            await hostile.until_idle()
            effects = len(hostile.store.committed().business.get("effects", ()))
            return effects, await hostile.store.dead_letters.search(DeadLetterFilter())
        finally:
            await hostile.service.stop()


GOOD = Message(id="good", type="hostile.job", source="test", time=NOW, body=b'{"n":7}')


async def test_no_header_names_the_queue_that_a_message_is_a_dead_letter_of() -> None:
    """A replay would carry it into a queue of the stranger's choice."""
    hostile = Hostile()
    async with hostile.clock.auto_advance():
        await hostile.service.start()
        try:
            steering = msgspec.structs.replace(GOOD, type="t", headers={"spoolproof-queue": "payments.admin"})
            hostile.put("hostile.q", steering)
            hostile.put("hostile.q.dead", msgspec.structs.replace(steering, id="2"))
            hostile.put("hostile.unrouted", msgspec.structs.replace(steering, id="3"))
            await hostile.until_idle()
            letters = await hostile.store.dead_letters.search(DeadLetterFilter())
        finally:
            await hostile.service.stop()

    assert ["hostile.q", "hostile.q", "hostile.unrouted"] == sorted(letter.consumer for letter in letters)


class Narrow:
    """Dead letters that refuse what a driver might."""

    def __init__(self, *refused: str) -> None:
        self.refused = refused
        self.kept: list[DeadLetterRecord] = []

    async def add(self, record: DeadLetterRecord) -> bool:
        if "history" in self.refused and record.attempts:
            raise ValueError("history")
        if "headers" in self.refused and record.message.headers:
            raise OverflowError("headers")
        if "fields" in self.refused and record.message.subject:
            raise TypeError("fields")
        self.kept.append(record)
        return True


@pytest.mark.parametrize("refused", [(), ("history",), ("headers",), ("fields",), ("history", "headers", "fields")])
async def test_of_a_record_the_store_refuses_the_rest_is_kept(
    refused: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """A record that cannot be written would be tried for ever, and all behind it with it."""
    caplog.set_level(logging.ERROR, "spoolproof.consumer")
    history = msgspec.json.encode([{"at": NOW, "error_class": "E", "error": "e"}]).decode()
    message = msgspec.structs.replace(GOOD, subject="s", headers={"mine": 1, HISTORY: history})
    record = record_of(message)
    narrow: Any = Narrow(*refused)

    assert await keep(narrow, None, record)  # type: ignore[arg-type]

    (kept,) = narrow.kept
    assert (GOOD.id, GOOD.type, GOOD.body) == (kept.message.id, kept.message.type, kept.message.body)
    assert (not refused) is (kept == record)
    assert all(line.exc_info is None for line in caplog.records)


def record_of(message: Message) -> DeadLetterRecord:
    return consumer_dead_letter(
        id="0190a0b0-0000-7000-8000-00000000000f",
        queue="q",
        message=message,
        message_id=message.id,
        reason="handler",
        error=None,
        detail="d",
        attempts=history_of(message),
        now=NOW,
    )


@pytest.mark.parametrize(
    "text", ["[" * 5000, '[{"at":"0001-01-01T00:00:00+23:59","error_class":"","error":""}]', "x" * 100_000, '{"a":1}']
)
def test_rubbish_in_the_history_is_no_history(text: str) -> None:
    """Anybody may have written the header."""
    assert () == history_of(msgspec.structs.replace(GOOD, headers={HISTORY: text}))


@pytest.mark.parametrize(
    "text", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-01-01T00:00:00", "", "x"]
)
def test_rubbish_for_an_instant_is_none(text: str) -> None:
    """Near the ends of the calendar it has no UTC."""
    assert None is instant_of(text, NOW)


@given(text=st.text(max_size=400))
def test_a_shortened_text_fits_and_still_tells_two_apart(text: str) -> None:
    """A row's index and the replay take no more than 255 bytes."""
    long = storable_text(text) + "x" * 255

    assert len(shortened(long).encode()) <= 255
    assert shortened(long + "a") != shortened(long + "b")
