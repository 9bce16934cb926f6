"""What policies protect, watched through real policies on a clock that moves when told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from random import Random

import pytest

from spoolproof import Service, Settings
from spoolproof.errors import BreakerOpen, PolicyConfigError
from spoolproof.health.body import document_at
from spoolproof.health.dependencies import Dependencies
from spoolproof.lifecycle.supervisor import Supervisor
from spoolproof.policies import Breaker, Bulkhead, Classifier, Consecutive, Policy, Registry, Retry, Timeout
from spoolproof.ports.health import Need, Status
from spoolproof.testing.clock import ManualClock


class Refused(Exception):
    """A 404: the dependency has answered."""


class Bench:
    """Dependencies on a registry of its own."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.registry = Registry({})
        self.random = Random(7)
        spawn = Supervisor(clock, self.random).spawn
        self.tested = Dependencies(self.registry, clock=clock, random=self.random, spawn=spawn, without=("broker",))
        self.is_away = False
        self.took_seconds = 0.0

    def policy(self, *parts: object, **options: object) -> Policy:
        classify = Classifier().permanent(Refused)
        return Policy(
            "psp", *parts, registry=self.registry, classify=classify, lint_ignore={"W1", "W2", "W3", "W4"}, **options
        )  # type: ignore[arg-type]

    async def work(self) -> str:
        if self.took_seconds:
            await self.clock.sleep(self.took_seconds)
        if self.is_away:
            raise ConnectionError("away")
        return "paid"

    async def pass_by(self, seconds: float) -> None:
        """Let so many seconds pass, and the loop look once in each."""
        for _ in range(int(seconds)):
            await self.clock.advance(1.0)
            self.tested.look()
            await asyncio.sleep(0)

    async def calls(self, policy: Policy, count: int) -> None:
        for _ in range(count):
            await policy.result(self.work)

    @property
    def status(self) -> Status | None:
        return self.tested.status_of("psp")


@pytest.fixture
def bench() -> Iterator[Bench]:
    with ManualClock().active() as clock:
        yield Bench(clock)


@pytest.fixture(autouse=True)
async def ended(bench: Bench) -> AsyncIterator[None]:
    yield
    await bench.tested.stop()


@pytest.mark.parametrize("parts", [(Breaker(),), (Timeout(10),), (Retry(2), Bulkhead(4), Timeout(5))])
async def test_calls_tell_their_dependencys_status(bench: Bench, parts: tuple[object, ...]) -> None:
    """With a breaker or without: what policies count anyway is enough, and nothing is registered twice."""
    policy = bench.policy(*parts)
    await bench.tested.start()
    assert Status.UNKNOWN is bench.status

    await bench.calls(policy, 20)
    await bench.pass_by(6)
    assert Status.HEALTHY is bench.status

    bench.is_away = True
    await bench.calls(policy, 4)
    await bench.pass_by(12)
    assert Status.DEGRADED is bench.status  # 4 of 24, and no breaker has opened


async def test_a_refusal_is_an_answer(bench: Bench) -> None:
    """A 4xx says that the dependency works."""
    policy = bench.policy(Breaker())
    await bench.tested.start()

    async def refuse() -> None:
        raise Refused

    for _ in range(20):
        await policy.result(refuse)
    await bench.pass_by(6)

    assert Status.HEALTHY is bench.status


async def test_an_open_breaker_makes_it_unhealthy_at_once_and_three_successes_end_that(bench: Bench) -> None:
    """A ladder must not try for ten seconds what the breaker refuses, nor wait for health once the breaker lets go."""
    policy = bench.policy(Breaker(Consecutive(3), open_seconds=5, ramp_seconds=0, probe_successes=1))
    await bench.tested.start()
    bench.is_away = True
    await bench.calls(policy, 3)
    await asyncio.sleep(0)
    assert Status.UNHEALTHY is bench.status

    bench.is_away = False
    await bench.pass_by(7)
    assert Status.UNHEALTHY is bench.status
    await bench.calls(policy, 3)
    await bench.pass_by(1)
    assert Status.DEGRADED is bench.status

    await bench.pass_by(35)
    assert Status.HEALTHY is bench.status


