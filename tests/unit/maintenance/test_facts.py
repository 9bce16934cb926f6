"""What is said of a policy in one process of a service is known in the others."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from spoolproof import StoreUnavailable, limits
from spoolproof.clock import SystemClock
from spoolproof.ids import Ids
from spoolproof.maintenance.facts import FactExchange
from spoolproof.policies import Breaker, Policy, Registry
from spoolproof.stores.memory import MemoryStore
from spoolproof.testing.clock import ManualClock

KIND = "fact/shop"


class World:
    """A store, and processes of one service on it."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.store = MemoryStore(clock=clock, ids=Ids(SystemClock()), outbox_rows_max=10)

    def process(self, service: str = "shop") -> tuple[Policy, FactExchange]:
        registry = Registry(environ={})
        policy = Policy("psp", Breaker(), registry=registry, lint_ignore={"W1"})
        return policy, FactExchange(service, registry, self.store.state, clock=self.clock)

    async def rows(self) -> list[dict[str, object]]:
        return [json.loads(record.value) for record in (await self.store.state.all(KIND)).values()]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    clock = ManualClock()
    with clock.active():
        world = World(clock)
        await world.store.start()
        async with clock.auto_advance():
            yield world


async def test_an_isolation_and_its_release_reach_the_other_process(world: World) -> None:
    policy, here = world.process()
    twin, there = world.process()
    release = policy.isolate("maintenance")

    await here.run_once()
    await there.run_once()
    assert twin.state == "isolated"

    release()
    await here.run_once()
    await there.run_once()
    assert twin.state == "half_open"


async def test_two_services_on_one_store_hear_nothing_of_each_other(world: World) -> None:
    policy, here = world.process()
    twin, there = world.process("other")
    policy.isolate("maintenance")

    await here.run_once()
    await there.run_once()

    assert twin.state == "closed"


async def test_what_was_said_just_before_the_end_is_still_told(world: World) -> None:
    policy, here = world.process()
    twin, there = world.process()
    await here.run_once()
    policy.isolate("maintenance")

    await here.drain()
    await there.run_once()

    assert twin.state == "isolated"


async def test_a_row_is_written_once_and_again_only_for_news(world: World) -> None:
    policy, here = world.process()
    _, there = world.process()
    release = policy.isolate("maintenance")
    for _ in range(3):
        await here.run_once()
        await there.run_once()
    [before] = (await world.store.state.all(KIND)).values()

    release()
    for _ in range(3):
        await here.run_once()
        await there.run_once()
    [after] = (await world.store.state.all(KIND)).values()

    assert (before.version, after.version) == (1, 2)


async def test_a_row_goes_a_minute_after_nobody_needs_to_hear_of_it(world: World) -> None:
    policy, here = world.process()
    policy.isolate("maintenance", ttl_seconds=30)
    await here.run_once()
    await world.clock.sleep(89 - limits.FACTS_SECONDS)
    await here.run_once()
    assert ["maintenance"] == [row["reason"] for row in await world.rows()]

    await here.run_once()

    assert [] == await world.rows()


async def test_a_row_that_cannot_be_read_stops_nothing_and_goes_after_a_day(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    policy, here = world.process()
    await world.store.state.put(KIND, "psp:rubbish", b"{")
    await world.store.state.put(KIND, "psp:future", b'{"kind": "verdict"}')
    policy.isolate("maintenance", ttl_seconds=86_400)

    await here.run_once()
    assert len(await world.store.state.all(KIND)) == 3
    assert "policies.fact_unreadable row=psp:rubbish" in caplog.text

    await world.clock.sleep(86_400)
    await here.run_once()
    assert len(await world.store.state.all(KIND)) == 1


async def test_a_lost_write_is_written_again(world: World) -> None:
    """Two processes wrote one row at the same time, and the older value won."""
    policy, here = world.process()
    release = policy.isolate("maintenance")
    await here.run_once()
    [row] = await world.store.state.all(KIND)
    active = (await world.store.state.all(KIND))[row].value
    release()
    await here.run_once()

    await world.store.state.put(KIND, row, active)
    await here.run_once()

    assert [True] == [one["is_released"] for one in await world.rows()]
    assert policy.state == "half_open"


async def test_a_store_that_is_away_is_said_to_be_away(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The supervisor waits and starts the next turn; what was to be told is told then."""
    policy, here = world.process()
    twin, there = world.process()
    policy.isolate("maintenance")

    async def away(kind: str) -> None:
        raise StoreUnavailable("memory", "gone")

    with monkeypatch.context() as patch:
        patch.setattr(world.store.state, "all", away)
        with pytest.raises(StoreUnavailable):
            await here.run_once()
    await here.run_once()
    await there.run_once()

    assert twin.state == "isolated"


@pytest.mark.parametrize("key", ["\ud800", "x" * 100_000], ids=["half a surrogate", "too long"])
async def test_a_key_that_cannot_be_written_keeps_no_other_from_being_told(
    world: World, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    policy, here = world.process()
    twin, there = world.process()
    policy.for_key(key).isolate("maintenance")
    policy.for_key("berlin").isolate("maintenance")

    await here.run_once()
    await there.run_once()

    assert twin.for_key("berlin").state == "isolated"
    assert "policies.fact_not_told policy=psp kind=isolation" in caplog.text


async def test_a_cooldown_that_begins_as_the_row_of_the_last_one_goes_is_told(world: World) -> None:
    policy, here = world.process()
    clock = world.clock
    policy.machines.cooldown.start(clock.monotonic(), 10.0)
    await here.run_once()
    await clock.sleep(70)
    policy.machines.cooldown.start(clock.monotonic(), 20.0)

    await here.run_once()

    told_at = clock.now().timestamp() - limits.FACTS_SECONDS
    assert [pytest.approx(told_at + 20)] == [row["at"] for row in await world.rows()]


async def test_a_row_from_a_future_that_cannot_be_stands_in_nobodys_way(world: World) -> None:
    policy, here = world.process()
    policy.reset("the dependency is back")
    await here.run_once()
    [(row, record)] = (await world.store.state.all(KIND)).items()
    damaged = json.loads(record.value) | {"id": "0", "at": 9e11}
    await world.store.state.put(KIND, row, json.dumps(damaged).encode())

    await here.run_once()

    assert ["the dependency is back"] == [one["reason"] for one in await world.rows()]
    assert 9e11 not in [one["at"] for one in await world.rows()]


async def test_a_reason_that_no_row_can_hold_keeps_no_other_from_being_told(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    policy, here = world.process()
    twin, there = world.process()
    policy.for_key("berlin").reset(object())  # type: ignore[arg-type]
    policy.isolate("maintenance")

    await here.run_once()
    await there.run_once()

    assert twin.state == "isolated"
    assert "policies.fact_not_told policy=psp kind=reset" in caplog.text
