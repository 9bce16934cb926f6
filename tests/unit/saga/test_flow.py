"""A saga in memory, with the clock in the test's hand: forward, back, asleep, in review."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from spoolproof import Service
from spoolproof.errors import Conflict, InvalidMessage
from spoolproof.ports.sagas import SagaState
from spoolproof.saga import Flow, KeyConflict, Landed, NotLanded, Refused, SagaRefused, Step, StillUnknown
from spoolproof.testing.app import App


@dataclass
class Order:
    id: str
    cents: int = 100


@dataclass
class World:
    """What the other systems saw: every call, and what is in force."""

    calls: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    held: dict[str, int] = field(default_factory=dict)
    errors: dict[str, list[BaseException]] = field(default_factory=dict)
    probes: list[object] = field(default_factory=list)

    def call(self, name: str, step: Step, *, lands: bool = True) -> None:
        self.calls.append(name)
        self.keys.append(step.key)
        errors = self.errors.get(name, [])
        error = errors.pop(0) if errors else None
        if error is None or getattr(error, "lands", False):
            self.held[name] = self.held.get(name, 0) + 1
        if error is not None:
            raise error


def ordering(
    world: World, *, effect: Any = "keyed", has_probe: bool = False, deadline: float = 1e6, **charge: Any
) -> Service:
    """Return a service with an order of three steps: reserve, charge, ship."""
    service = Service("shop")
    order = service.saga("order", version=1, deadline=deadline)

    @order.step()
    async def reserve(step: Step, o: Order) -> str:
        world.call("reserve", step)
        return f"r-{o.id}"

    @reserve.compensate
    async def release(step: Step, o: Order, reservation: str | None) -> None:
        world.call("release", step)

    @order.step(effect=effect, **charge)
    async def take(step: Step, o: Order, reservation: str) -> int:
        world.call("charge", step)
        return o.cents

    @take.compensate
    async def refund(step: Step, o: Order, cents: int | None) -> None:
        world.call(f"refund {cents}", step)

    if has_probe:

        @take.probe
        async def took(step: Step, o: Order) -> object:
            world.calls.append("probe")
            return world.probes.pop(0)

    @order.step(pivot=True)
    async def ship(step: Step, o: Order) -> None:
        world.call("ship", step)

    @order.flow
    async def place(saga: Flow, o: Order) -> int:
        reservation = await saga.do(reserve)
        cents = await saga.do(take, reservation)
        await saga.do(ship)
        return int(cents)

    return service


async def rest(app: App) -> None:
    for _ in range(12):
        await app.clock.rest()
        await asyncio.sleep(0)


async def advance(app: App, seconds: float, steps: int = 1) -> None:
    for _ in range(steps):
        await app.clock.advance(seconds / steps)
        await rest(app)


async def state(app: App, id: str = "1") -> SagaState:
    return (await app.service.saga.handle("order", id).look()).saga.state


async def question(app: App) -> str:
    return (await app.service.saga.handle("order", "1").look()).saga.question or ""


@asynccontextmanager
async def started(service: Service) -> AsyncIterator[App]:
    async with service.test() as app:
        await advance(app, 2, 4)
        await service.saga.start("order", Order("1"), id="1")
        await advance(app, 1, 4)
        yield app


async def test_three_steps_each_once_and_a_result() -> None:
    world = World()
    async with started(ordering(world)) as app:
        assert SagaState.COMPLETED is await state(app)
        assert 100 == await app.service.saga.handle("order", "1").result()
        assert ["reserve", "charge", "ship"] == world.calls
        again = await app.service.saga.start("order", Order("1"), id="1")
        assert not again.is_new
        with pytest.raises(KeyConflict):
            await app.service.saga.start("order", Order("1", 5), id="1")
        assert 3 == len(set(world.keys))


async def test_a_refusal_undoes_what_was_done_last_first() -> None:
    world = World(errors={"charge": [Refused("no money")]})
    async with started(ordering(world)) as app:
        with pytest.raises(SagaRefused, match="no money"):
            await app.service.saga.handle("order", "1").result()
        assert ["reserve", "charge", "release"] == world.calls


async def test_an_unavailable_system_costs_no_attempt_and_the_wait_is_a_row() -> None:
    world = World(errors={"charge": [ConnectionRefusedError() for _ in range(12)]})
    async with started(ordering(world)) as app:
        await advance(app, 900, 300)
        assert SagaState.COMPLETED is await state(app)
        assert 13 == world.calls.count("charge")
        assert 1 == len({key for key in world.keys if "/take/" in key}), "one key for all attempts"


async def test_a_keyed_step_whose_outcome_is_unknown_is_called_again_under_its_key_then_undone() -> None:
    world = World(errors={"charge": [TimeoutError() for _ in range(9)]})
    async with started(ordering(world, tombstone=True)) as app:
        await advance(app, 900, 300)
        assert SagaState.COMPENSATED is await state(app)
        assert 6 == world.calls.count("charge")
        assert ["refund None", "release"] == world.calls[-2:]


async def test_an_undo_that_cannot_be_verified_is_shown_to_a_person() -> None:
    """Without tombstone and probe nobody can say whether the charge lands after its refund."""
    world = World(errors={"charge": [TimeoutError() for _ in range(9)]})
    async with started(ordering(world)) as app:
        await advance(app, 900, 300)
        assert SagaState.IN_REVIEW is await state(app)
        assert "unverified" in await question(app)
        saga_id = app.service.saga.handle("order", "1").id
        with pytest.raises(InvalidMessage, match="offers retry, mark_compensated, abandon"):
            await app.service.saga.answer(saga_id, "approve", actor="a", reason="r")
        await app.service.saga.answer(saga_id, "mark_compensated", actor="a", reason="looked")
        assert SagaState.COMPENSATED is await state(app)


async def test_a_late_landing_is_found_by_the_probe_and_undone() -> None:
    world = World(errors={"charge": [TimeoutError() for _ in range(6)]}, probes=[NotLanded()] * 7 + [Landed(7)])
    async with started(ordering(world, has_probe=True)) as app:
        await advance(app, 4500, 900)
        assert SagaState.COMPENSATED is await state(app)
        assert ["refund None", "release", "probe", "probe", "refund 7"] == world.calls[-5:]
        assert world.keys[-1].endswith("/compensate/2")


async def test_a_once_step_is_never_called_again_without_a_verdict() -> None:
    world = World(errors={"charge": [TimeoutError()]})
    async with started(ordering(world, effect="once")) as app:
        assert SagaState.IN_REVIEW is await state(app)
        assert 1 == world.calls.count("charge")
        saga_id = app.service.saga.handle("order", "1").id
        await app.service.saga.answer(saga_id, "landed", actor="a", reason="seen", values={"output": 100})
        await advance(app, 2, 4)
        assert SagaState.COMPLETED is await state(app)
        assert 1 == world.calls.count("charge")


async def test_a_probe_decides_about_a_once_step() -> None:
    world = World(errors={"charge": [TimeoutError()]}, probes=[StillUnknown(), NotLanded(), NotLanded()])
    async with started(ordering(world, effect="once", has_probe=True)) as app:
        await advance(app, 120, 60)
        assert SagaState.COMPLETED is await state(app)
        assert ["reserve", "charge", "probe", "probe", "charge", "ship"] == world.calls


async def test_a_bug_never_undoes_an_order() -> None:
    world = World(errors={"charge": [KeyError("x") for _ in range(9)]})
    async with started(ordering(world)) as app:
        await advance(app, 900, 300)
        assert SagaState.IN_REVIEW is await state(app)
        assert "exhausted" in await question(app)


async def test_after_the_pivot_nothing_is_undone() -> None:
    world = World(errors={"ship": [TimeoutError(), Refused("no")]})
    async with started(ordering(world)) as app:
        await advance(app, 60, 20)
        assert SagaState.IN_REVIEW is await state(app)
        assert "past_pivot" in await question(app)
        with pytest.raises(Conflict):
            await app.service.saga.cancel(app.service.saga.handle("order", "1").id, actor="a", reason="r")
        assert "release" not in world.calls


async def test_a_refused_undo_is_a_question_and_halts_there() -> None:
    world = World(errors={"ship": [Refused("no")], "refund 100": [Refused("closed")]})
    async with started(ordering(world)) as app:
        assert SagaState.IN_REVIEW is await state(app)
        assert "release" not in world.calls
        saga_id = app.service.saga.handle("order", "1").id
        await app.service.saga.answer(saga_id, "mark_compensated", actor="a", reason="by hand")


async def test_signals_sleeps_and_reviews() -> None:
    service = Service("shop")
    order = service.saga("order", version=1)
    seen: list[object] = []

    @order.flow
    async def place(saga: Flow, o: Order) -> list[object]:
        seen.append("run")
        first = await saga.wait("shipped", timeout=100)
        second = await saga.wait("shipped", timeout=50)
        await saga.sleep(3600)
        verdict = await saga.review("ok", text="ok?", evidence={"n": 1})
        return [first, second, verdict.action, saga.uuid("x")]

    async with service.test() as app:
        await advance(app, 2, 4)
        assert await service.saga.signal("order", "1", "shipped", {"n": 1}, message_id="m")
        assert not await service.saga.signal("order", "1", "shipped", {"n": 1}, message_id="m")
        assert SagaState.EXPECTED is await state(app)
        await service.saga.start("order", Order("1"), id="1")
        await advance(app, 70, 20)
        await advance(app, 3700, 20)
        assert "review:ok" == (await service.saga.handle("order", "1").look()).saga.waiting_for
        await service.saga.answer(service.saga.handle("order", "1").id, "approve", actor="ann", reason="fine")
        await advance(app, 3, 6)
        first, second, action, _ = await service.saga.handle("order", "1").result()
        assert ({"n": 1}, None, "approve") == (first, second, action)
        assert len(seen) >= 4


async def test_a_changed_flow_is_refused_loudly() -> None:
    """No answer of one step is handed out as that of another."""
    world, swapped = World(errors={"charge": [ConnectionRefusedError()] * 3}), []
    service = Service("shop")
    order = service.saga("order", version=1)

    @order.step(why="test", retry_seconds=(10, 10))
    async def one(step: Step, o: Order) -> None:
        world.call("one", step)

    @order.step(why="test", retry_seconds=(10, 10))
    async def charge(step: Step, o: Order) -> None:
        world.call("charge", step)

    @order.flow
    async def place(saga: Flow, o: Order) -> None:
        for step in (charge, one) if swapped else (one, charge):
            await saga.do(step)

    async with started(service) as app:
        swapped.append(True)
        await advance(app, 15, 10)
        assert SagaState.IN_REVIEW is await state(app)
        assert "replay_mismatch" in await question(app)
        assert ["one", "charge"] == world.calls


async def test_many_at_once_and_one_that_is_away() -> None:
    service, world = Service("shop"), World(errors={"b": [ConnectionRefusedError()]})
    order = service.saga("order", version=1)

    @order.step(why="test")
    async def book(step: Step, o: Order, name: str) -> str:
        world.call(name, step)
        return name.upper()

    @order.flow
    async def place(saga: Flow, o: Order) -> list[str]:
        return await saga.gather(*(saga.do(book, name, key=name) for name in "abc"))

    async with started(service) as app:
        await advance(app, 20, 20)
        assert ["A", "B", "C"] == await service.saga.handle("order", "1").result()
        assert ["a", "b", "b", "c"] == sorted(world.calls)


async def test_a_deadline_and_a_cancel_undo() -> None:
    for act in ("deadline", "cancel"):
        world = World(errors={"charge": [ConnectionRefusedError() for _ in range(99)]})
        service = ordering(world, deadline=100)
        async with started(service) as app:
            if act == "cancel":
                await service.saga.cancel(service.saga.handle("order", "1").id, actor="a", reason="r")
            await advance(app, 30 if act == "cancel" else 130, 60)
            assert SagaState.COMPENSATED is await state(app), act
            assert "release" == world.calls[-1]
