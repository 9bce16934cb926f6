"""What stands behind the relay of webhooks: who has room, who gets nothing, and what each row is answered."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from spoolproof import limits
from spoolproof.backoff import seeded_random, system_random
from spoolproof.clock import SystemClock
from spoolproof.destination import to_endpoint
from spoolproof.ids import Ids
from spoolproof.lifecycle.supervisor import Supervisor
from spoolproof.message import Outgoing
from spoolproof.policies import Registry
from spoolproof.ports.broker import Confirmed, Failed, PublishOutcome, Unknown
from spoolproof.ports.webhooks import Endpoint, EndpointState, Webhooks
from spoolproof.stores.memory import MemoryStore
from spoolproof.telemetry.events import Event, listening
from spoolproof.testing.clock import ManualClock
from spoolproof.testing.conformance import eventually
from spoolproof.testing.conformance._messages import make_message
from spoolproof.webhooks.delivery import Delivery
from spoolproof.webhooks.directory import Directory
from spoolproof.webhooks.events import EndpointPaused
from spoolproof.webhooks.guard import Rules
from spoolproof.wiring import PORTS

sys.path.insert(0, str(Path(__file__).parent))
from receivers import SECRET, Receiver  # type: ignore[import-not-found]

pytestmark = pytest.mark.integration


class World:
    """A delivery on a store in memory, whose clock moves only when told; requests are real."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.clock = ManualClock(SystemClock().now())
        self.supervisor = Supervisor(SystemClock(), system_random())
        self.store = MemoryStore(clock=self.clock, ids=Ids(self.clock), outbox_rows_max=1000, ports=PORTS)
        self.webhooks = self.store.port(Webhooks)
        self.directory = Directory(self.webhooks, clock=self.clock)
        self.may_send = True
        self.answers: list[PublishOutcome] = []
        self.delivery = Delivery(
            *(self.webhooks, self.directory, Registry(), Rules.of(("127.0.0.0/8", "::1/128"), (receiver.port,))),
            may_send=lambda token: self.may_send,
            clock=self.clock,
            random=seeded_random(1),
            spawn=self.supervisor.spawn,
        )

    async def add(self, name: str, path: str, secret: str = SECRET) -> None:
        url = self.receiver.url(path)
        await self.webhooks.add(Endpoint(name=name, url=url, secrets=(secret,), types=("*",)))
        await self.directory.look()

    async def answered(self, name: str, rows: int = 1) -> Sequence[PublishOutcome]:
        """Hand rows over and return the answers to them."""
        self.answers.clear()
        for _ in range(rows):
            outgoing = Outgoing(message=make_message(), destination=to_endpoint(name))
            self.delivery.submit(outgoing, object(), lambda results: self.answers.extend(one for _, one in results))
        assert [] == self.answers, "an answer from within submit"
        await eventually(lambda: len(self.answers) == rows)
        return self.answers

    async def state(self, name: str) -> EndpointState:
        return next(endpoint.state for endpoint in await self.webhooks.all() if endpoint.name == name)


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    with Receiver(tmp_path) as receiver:
        yield receiver


@pytest.fixture
async def world(receiver: Receiver) -> AsyncIterator[World]:
    world = World(receiver)
    await world.store.start()
    yield world
    await world.supervisor.stop()
    await world.store.stop()


async def test_an_open_breaker_sends_nothing_and_costs_no_attempt(world: World) -> None:
    """A receiver that is down gets five requests and then peace; no row of the others has used up an attempt."""
    await world.add("shop", "ok")
    await world.add("other", "ok")
    world.receiver.kill()

    answers = await world.answered("shop", rows=20)

    failed = [answer for answer in answers if isinstance(answer, Failed)]
    assert 5 <= len(failed) < 5 + limits.WEBHOOK_CONCURRENCY
    assert 20 - len(failed) == sum(isinstance(answer, Unknown) for answer in answers)
    assert ["shop"] == world.delivery.without_room()


async def test_an_endpoint_that_fails_for_72_hours_is_paused(world: World) -> None:
    """Its events wait from then on, and somebody is told."""
    told: list[Event] = []
    await world.add("shop", "500")
    with listening(told.append):
        for _ in range(2):
            (answer,) = await world.answered("shop")
            assert isinstance(answer, Failed)
            assert not answer.is_final
            await world.clock.advance(limits.WEBHOOK_FAILING_SECONDS_MAX / 2)
        assert EndpointState.ACTIVE is await world.state("shop")
        await world.answered("shop")

    assert EndpointState.PAUSED is await world.state("shop")
    assert ["shop"] == world.delivery.without_room()
    assert ["shop"] == [event.endpoint for event in told if isinstance(event, EndpointPaused)]


