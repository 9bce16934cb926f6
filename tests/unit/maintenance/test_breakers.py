"""What breakers know outlives the process that learned it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import cast

import pytest

from spoolproof import Service, SettingsError, StoreUnavailable
from spoolproof.clock import SystemClock
from spoolproof.errors import BreakerOpen, RateLimited
from spoolproof.ids import Ids
from spoolproof.maintenance.breakers import Breakers
from spoolproof.policies import Breaker, Consecutive, Policy, Registry, events
from spoolproof.policies import Retry as RetryPart
from spoolproof.ports.state import State
from spoolproof.settings import Settings
from spoolproof.stores.memory import MemoryStore
from spoolproof.testing.clock import ManualClock

KIND = "breaker/shop"


class World:
    """A store that outlives processes; each `process` is a registry with the same policy, as after a restart."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.store = MemoryStore(clock=clock, ids=Ids(SystemClock()), outbox_rows_max=10)
        self.keepers: list[Breakers] = []

    def process(self) -> tuple[Policy, Breakers]:
        registry = Registry(environ={})
        breaker = Breaker(Consecutive(2), open_seconds=30, open_factor=1, open_jitter=0)
        policy = Policy("psp", breaker, registry=registry, lint_ignore={"W1"})
        keeper = Breakers("shop", registry, self.store.state, clock=self.clock)
        self.keepers.append(keeper)
        return policy, keeper

    async def saved(self) -> dict[str, dict[str, object]]:
        records = await self.store.state.all(KIND)
        return {name: json.loads(record.value)["snapshot"] for name, record in records.items()}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    clock = ManualClock()
    with clock.active():
        world = World(clock)
        await world.store.start()
        yield world
        for keeper in world.keepers:
            await keeper.stop()


async def fail(policy: Policy, times: int = 2) -> None:
    async def refused() -> None:
        raise ConnectionRefusedError("refused")

    for _ in range(times):
        with pytest.raises(ConnectionRefusedError):
            await policy.call(refused)


async def turn(keeper: Breakers) -> None:
    """Let the loop do what is to be done, without its rest."""
    keeper._watch()
    await keeper._save()


async def test_a_breaker_open_at_a_crash_is_open_for_the_remaining_time_after_the_restart(world: World) -> None:
    """Q23: else every restart runs into the outage again."""
    policy, keeper = world.process()
    await keeper.start()
    await fail(policy)
    await turn(keeper)
    await world.clock.advance(10)

    restarted, its_keeper = world.process()
    await its_keeper.restore()

    assert "open" == restarted.state
    assert 20 == pytest.approx(restarted.open_until_seconds)
    with pytest.raises(BreakerOpen):
        await restarted.call(asyncio.sleep, 0)
    await world.clock.advance(20)
    assert "half_open" == restarted.state


async def test_a_closed_breaker_leaves_nothing_behind(world: World) -> None:
    """What is over must not come back at the next start."""
    policy, keeper = world.process()
    await keeper.start()
    await fail(policy)
    await turn(keeper)
    assert "open" == (await world.saved())["psp"]["state"]

    policy.reset("repaired")
    await turn(keeper)

    assert {} == await world.saved()


async def test_keyed_children_are_kept_too(world: World) -> None:
    """One host of many is down; its key is in no name of a row, whatever it is."""
    policy, keeper = world.process()
    child = policy.for_key("höst:1/" + "x" * 300)
    await keeper.start()
    await fail(child)
    await turn(keeper)

    restarted, its_keeper = world.process()
    await its_keeper.restore()

    assert "closed" == restarted.state
    assert "open" == restarted.for_key(child.key or "").state


class TooManyRequests(Exception):
    """A 429 that asks for a minute."""

    status = 429
    headers = {"Retry-After": "60"}  # noqa: RUF012  as libraries have it


async def be_limited(policy: Policy) -> None:
    async def limited() -> None:
        raise TooManyRequests

    with pytest.raises(TooManyRequests):
        await policy.call(limited)


