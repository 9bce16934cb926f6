"""A broker that takes publishes and does not answer is left alone, and used again as soon as it is back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from spoolproof import BrokerUnavailable, Service, event
from spoolproof.brokers.memory import MemoryBroker
from spoolproof.clock import SystemClock
from spoolproof.errors import EncodeError, WindowFull
from spoolproof.message import Message, Outgoing
from spoolproof.policies import Breaker, Consecutive, Policy, Registry, Timeout
from spoolproof.ports.broker import (
    CONFIRMED,
    NACKED,
    BrokerStatus,
    Capabilities,
    ConnectionState,
    ConnectionStatus,
    OnIncoming,
    PublishOutcome,
    Refused,
    Returned,
    Sink,
    Subscription,
    Topology,
    Unknown,
)
from spoolproof.protected import ProtectedBroker
from spoolproof.settings import Settings
from spoolproof.testing.clock import ManualClock

LOST = Unknown("connection lost")
VOLUME = 5
OPEN_SECONDS = 30.0
START = datetime(2026, 1, 1, tzinfo=UTC)


class FakeBroker:
    """Takes publishes; a test answers them, and says what connection there is."""

    capabilities = Capabilities(
        has_own_queues=True,
        tells_routing_key=True,
        has_returns=True,
        keeps_order=True,
        counts_deliveries=True,
        survives_restart=True,
        is_shared=True,
    )

    def __init__(self) -> None:
        self.waiting: list[tuple[object, Sink]] = []
        self.free = 100
        self.since: datetime | None = START
        self.error: Exception | None = None
        self.has_room = asyncio.Event()

    async def start(self, topology: Topology) -> None:
        raise NotImplementedError

    def submit(self, outgoing: Outgoing, token: object, sink: Sink) -> None:
        if self.error is not None:
            raise self.error
        self.waiting.append((token, sink))

    def room(self) -> int:
        return 0 if self.since is None else self.free

    async def wait_for_room(self, timeout_seconds: float) -> bool:
        await self.has_room.wait()
        return self.room() > 0

    async def subscribe(self, queue: str, prefetch: int, on_delivery: OnIncoming) -> Subscription:
        raise NotImplementedError

    def status(self) -> BrokerStatus:
        state = ConnectionState.DISCONNECTED if self.since is None else ConnectionState.CONNECTED
        connection = ConnectionStatus(
            name="publish-0",
            purpose="publish",
            state=state,
            is_blocked=False,
            url="fake://",
            since=self.since or START,
            attempt=0,
            last_error=None,
            retry_at=None,
        )
        return BrokerStatus(kind="fake", state=state, is_blocked=False, connections=(connection,))

    async def stop(self) -> None:
        self.answer(LOST)

    def answer(self, outcome: PublishOutcome, count: int | None = None) -> None:
        """Give the oldest publishes one outcome, one call per sink as a real broker does."""
        answered = self.waiting[:count]
        self.waiting = [] if count is None else self.waiting[count:]
        groups: dict[Sink, list[tuple[object, PublishOutcome]]] = {}
        for token, sink in answered:
            groups.setdefault(sink, []).append((token, outcome))
        for sink, pairs in groups.items():
            sink(pairs)

    def reconnect(self) -> None:
        self.since = (self.since or START) + timedelta(seconds=1)
        self.has_room.set()

    def disconnect(self) -> None:
        self.since = None
        self.has_room.clear()
        self.answer(LOST)


class Bench:
    """A protected fake broker and the outcomes its user saw."""

    def __init__(self, clock: ManualClock, registry: Registry | None = None) -> None:
        self.clock = clock
        self.registry = registry or Registry(environ={})
        self.fake = FakeBroker()
        self.broker = ProtectedBroker(self.fake, self.registry)
        self.outcomes: list[PublishOutcome] = []
        self.calls = 0

    @property
    def state(self) -> str:
        return self.registry.get("broker").state

    def submit(self, count: int = 1) -> None:
        for n in range(count):
            self.broker.submit(outgoing(), n, self._sink)

    def _sink(self, results: Sequence[tuple[object, PublishOutcome]]) -> None:
        self.calls += 1
        self.outcomes += [outcome for _, outcome in results]

    def fail(self, count: int = VOLUME) -> None:
        self.submit(count)
        self.fake.answer(LOST)


def outgoing() -> Outgoing:
    return Outgoing(message=Message(id="m", type="t", source="s", time=START, body=b"{}"))


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    clock = ManualClock()
    with clock.active():
        yield Bench(clock)


async def test_five_publishes_in_a_row_without_an_answer_stop_publishing(bench: Bench) -> None:
    """Rows wait where they are; nothing is thrown at a broker that does not answer."""
    bench.fail(VOLUME - 1)
    assert bench.fake.free == bench.broker.room()
    bench.fail(1)

    assert 0 == bench.broker.room()
    with pytest.raises(BrokerUnavailable, match="policy 'broker': breaker open"):
        bench.submit()
    assert [LOST] * VOLUME == bench.outcomes
    assert "the breaker of policy 'broker' is open" in bench.broker.status().issues[0]


@pytest.mark.parametrize("outcome", [CONFIRMED, Returned("no queue"), Refused(403, "access refused")])
async def test_every_answer_is_a_sign_of_life(bench: Bench, outcome: PublishOutcome) -> None:
    """A returned or refused message is that message's trouble, and fate_of decides on it."""
    for _ in range(3):
        bench.fail(VOLUME - 1)
        bench.submit()
        bench.fake.answer(outcome)

    assert "closed" == bench.state


