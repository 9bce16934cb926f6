"""Sagas outlast deploys: what journals know under an older name, what the code no longer has, and what not yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from spoolproof import Service, limits
from spoolproof.ports.sagas import Sagas, SagaState
from spoolproof.saga import Flow, Refused, Step
from spoolproof.saga.census import stranded
from spoolproof.saga.definition import Definitions, SagaDefinition
from spoolproof.saga.part import SagaPart
from spoolproof.testing.app import App

from .test_flow import Order, World, advance, started, state

Declare = Callable[[SagaDefinition], None]


def old(world: World) -> Service:
    """Return a service whose order charges, wraps, and cannot ship."""
    service = Service("shop")
    order = service.saga("order", version=1)

    @order.step()
    async def charge(step: Step, o: Order) -> int:
        world.call("charge", step)
        return 7

    @charge.compensate
    async def refund(step: Step, o: Order, cents: int | None) -> None:
        world.call(f"refund {cents}", step)

    @order.step()
    async def wrap(step: Step, o: Order) -> str:
        world.call("wrap", step)
        return "box"

    @wrap.compensate
    async def unwrap(step: Step, o: Order, box: str | None) -> None:
        world.call(f"unwrap {box}", step)

    @order.step(why="test", retry_seconds=(60, 60))
    async def ship(step: Step, o: Order) -> None:
        world.call("ship", step)

    @order.flow
    async def place(saga: Flow, o: Order) -> None:
        for step in (charge, wrap, ship):
            await saga.do(step)

    return service


def renew(service: Service, world: World, *, keeps: bool) -> None:
    """Make the running code that of a later release: charge is called take_payment, and nothing is wrapped."""
    definitions = service.saga.host.registrations.of(Definitions)
    new = Service("shop").saga("order", version=1)

    @new.step(name="take_payment", aliases=["charge"])
    async def take_payment(step: Step, o: Order) -> int:
        world.call("take_payment", step)
        return 8

    @take_payment.compensate
    async def refund(step: Step, o: Order, cents: int | None) -> None:
        world.call(f"refund {cents}", step)

    if keeps:

        async def unwrap(step: Step, o: Order, box: str | None) -> None:
            world.call(f"unwrap {box}", step)

        new.retired("wrap", compensate=unwrap)

    @new.step(why="test", retry_seconds=(60, 60))
    async def ship(step: Step, o: Order) -> None:
        world.call("ship", step)

    @new.flow
    async def place(saga: Flow, o: Order) -> None:
        await saga.do(take_payment)
        await saga.do(ship)

    assert [] == new.check()
    definitions.sagas["order", 1] = new


async def findings(app: App) -> list[str]:
    sagas = app.service.runtime.store.port(Sagas)
    definitions = app.service.saga.host.registrations.of(Definitions)
    return [str(one) for one in stranded(await sagas.counts("shop"), await sagas.begun("shop"), definitions)]


@pytest.mark.parametrize("error", [None, Refused("no")])
async def test_a_renamed_and_a_retired_step_go_on_and_are_undone(error: Any) -> None:
    """The step under its new name is not called again, its undo works by the old key; what is gone keeps its undo."""
    world = World(errors={"ship": [ConnectionRefusedError(), *([] if error is None else [error])]})
    service = old(world)
    async with started(service) as app:
        renew(service, world, keeps=True)
        assert [] == await findings(app)
        await advance(app, 80, 10)

        calls = ["charge", "wrap", "ship", "ship", *([] if error is None else ["unwrap box", "refund 7"])]
        assert calls == world.calls
        assert (SagaState.COMPLETED if error is None else SagaState.COMPENSATED) is await state(app)
        if error is not None:
            assert world.keys[0] + "/compensate/1" == world.keys[-1]


async def test_a_saga_with_a_step_that_the_code_does_not_know_is_left_to_other_code() -> None:
    """It is neither skipped nor stopped: it is let go for 5 s, counted, and goes on as soon as the code is there."""
    world = World(errors={"ship": [ConnectionRefusedError()]})
    service = old(world)
    async with started(service) as app:
        part = service.runtime.part(SagaPart)
        renew(service, world, keeps=False)
        (finding,) = await findings(app)
        await advance(app, limits.SAGA_STRANDED_SECONDS + 200, 60)
        waiting = (await service.saga.handle("order", "1").look()).saga
        told = {(metric.name, labels): value for metric, labels, value in part.measures()}
        issues = part.report().issues
        renew(service, world, keeps=True)
        await advance(app, 10, 10)

        assert "1 of order version 1 have begun step 'wrap'" in finding
        assert ("code", SagaState.RUNNING) == (waiting.waiting_for, waiting.state)
        assert 1 == told["saga_stranded", ("order", "1")]
        assert any("they have steps that no process knows" in issue for issue in issues)
        assert SagaState.COMPLETED is await state(app)
        assert ["charge", "wrap", "ship", "ship"] == world.calls


async def test_a_deploy_without_a_version_that_lives_is_found() -> None:
    """What check-deploy tells: live sagas against the code, without starting it."""
    world = World(errors={"ship": [ConnectionRefusedError()]})
    service = old(world)
    async with started(service) as app:
        steps = await app.service.runtime.store.port(Sagas).begun("shop")
        service.saga.host.registrations.of(Definitions).sagas.clear()

        assert ["1 of order version 1: the code has no such version; keep it"] == await findings(app)
        assert [("charge", 1), ("ship", 1), ("wrap", 1)] == [(one.step, one.sagas) for one in steps]


def test_two_steps_of_one_name_are_refused_whichever_way_they_got_it() -> None:
    order = Service("shop").saga("order", version=1)

    @order.step(why="test", aliases=["old"])
    async def new(step: Step, o: Order) -> None: ...

    async def undo(step: Step, o: Order, output: None) -> None: ...

    order.retired("old", compensate=undo)

    assert any("two steps are called 'old'" in fault and __file__ in fault for fault in order.check())