async def test_a_cooldown_is_kept_although_no_breaker_moves(world: World) -> None:
    """A dependency that asked for a minute gets it, whatever restarts meanwhile."""
    policy, keeper = world.process()
    unguarded = Policy("mail", RetryPart(1), registry=keeper._policies, lint_ignore={"W4"})
    await keeper.start()
    await be_limited(policy)
    await be_limited(unguarded)
    await turn(keeper)
    await world.clock.advance(20)

    restarted, its_keeper = world.process()
    its_unguarded = Policy("mail", RetryPart(1), registry=its_keeper._policies, lint_ignore={"W4"})
    await its_keeper.restore()

    for one in (restarted, its_unguarded):
        with pytest.raises(RateLimited) as raised:
            await one.call(asyncio.sleep, 0)
        assert 40 == pytest.approx(raised.value.retry_after_seconds)
    assert "closed" == restarted.state


async def test_a_cooldown_is_saved_once_and_forgotten_when_it_is_over(world: World) -> None:
    """A closed breaker has no row, also after a look at every policy every few seconds."""
    policy, keeper = world.process()
    await keeper.start()
    await be_limited(policy)
    for _ in range(3):
        await turn(keeper)
    record = await world.store.state.get(KIND, "psp")
    assert record is not None
    assert 1 == record.version

    await world.clock.advance(61)
    await turn(keeper)

    assert {} == await world.saved()


async def test_a_key_that_cannot_be_written_keeps_nothing_else_from_being_saved(world: World) -> None:
    """Keys come from outside: half a surrogate from a broken header is no text."""
    policy, keeper = world.process()
    await keeper.start()
    await fail(policy.for_key("\ud800"))
    await fail(policy)

    await turn(keeper)

    assert {"psp"} == set(await world.saved())


class FullDisk:
    """Facts that can be read and not written."""

    def __init__(self, state: State) -> None:
        self.all = state.all

    async def remove(self, kind: str, name: str) -> bool:
        raise StoreUnavailable("no space left")


async def test_an_old_row_that_cannot_be_removed_keeps_no_other_from_being_restored(world: World) -> None:
    """A disk may be full at the restart: reading works, writing does not."""
    await world.store.state.put(KIND, "ancient", b"{}")
    await world.clock.advance(timedelta(days=2).total_seconds())
    policy, keeper = world.process()
    await keeper.start()
    await fail(policy)
    await turn(keeper)

    restarted, its_keeper = world.process()
    await Breakers("shop", its_keeper._policies, cast(State, FullDisk(world.store.state)), clock=world.clock).restore()

    assert "open" == restarted.state


async def test_a_store_that_is_away_delays_a_save_and_nothing_else(world: World) -> None:
    """The call whose failure opens the breaker never learns of the store."""
    policy, keeper = world.process()
    await keeper.start()
    await world.store.stop()
    await fail(policy)

    with pytest.raises(StoreUnavailable):
        await turn(keeper)
    await world.store.start()
    await turn(keeper)

    assert "open" == (await world.saved())["psp"]["state"]


async def test_many_changes_are_one_save_of_the_newest(world: World) -> None:
    """A flapping breaker must not become a load on the store."""
    policy, keeper = world.process()
    await keeper.start()
    for _ in range(50):
        policy.reset("again")
        await fail(policy)
    await turn(keeper)

    record = await world.store.state.get(KIND, "psp")
    assert record is not None
    assert 1 == record.version


@pytest.mark.parametrize(
    "value", [b"", b"{", b"[]", b'{"key": null, "snapshot": {"version": 99}}', b'{"key": null, "snapshot": 7}']
)
async def test_a_damaged_or_future_snapshot_is_ignored_with_an_event(world: World, value: bytes) -> None:
    """Q23: a start never fails over it, and somebody can know."""
    told: list[events.Event] = []
    unsubscribe = events.subscribe(told.append)
    await world.store.state.put(KIND, "psp", value)

    policy, keeper = world.process()
    try:
        await keeper.restore()
    finally:
        unsubscribe()

    assert "closed" == policy.state
    assert ["RestoreIgnored"] == [type(event).__name__ for event in told]