async def test_a_nack_says_nothing_of_the_connection(bench: Bench) -> None:
    """A full queue is one queue's trouble; it is no sign of life either."""
    bench.submit(20)
    bench.fake.answer(NACKED)
    assert "closed" == bench.state

    bench.fail(VOLUME - 1)
    bench.submit()
    bench.fake.answer(NACKED)
    bench.fail(1)
    assert "open" == bench.state


async def test_after_its_time_one_publish_probes_and_its_confirm_opens_the_way(bench: Bench) -> None:
    """The preset `classic`: 30 s, one probe, one success."""
    bench.fail()
    await bench.clock.advance(OPEN_SECONDS - 0.1)
    assert 0 == bench.broker.room()
    await bench.clock.advance(0.1)

    assert 1 == bench.broker.room()
    bench.submit()
    assert 0 == bench.broker.room()
    with pytest.raises(BrokerUnavailable):
        bench.submit()
    bench.fake.answer(CONFIRMED)
    assert bench.fake.free == bench.broker.room()


async def test_the_breaker_hears_an_answer_before_whoever_refills_the_room(bench: Bench) -> None:
    """The relay submits from within its sink: asked there, the room must be true."""
    rooms: list[int] = []
    bench.fail()
    await bench.clock.advance(OPEN_SECONDS)
    bench.broker.room()
    bench.broker.submit(outgoing(), 0, lambda _: rooms.append(bench.broker.room()))

    bench.fake.answer(CONFIRMED)

    assert [bench.fake.free] == rooms


async def test_a_new_connection_is_tried_at_once(bench: Bench) -> None:
    """V1: the first confirm follows the return of the broker, not the breaker's timer."""
    bench.submit(20)
    bench.fake.disconnect()
    assert "open" == bench.state
    assert 0 == bench.broker.room()

    bench.fake.reconnect()

    assert 1 == bench.broker.room()
    bench.submit()
    bench.fake.answer(CONFIRMED)
    assert bench.fake.free == bench.broker.room()


async def test_the_connection_that_did_not_answer_is_not_tried_again_before_its_time(bench: Bench) -> None:
    """Room that grows because publishes were given up is no reconnect."""
    bench.fake.free = 0
    bench.fail()
    bench.fake.free = 100

    assert [0, 0] == [bench.broker.room(), bench.broker.room()]


async def test_each_new_connection_is_tried_once(bench: Bench) -> None:
    """One that connects and does not answer either opens the breaker again."""
    bench.fail()
    for _ in range(3):
        bench.fake.reconnect()
        assert 1 == bench.broker.room()
        bench.fail(1)
        assert 0 == bench.broker.room()


async def test_who_waits_for_room_wakes_when_the_connection_is_back(bench: Bench) -> None:
    """The relay waits here, with rows in its hands."""
    bench.submit(VOLUME)
    bench.fake.disconnect()
    waiting = asyncio.ensure_future(bench.broker.wait_for_room(60))
    await asyncio.sleep(0)
    assert not waiting.done()

    bench.fake.reconnect()

    assert await asyncio.wait_for(waiting, 1)


