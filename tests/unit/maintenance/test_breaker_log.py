"""What the log and the health of a process say of breakers: a real policy, its breaker, and the clock that moves it."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from spoolproof.clock import SystemClock
from spoolproof.errors import BreakerOpen
from spoolproof.ids import Ids
from spoolproof.maintenance.breakers import Breakers
from spoolproof.policies import Breaker, Consecutive, Policy, Registry
from spoolproof.stores.memory import MemoryStore
from spoolproof.testing.clock import ManualClock


@pytest.fixture
def clock() -> Iterator[ManualClock]:
    with ManualClock().active() as clock:
        yield clock


class Watched:
    """A policy whose breaker opens after two failures for 30 s, watched as a service does."""

    def __init__(self, clock: ManualClock, mode: str = "enforce") -> None:
        registry = Registry(environ={})
        breaker = Breaker(Consecutive(2), open_seconds=30, open_factor=1, open_jitter=0, mode=mode)
        self.policy = Policy("psp", breaker, registry=registry, lint_ignore={"W1"})
        store = MemoryStore(clock=clock, ids=Ids(SystemClock()), outbox_rows_max=10)
        self.breakers = Breakers("shop", registry, store.state, clock=clock)

    async def call(self, *, fails: bool) -> None:
        async def psp() -> None:
            if fails:
                raise ConnectionRefusedError("no route")

        try:
            await self.policy.call(psp)
        except (ConnectionRefusedError, BreakerOpen):
            return

    async def open(self) -> None:
        for _ in range(2):
            await self.call(fails=True)


async def test_a_breaker_that_opens_and_closes_is_told_at_both_ends_and_listed_between(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Calls are refused from now on: whoever looks for the reason finds which breaker, why, and until when."""
    caplog.set_level(logging.INFO)
    watched = Watched(clock)
    await watched.breakers.start()

    await watched.open()
    while_open = watched.breakers.log.issues()
    await clock.advance(30)
    while watched.policy.state != "closed":
        await watched.call(fails=False)
    await watched.breakers.stop()

    assert ("breaker psp: open since 2026-01-01T00:00:00Z: too many failures: ConnectionRefusedError: no route",) == (
        while_open
    )
    assert () == watched.breakers.log.issues()
    assert {"WARNING"} == {record.levelname for record in caplog.records}
    assert [
        "breaker.opened policy=psp reason=too many failures: ConnectionRefusedError: no route "
        "until=2026-01-01T00:00:30Z: its calls are refused until then",
        "breaker.half_opened",
        "breaker.closed policy=psp seconds=30.0",
    ] == [caplog.messages[0], caplog.messages[1].split()[0], caplog.messages[2].partition(" reason")[0]]


async def test_a_breaker_whose_probes_fail_is_told_of_once_a_minute(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """An hour of outage is 120 openings; the first is the news."""
    watched = Watched(clock)
    await watched.breakers.start()
    await watched.open()
    for _ in range(4):
        await clock.advance(30)
        await watched.call(fails=True)
    await watched.breakers.stop()

    opened = [text for text in caplog.messages if text.startswith("breaker.opened")]
    assert 3 == len(opened)
    assert opened[1].endswith("suppressed=1")


async def test_a_breaker_that_only_observes_is_no_issue(clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    """It refuses nothing; what it would have done is for whoever tries it out."""
    watched = Watched(clock, mode="observe")
    await watched.breakers.start()
    await watched.open()
    await watched.breakers.stop()

    assert () == watched.breakers.log.issues()
    assert "it only observes" in caplog.text


async def test_a_breaker_that_is_open_when_the_service_starts_is_told_of(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Kept from before a restart, it refuses the first call of the new process."""
    watched = Watched(clock)
    await watched.open()

    await watched.breakers.start()
    await watched.breakers.stop()

    assert ["breaker.opened policy=psp"] == [text.partition(" reason")[0] for text in caplog.messages]
    assert 1 == len(watched.breakers.log.issues())