async def test_a_probe_finds_outage_and_return_without_traffic(bench: Bench) -> None:
    """At night nobody calls; the first customer of the day should not be who finds out."""
    policy = bench.policy(Breaker(Consecutive(1), open_seconds=600))
    policy.probe(bench.work)
    await bench.tested.start()
    await bench.pass_by(20)
    assert Status.HEALTHY is bench.status

    bench.is_away = True
    await bench.pass_by(35)
    assert Status.UNHEALTHY is bench.status
    with pytest.raises(ConnectionError):
        await policy.call(bench.work)
    with pytest.raises(BreakerOpen):
        await policy.call(bench.work)

    bench.is_away = False
    await bench.pass_by(5)

    assert Status.DEGRADED is bench.status  # also the breaker was told to try, ten minutes early
    assert "paid" == await policy.call(bench.work)


async def test_slow_answers_are_measured_without_a_listener(bench: Bench) -> None:
    policy = bench.policy(Breaker(), response_seconds=0.5)
    await bench.tested.start()
    bench.took_seconds = 0.7

    for _ in range(5):
        callers = [asyncio.create_task(policy.call(bench.work)) for _ in range(5)]
        await asyncio.sleep(0)
        await bench.pass_by(6)
        await asyncio.gather(*callers)
    await bench.pass_by(6)

    (found,) = bench.tested.known()
    assert Status.DEGRADED is found.status
    assert 0.7 <= (found.p95_seconds or 0) < 1.1
    assert {"0.5", "0.95"} <= {labels[1] for _, labels, _ in bench.tested.measures() if len(labels) > 1}


async def test_measuring_ends_and_leaves_the_way_of_a_call_as_it_was(bench: Bench) -> None:
    """What most calls run through must not keep a wrapper for ever."""
    policy = bench.policy(Breaker(), Bulkhead(4))
    seconds: list[float] = []
    (attempt,) = [policy.machines.pipeline.block]
    before = attempt._leaves
    policy.machines.sample(3, seconds)
    policy.machines.sample(3, seconds)
    assert before != attempt._leaves

    await bench.calls(policy, 5)

    assert (3, before, 0) == (len(seconds), attempt._leaves, policy.machines.slots.running)  # type: ignore[union-attr]


async def test_one_tenants_breaker_is_not_the_dependencys(bench: Bench) -> None:
    policy = bench.policy(Breaker(Consecutive(3)))
    await bench.tested.start()
    await bench.calls(policy.for_key("one"), 90)
    bench.is_away = True
    await bench.calls(policy.for_key("two"), 3)

    await bench.pass_by(12)

    assert (True, Status.HEALTHY) == (policy.for_key("two").state != "closed", bench.status)


def test_a_wrong_need_is_refused_where_it_is_written(bench: Bench) -> None:
    with pytest.raises(PolicyConfigError, match="need='vital': 'critical', 'important', 'optional', or None"):
        bench.policy(Breaker(), need="vital")
    with pytest.raises(PolicyConfigError, match="response_seconds=0"):
        bench.policy(Breaker(), response_seconds=0)
    with pytest.raises(PolicyConfigError, match="write `async def`"):
        bench.policy(Breaker()).probe(lambda: None)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize(
    ("need", "status", "code"),
    [("critical", "unhealthy", 503), ("important", "degraded", 200), ("optional", "ok", 200)],
)
async def test_the_system_is_as_well_as_what_it_needs(need: str, status: str, code: int) -> None:
    """One aggregate: the same outage takes a service out, is a warning, or is an issue and no more."""
    registry = Registry({})
    policy = Policy("psp", Breaker(Consecutive(1)), registry=registry, lint_ignore={"W1"}, need=need)  # type: ignore[arg-type]
    settings = Settings(store="memory://", broker="memory://", health_detail="always")
    service = Service("shop", settings=settings, policies=registry)
    async with service.test():
        snapshot = service.runtime.monitor.snapshot()
        assert "ok" == _document("/health", snapshot).body["status"]

        async def fail() -> None:
            raise ConnectionError

        await policy.result(fail)
        await asyncio.sleep(0)
        snapshot = service.runtime.monitor.snapshot()

        summary, detail = _document("/health", snapshot), _document("/health/dependencies", snapshot)
        assert (status, code) == (summary.body["status"], summary.status)
        assert {"status", "db", "embedded", "memory", "issues"} >= set(summary.body)
        shown = detail.body["dependencies"]["psp"]
        assert ("unhealthy", Need(need).value, False) == (shown["status"], shown["need"], shown["connected"])
        assert any("psp: unhealthy since" in issue for issue in detail.body["issues"])


def _document(path: str, snapshot: object) -> object:
    document = document_at(path)
    assert document is not None
    return document(snapshot, True)  # type: ignore[arg-type]