async def test_who_waits_for_room_wakes_when_the_breaker_probes_or_its_time_is_over(bench: Bench) -> None:
    """With the connection there all the time."""
    bench.fail()
    short = asyncio.ensure_future(bench.broker.wait_for_room(5))
    long = asyncio.ensure_future(bench.broker.wait_for_room(60))
    await bench.clock.advance(5.1)
    assert (True, False) == (short.done(), long.done())
    await bench.clock.advance(OPEN_SECONDS)

    assert (False, True) == (await short, await long)


@pytest.mark.parametrize("error", [WindowFull(1, 1), BrokerUnavailable("gone"), EncodeError("headers")])
async def test_a_publish_that_was_never_sent_gives_its_probe_back(bench: Bench, error: Exception) -> None:
    """A lost probe would keep the breaker half open for its lease."""
    bench.fail()
    await bench.clock.advance(OPEN_SECONDS)
    bench.fake.error = error
    for _ in range(3):
        assert 1 == bench.broker.room()
        with pytest.raises(type(error)):
            bench.submit()

    bench.fake.error = None
    bench.submit()
    bench.fake.answer(CONFIRMED)
    assert "closed" == bench.state


async def test_an_answer_of_before_the_outage_changes_nothing(bench: Bench) -> None:
    """It was admitted under another epoch."""
    bench.submit(1)
    late, bench.fake.waiting = bench.fake.waiting, []
    bench.fail()
    bench.fake.waiting = late
    bench.fake.answer(CONFIRMED)

    assert "open" == bench.state


async def test_publishes_of_one_caller_share_one_sink_while_all_is_well(bench: Bench) -> None:
    """Answers come in batches; one call per publish would cost more than the publish."""
    bench.submit(50)
    bench.fake.answer(CONFIRMED)

    assert (1, 50) == (bench.calls, len(bench.outcomes))


async def test_a_stop_with_publishes_under_way_is_no_outage(bench: Bench) -> None:
    """A deploy must not leave an open breaker in the store."""
    bench.submit(20)
    await bench.broker.stop()

    assert "closed" == bench.state
    assert [LOST] * 20 == bench.outcomes


async def test_a_service_that_starts_again_in_this_process_starts_fresh(bench: Bench) -> None:
    """Its connection is another one."""
    bench.fail()
    again = Bench(bench.clock, bench.registry)

    assert again.fake.free == again.broker.room()


async def test_a_policy_the_user_declared_as_broker_is_the_one_that_is_used(bench: Bench) -> None:
    """Thresholds are the user's; so is doing without."""
    registry = Registry(environ={})
    Policy("broker", Breaker(Consecutive(1)), registry=registry, lint_ignore={"W1"})
    strict = Bench(bench.clock, registry)
    strict.fail(1)
    assert 0 == strict.broker.room()

    without = Registry(environ={})
    Policy("broker", Timeout(5), registry=without)
    plain = Bench(bench.clock, without)
    plain.fail(50)
    assert plain.fake.free == plain.broker.room()


async def test_a_breaker_that_only_observes_holds_nothing_back(bench: Bench) -> None:
    """Trying a breaker out must be safe."""
    observed = Bench(bench.clock, Registry(environ={"SPOOLPROOF_POLICY_BROKER_MODE": "observe"}))
    observed.fail(50)

    assert observed.fake.free == observed.broker.room()
    observed.submit(3)
    assert () == observed.broker.status().issues


# --- in a service ----------------------------------------------------------------------------------------------------


@event("protected.order")
class Order(msgspec.Struct):
    n: int


async def test_the_first_confirm_follows_the_return_of_the_broker() -> None:
    """V1: within 1 s, with a breaker that would stay open for 30."""
    registry = Registry(environ={})
    settings = Settings(store="memory://", broker="memory://")
    service = Service("protected", settings=settings, policies=registry)
    seen: list[int] = []

    @service.on(Order)
    async def handle(order: Order) -> None:
        seen.append(order.n)

    await service.start()
    try:
        broker = service.runtime.broker.inner
        assert isinstance(broker, MemoryBroker)
        broker._arrive_soon = lambda: None  # type: ignore[method-assign]  # publishes travel and are never answered
        for n in range(20):
            await service.publish(Order(n))
        await until(lambda: len(broker._travelling) == 20)
        del broker._arrive_soon  # type: ignore[method-assign]
        broker.lose_connection()
        await until(lambda: registry.get("broker").state == "open")

        clock = SystemClock()
        broker.restore_connection()
        began = clock.monotonic()
        await until(lambda: len(set(seen)) == 20)

        assert clock.monotonic() - began < 1.0
        assert "closed" == registry.get("broker").state
    finally:
        await service.stop()


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.002)
