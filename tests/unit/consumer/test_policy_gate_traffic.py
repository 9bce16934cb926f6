"""A gated queue while its breaker is moved by others, asks for probes that somebody else makes, or flaps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from spoolproof import RegistrationError, Service, limits
from spoolproof.consumer.policy_gate import state_of
from spoolproof.message import FIRST_DEFERRED_AT
from spoolproof.policies import Breaker, Consecutive, Policy, Registry
from spoolproof.settings import Settings

from .gated import CONCURRENCY, FakePolicy, Order, Shop, turns, until

MESSAGES = 20


class TooManyRequests(Exception):
    """A 429 that asks for a minute."""

    status = 429
    headers = {"Retry-After": "60"}  # noqa: RUF012  as libraries have it


class Traffic:
    """A shop whose messages all call one dependency, which others in the process call too."""

    def __init__(self, mode: str = "enforce") -> None:
        registry = Registry(environ={"SPOOLPROOF_POLICY_PSP_MODE": mode})
        breaker = Breaker(Consecutive(3), open_seconds=0.1, open_factor=1, open_jitter=0, ramp_seconds=0)
        self.policy = Policy("psp", breaker, registry=registry, idempotent=True, lint_ignore={"W1"})
        self.shop = Shop(self.policy, registry)
        self.shop.call = lambda order: self.policy.call(self.reach)
        self.calls = 0
        self.error: Exception | None = None

    async def reach(self) -> None:
        self.calls += 1
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error

    async def open(self) -> None:
        """Open the breaker, as other traffic would."""
        self.error, kept = ConnectionRefusedError("refused"), self.error
        for _ in range(3):
            with pytest.raises(ConnectionRefusedError):
                await self.policy.call(self.reach)
        self.error = kept
        self.calls = 0

    @asynccontextmanager
    async def probed_by_others(self) -> AsyncIterator[asyncio.Event]:
        """Hold the only probe there may be until the event is set."""
        may_end = asyncio.Event()
        await self.open()
        await until(lambda: self.policy.state == "half_open")
        probe = asyncio.ensure_future(self.policy.call(may_end.wait))
        await turns(2)
        yield may_end
        may_end.set()
        await probe

    def delays(self) -> list[float]:
        """In how many seconds each copy comes back that waits in a delay queue."""
        broker = self.shop.server
        return [due - self.shop.service._clock.monotonic() for due in broker.server.due_times()]


async def test_messages_keep_their_place_while_others_probe() -> None:
    """With no probe left for them, one after the other would be sent around through the delay queue, without end."""
    traffic = Traffic()
    async with traffic.shop.running_service(), traffic.probed_by_others() as may_end:
        await traffic.shop.publish(*range(MESSAGES))
        await turns(300)

        assert [] == traffic.delays()
        assert 1 == len(traffic.shop.attempts)

        may_end.set()
        await until(lambda: len(traffic.shop.seen) == MESSAGES)
        assert {1} == set(traffic.shop.attempts)
        assert list(range(MESSAGES)) == sorted(traffic.shop.seen)


async def test_a_drain_does_not_wait_for_the_probe_of_others() -> None:
    """V8: a deploy in the middle of an outage."""
    traffic = Traffic()
    async with traffic.shop.running_service(), traffic.probed_by_others():
        await traffic.shop.publish(1)
        await until(lambda: traffic.shop.attempts)

        await asyncio.wait_for(traffic.shop.service.drain(20.0), 5)

        assert 1 == len(traffic.delays()) + traffic.shop.ready()


async def test_a_dependency_that_asks_for_time_when_it_is_back_gets_it() -> None:
    """Half open, it answers 429: each message is put off for as long as it asked, and not for a second."""
    traffic = Traffic()
    traffic.error = TooManyRequests()
    async with traffic.shop.running_service():
        await traffic.open()
        await traffic.shop.publish(*range(MESSAGES))
        await until(lambda: len(traffic.delays()) == MESSAGES)

        assert 50 < min(traffic.delays())
        assert 1 == traffic.calls


async def test_a_breaker_that_only_observes_sends_nothing_around() -> None:
    """Q31: nothing holds its messages in the queue, so they wait as those of any queue do, for longer each time."""
    traffic = Traffic(mode="observe")
    traffic.error = ConnectionRefusedError("refused")
    async with traffic.shop.running_service():
        await traffic.shop.publish(*range(MESSAGES))
        await until(lambda: traffic.policy.state == "open")
        await turns(300)

        assert [] == traffic.delays()


@pytest.mark.parametrize(
    ("policies", "state"),
    [
        ([], "closed"),
        ([FakePolicy(share=0.1)], "closed"),
        ([FakePolicy("open", gates=False)], "closed"),
        ([FakePolicy("half_open"), FakePolicy()], "half_open"),
        ([FakePolicy("half_open"), FakePolicy("isolated")], "open"),
        ([FakePolicy("open"), FakePolicy("half_open")], "open"),
    ],
)
def test_the_strictest_state_tells_where_a_deferred_message_waits(policies: list[FakePolicy], state: str) -> None:
    """In its queue while the gate is shut, in a delay queue while it is not."""
    assert state == state_of(policies)


async def test_a_flapping_breaker_wears_out_no_message() -> None:
    """L9: what is behind the first few of a large prefetch goes back at each trip; the broker counts that."""
    policy = FakePolicy()
    shop = Shop(policy)
    async with shop.running_service():
        shop.may_end.clear()
        await shop.publish(*range(MESSAGES))
        for _ in range(limits.DELIVERY_LIMIT + 10):
            policy.become("open", until=301)
            await turns(20)
            policy.become("closed")
            await turns(20)
        shop.may_end.set()
        await until(lambda: len(shop.seen) + len(shop.server.server.queues["gated.orders.dead"].ready) >= MESSAGES)

        assert [] == await shop.dead()
        assert list(range(MESSAGES)) == sorted(shop.seen)
        assert {1} == set(shop.attempts)


async def test_a_gate_that_holds_a_message_does_not_make_it_old() -> None:
    """A day-long outage must not be held against a message that meets a full bulkhead after it."""
    policy = FakePolicy()
    shop = Shop(policy)

    async def refuse(order: Order) -> None:
        policy.become("open", until=60)
        raise ConnectionRefusedError("refused")

    outer = Policy("outer", Breaker(), registry=Registry(environ={}), lint_ignore={"W1"})
    shop.call = lambda order: outer.call(refuse, order)
    async with shop.running_service():
        await shop.publish(1)
        await until(lambda: shop.server.server.due_times())
        await until(lambda: shop.ready() == 1, 3)

        headers = [entry.message.headers for entry in shop.server.server.queues["gated.orders"].ready]
        assert [False] == [FIRST_DEFERRED_AT in one for one in headers]


async def test_handlers_of_one_queue_share_the_key_of_their_gate_too() -> None:
    """The second one's gate would be ignored without a word."""

    registry = Registry(environ={})
    psp = Policy("psp", Breaker(), registry=registry, lint_ignore={"W1"})
    service = Service("gated", settings=Settings(store="memory://", broker="memory://"), policies=registry)

    @service.on("first.type", queue="q", concurrency=CONCURRENCY, gate=psp.for_key("eu"))
    async def first(payload: dict) -> None:  # type: ignore[type-arg]
        pass

    with pytest.raises(RegistrationError, match=r"gate=psp\[eu\]; handlers of one queue share them"):

        @service.on("second.type", queue="q", concurrency=CONCURRENCY, gate=psp.for_key("us"))
        async def second(payload: dict) -> None:  # type: ignore[type-arg]
            pass