async def test_old_rows_and_rows_of_unknown_policies_do_no_harm(world: World) -> None:
    """A release renames a policy; a service rests over a weekend."""
    policy, keeper = world.process()
    await keeper.start()
    await fail(policy)
    await turn(keeper)
    await world.store.state.put(KIND, "renamed", b"{}")
    await world.clock.advance(timedelta(days=2).total_seconds())

    restarted, its_keeper = world.process()
    await its_keeper.restore()

    assert "closed" == restarted.state
    assert {} == await world.saved()


async def test_a_start_goes_on_without_its_snapshots(world: World) -> None:
    """They are a kindness to the dependency, not a need."""
    policy, keeper = world.process()
    await world.store.stop()

    await keeper.restore()

    assert "closed" == policy.state


async def test_a_new_policy_is_watched_although_the_loop_runs(world: World) -> None:
    """Policies may be made long after the start."""
    policy, keeper = world.process()
    await keeper.start()
    late = Policy("late", Breaker(Consecutive(2)), registry=keeper._policies, lint_ignore={"W1"})
    await fail(late)
    keeper._watch()
    await turn(keeper)

    assert {"late"} == set(await world.saved())
    assert "closed" == policy.state


# --- as part of a service --------------------------------------------------------------------------------------------


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(5):
        while not await condition():
            await asyncio.sleep(0.005)


async def test_a_service_saves_and_restores_the_breakers_of_its_registry(tmp_path: object) -> None:
    """Nobody has to remember to."""
    settings = Settings(store=f"sqlite:///{tmp_path}/store.db", broker="memory://")
    states = []
    for turn_number in range(2):
        registry = Registry(environ={})
        policy = Policy("psp", Breaker(Consecutive(2), open_seconds=60), registry=registry, lint_ignore={"W1"})
        service = Service("shop", settings=settings, policies=registry)
        await service.start()
        try:
            states.append(policy.state)
            if turn_number == 0:
                await fail(policy)
                store = service.runtime.store
                await until(lambda store=store: _has_row(store))  # type: ignore[misc]
        finally:
            await service.stop()

    assert ["closed", "open"] == states


async def _has_row(store: object) -> bool:
    return bool(await store.state.all(KIND))  # type: ignore[attr-defined]


async def test_faults_of_policy_settings_and_of_settings_are_reported_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found one at a time, five faults are five deploys."""
    monkeypatch.setenv("SPOOLPROOF_LEASE_SECONDS", "never")
    registry = Registry(environ={"SPOOLPROOF_POLICY_PSP_ATTEMPTS": "many", "CB_RESET_TIMEOUT": "30s"})
    Policy("psp", RetryPart(2), registry=registry, lint_ignore={"W4"})

    with pytest.raises(SettingsError) as raised:
        await Service("shop", policies=registry).start()
    monkeypatch.delenv("SPOOLPROOF_LEASE_SECONDS")
    with pytest.raises(SettingsError) as raised_alone:
        await Service("shop", policies=registry).start()

    text = "\n".join(raised.value.faults)
    assert all(name in text for name in ("LEASE_SECONDS", "ATTEMPTS", "CB_RESET_TIMEOUT"))
    assert "ATTEMPTS" in "\n".join(raised_alone.value.faults)


async def test_a_drain_ends_retries_and_a_restart_in_the_same_process_allows_them_again() -> None:
    """An ASGI reload, a test suite: the registry lives on."""
    registry = Registry(environ={})
    Policy("psp", RetryPart(2), registry=registry, lint_ignore={"W4"})
    service = Service("shop", settings=Settings(store="memory://", broker="memory://"), policies=registry)
    await service.start()
    await service.drain(1.0)
    assert registry.drain_switch.is_draining

    await service.stop()

    assert not registry.drain_switch.is_draining