async def test_a_success_begins_the_72_hours_anew(world: World) -> None:
    """A failure a week ago says nothing of today."""
    await world.add("shop", "once/500")
    message = make_message()
    for expected in (Failed, Confirmed):
        world.delivery.submit(
            Outgoing(message=message, destination=to_endpoint("shop")),
            object(),
            lambda results: world.answers.extend(one for _, one in results),
        )
        await eventually(lambda: len(world.answers) == 1)
        assert isinstance(world.answers.pop(), expected)
    assert [None] == [endpoint.failing_since for endpoint in await world.webhooks.all()]


@pytest.mark.parametrize(("path", "seconds"), [("503", 1800.0), ("429", 1800.0), ("500", 0.0)])
async def test_who_asks_for_time_gets_it(world: World, path: str, seconds: float) -> None:
    """Retry-After of 429 and 503."""
    await world.add("shop", path)

    (answer,) = await world.answered("shop")

    assert isinstance(answer, Failed)
    assert seconds == answer.at_least_seconds
    assert 0.9 <= answer.spread <= 1.1


async def test_410_disables_it_once_and_for_all(world: World) -> None:
    """What waits is refused without a request: it becomes dead letters, which a replay sends."""
    await world.add("shop", "410")

    first = await world.answered("shop")
    second = await world.answered("shop")

    assert [True, True] == [answer.is_final for answer in (*first, *second) if isinstance(answer, Failed)]
    assert EndpointState.DISABLED is await world.state("shop")
    assert 1 == len(world.receiver.received())


async def test_a_row_of_an_endpoint_that_is_not_known_yet_waits_for_a_look(world: World) -> None:
    """It may have been added since; only when it is not there then it is gone."""
    assert not world.delivery.has_room("new")
    assert not world.delivery.has_room("gone")
    await world.add("new", "ok")
    await world.directory.look_when_due()

    assert world.delivery.has_room("new")
    assert [Confirmed()] == await world.answered("new")
    (answer,) = await world.answered("gone")
    assert isinstance(answer, Failed)
    assert answer.is_final


async def test_nothing_is_sent_under_a_lease_that_went(world: World) -> None:
    """Somebody else may be sending it already."""
    await world.add("shop", "ok")
    world.may_send = False

    assert [Unknown("not sent")] == await world.answered("shop")
    assert [] == world.receiver.received()


async def test_what_has_expired_is_not_sent(world: World) -> None:
    """As no handler is given it: a dead letter says so."""
    await world.add("shop", "ok")
    message = make_message(expires_at=world.clock.now())
    outgoing = Outgoing(message=message, destination=to_endpoint("shop"))
    world.delivery.submit(outgoing, object(), lambda results: world.answers.extend(one for _, one in results))
    await eventually(lambda: len(world.answers) == 1)

    (answer,) = world.answers
    assert isinstance(answer, Failed)
    assert answer.is_final
    assert "expired at" in answer.detail
    assert [] == world.receiver.received()


async def test_a_secret_that_is_missing_holds_its_events(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unsigned it would be refused; a dead letter would be our fault."""
    await world.add("shop", "ok", "env:NO_SUCH_HOOK")
    assert ["shop"] == world.delivery.without_room()
    assert "NO_SUCH_HOOK" in world.directory.faults["shop"]

    monkeypatch.setenv("NO_SUCH_HOOK", SECRET)
    await world.directory.look()
    assert [Confirmed()] == await world.answered("shop")
    assert [[True]] == [line["verified"] for line in world.receiver.received()]


async def test_a_lane_is_bounded_and_a_drain_gives_back_what_it_holds(world: World) -> None:
    """What was not sent is still in the store; nobody waits for it."""
    await world.add("shop", "hang")
    rows = limits.WEBHOOK_CONCURRENCY + limits.WEBHOOK_LANE_ROWS_MAX
    for number in range(rows):
        assert world.delivery.has_room("shop"), number
        outgoing = Outgoing(message=make_message(), destination=to_endpoint("shop"))
        world.delivery.submit(outgoing, number, lambda results: world.answers.extend(one for _, one in results))
    assert not world.delivery.has_room("shop")
    await eventually(lambda: len(world.receiver.received()) == limits.WEBHOOK_CONCURRENCY)

    world.delivery.drain()
    await asyncio.sleep(0)

    assert limits.WEBHOOK_LANE_ROWS_MAX == len(world.answers)
    assert 0 == world.delivery.room()
