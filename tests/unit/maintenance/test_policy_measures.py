"""What a scrape shows of policies: calls that were made, and nothing that a scrape itself brings about."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from spoolproof.clock import SystemClock
from spoolproof.errors import BreakerOpen
from spoolproof.ids import Ids
from spoolproof.maintenance.breakers import Breakers
from spoolproof.maintenance.policy_measures import PolicyMeasures
from spoolproof.policies import Breaker, Bulkhead, Consecutive, Policy, Registry, Retry
from spoolproof.stores.memory import MemoryStore
from spoolproof.testing.clock import ManualClock


@pytest.fixture
def clock() -> Iterator[ManualClock]:
    with ManualClock().active() as clock:
        yield clock


@pytest.fixture
def registry() -> Registry:
    return Registry(environ={})


@pytest.fixture
async def measures(clock: ManualClock, registry: Registry) -> PolicyMeasures:
    store = MemoryStore(clock=clock, ids=Ids(SystemClock()), outbox_rows_max=10)
    breakers = Breakers("shop", registry, store.state, clock=clock)
    return PolicyMeasures(registry, breakers.log)


def shown(measures: PolicyMeasures) -> dict[str, float]:
    return {",".join((metric.name, *labels)): value for metric, labels, value in measures.measures()}


async def call(policy: Policy, *, fails: bool = False) -> None:
    async def psp() -> None:
        if fails:
            raise ConnectionRefusedError("no route")

    try:
        await policy.call(psp)
    except (ConnectionRefusedError, BreakerOpen):
        return


async def test_calls_rejections_and_transitions_are_counted(registry: Registry, measures: PolicyMeasures) -> None:
    """The machines count anyway; the numbers of a dashboard are the ones the breaker itself goes by."""
    breaker = Breaker(Consecutive(2), open_seconds=30)
    policy = Policy("psp", breaker, Bulkhead(3), registry=registry, lint_ignore={"W1"})

    await call(policy)
    for _ in range(3):
        await call(policy, fails=True)

    found = shown(measures)
    assert 1 == found["policy_calls_total,psp,success,live"]
    assert 1 == found["policy_rejected_total,psp,breaker"]
    assert 3 == found["policy_attempts_total,psp"]
    assert 1 == found["breaker_transitions_total,psp,open"]
    assert (0, 3) == (found["bulkhead_running,psp"], found["bulkhead_limit,psp"])
    assert found == shown(measures), "a scrape counts nothing"


async def test_a_count_never_falls_when_a_key_is_forgotten(registry: Registry, measures: PolicyMeasures) -> None:
    """Whoever reads counters takes one that fell for a restart, and adds all of it once more."""
    policy = Policy("psp", Retry(attempts=2), registry=registry, idempotent=True, lint_ignore={"W1"})
    await call(policy.for_key("a"))
    await call(policy.for_key("b"))
    assert 2 == shown(measures)["policy_calls_total,psp,success,live"]

    policy._definition._children.clear()

    assert 2 == shown(measures)["policy_calls_total,psp,success,live"]
    await call(policy.for_key("a"))
    assert 3 == shown(measures)["policy_calls_total,psp,success,live"]
