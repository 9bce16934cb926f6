"""What the process does around sagas: it wakes those whose dependency is back, and tells of those that need help."""

from __future__ import annotations

from dataclasses import replace

from spoolproof import Service, limits
from spoolproof.policies import Breaker, Policy, Registry
from spoolproof.ports.sagas import SagaState
from spoolproof.saga import Flow, Step
from spoolproof.saga.part import SagaPart
from spoolproof.saga.run import INPUT

from .test_flow import Order, advance, question, started, state


async def test_a_saga_goes_on_when_the_breaker_of_its_dependency_closes() -> None:
    """Not when its retry is due, which may be an hour later."""
    registry = Registry({})
    policy, calls = Policy("carrier", Breaker(), registry=registry), []
    service = Service("shop", policies=registry)
    order = service.saga("order", version=1)

    @order.step(why="test", policy=policy, retry_seconds=(3600, 3600))
    async def book(step: Step, o: Order) -> None:
        calls.append(step.attempt)

    @order.flow
    async def place(saga: Flow, o: Order) -> None:
        await saga.do(book)

    policy.isolate("they migrate")
    async with started(service) as app:
        waiting = (await service.saga.handle("order", "1").look()).saga
        policy.reset("they are back")
        await advance(app, 3, 6)

        assert ("dependency:carrier", SagaState.RUNNING) == (waiting.waiting_for, waiting.state)
        assert SagaState.COMPLETED is await state(app)
        assert [2] == calls, "the first attempt was never made: the breaker refused it"


async def test_health_tells_of_questions_and_of_versions_that_nobody_can_run() -> None:
    service = Service("shop")
    order = service.saga("order", version=1)

    @order.flow
    async def place(saga: Flow, o: Order) -> None:
        await saga.review("really?")

    async with started(service) as app:
        part = service.runtime.part(SagaPart)
        found = await service.saga.handle("order", "1").look()
        (given,) = [row for row in found.steps if row.place == INPUT]
        await part.sagas.start(replace(found.saga, saga_id="old", version=9), given, None, None)
        await advance(app, limits.SAGA_COUNT_SECONDS + 2, 10)

        issues = part.report().issues

        assert ["really" in await question(app), 2] == [True, len(issues)]
        assert any("1 of order wait for a person" in issue for issue in issues)
        assert any("order version 9 (running) are retired" in issue for issue in issues)
        assert None is (await service.saga.get("old")).saga.owner


async def test_a_saga_whose_processes_die_of_it_becomes_a_question() -> None:
    service, runs = Service("shop"), []
    order = service.saga("order", version=1)

    @order.flow
    async def place(saga: Flow, o: Order) -> None:
        runs.append(1)

    async with service.test() as app:
        await advance(app, 2, 4)
        part = service.runtime.part(SagaPart)
        handle = await service.saga.start("order", Order("1"), id="1")
        table = part.sagas._store._tables.table("saga")  # type: ignore[attr-defined]
        table[handle.id] = replace(table[handle.id], crashes=limits.SAGA_CRASHES_MAX + 1)
        await advance(app, 2, 4)

        assert "crash_loop" in await question(app)
        await service.saga.answer(handle.id, "retry", actor="a", reason="mended")
        await advance(app, 2, 4)
        assert [SagaState.COMPLETED, [1]] == [await state(app), runs]
