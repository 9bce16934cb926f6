"""What the process does around sagas: it wakes those whose dependency is back, and tells of those that need help."""

from __future__ import annotations

from dataclasses import replace

import pytest

from spoolproof import Service, limits
from spoolproof.policies import Breaker, Policy, Registry, Retry
from spoolproof.ports.sagas import SagaState
from spoolproof.saga import Flow, Refused, SagaRefused, Step
from spoolproof.saga.part import SagaPart
from spoolproof.saga.run import INPUT
from spoolproof.telemetry.metrics import METER

from .test_flow import Order, World, advance, ordering, question, started, state


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


class RateLimited(Exception):
    failure_kind = "rate_limited"
    is_unknown = False

    def __init__(self, seconds: float) -> None:
        self.retry_after_seconds = seconds


def calling(policy: Policy, registry: Registry, answers: list[BaseException | None]) -> tuple[Service, list[int]]:
    """Return a service whose saga makes one call, and the attempts that got through to the carrier."""
    service, calls = Service("shop", policies=registry), list[int]()
    order = service.saga("order", version=1)

    @order.step(why="test", policy=policy, retry_seconds=(3600, 3600))
    async def book(step: Step, o: Order) -> None:
        calls.append(step.attempt)
        answer = answers.pop(0) if answers else None
        if answer is not None:
            raise answer

    @order.flow
    async def place(saga: Flow, o: Order) -> None:
        await saga.do(book)

    return service, calls


async def test_a_breaker_that_wants_a_probe_gets_one_saga_and_closing_all_the_others() -> None:
    """All of them sleep; without the one nobody would ever call, and the breaker stay as it is."""
    registry = Registry({})
    policy = Policy("carrier", Breaker(consecutive=1, probe_successes=1, open_seconds=600), registry=registry)
    service, calls = calling(policy, registry, [ConnectionRefusedError()])
    async with started(service) as app:
        others = [await service.saga.start("order", Order(id), id=id) for id in "234"]
        await advance(app, 3, 6)
        before = list(calls)
        policy.probe_now("its health check passed")
        await advance(app, 5, 10)

        states = [await state(app), *[(await one.look()).saga.state for one in others]]
        assert [1] == before, "the breaker refused all but the first"
        assert [SagaState.COMPLETED] * 4 == states


@pytest.mark.parametrize("error", [ConnectionRefusedError(), TimeoutError()])
async def test_sagas_go_on_at_once_when_somebody_saw_their_dependency_answer(error: Exception) -> None:
    """One failed call opens no breaker, so none closes either."""
    registry = Registry({})
    service, calls = calling(Policy("carrier", Breaker(), registry=registry), registry, [error])
    async with started(service) as app:
        await advance(app, 3, 6)
        nobody = await service.saga.wake("other")
        woken = await service.saga.wake("carrier")
        await advance(app, 3, 6)

        assert [0, 1, [1, 2]] == [nobody, woken, calls]
        assert SagaState.COMPLETED is await state(app)


async def test_a_system_that_says_when_to_come_again_is_asked_then() -> None:
    """Not an hour later; and not every two seconds, if it says that for ever."""
    registry = Registry({})
    answers: list[BaseException | None] = [RateLimited(2)] * 50
    service, calls = calling(Policy("carrier", Breaker(), registry=registry), registry, answers)
    async with started(service) as app:
        await advance(app, 60, 60)

        assert 4 <= len(calls) <= 7, "after 2, 4, 8, 16 and 32 s, more or less"


async def test_what_a_policy_tried_before_a_refusal_may_land_and_is_undone() -> None:
    """The refusal is the last word of two calls, and says nothing of the first, which timed out."""
    registry, undone = Registry({}), list[str]()
    policy = Policy("carrier", Retry(attempts=2, delay_seconds=0.01), registry=registry)
    answers: list[Exception] = [TimeoutError(), Refused("no")]
    service = Service("shop", policies=registry)
    order = service.saga("order", version=1)

    @order.step(policy=policy, tombstone=True)
    async def book(step: Step, o: Order) -> None:
        raise answers.pop(0)

    @book.compensate
    async def withdraw(step: Step, o: Order, output: None) -> None:
        undone.append(step.forward_key)

    @order.flow
    async def place(saga: Flow, o: Order) -> None:
        await saga.do(book)

    async with started(service) as app:
        await advance(app, 5, 10)
        id = service.saga.handle("order", "1").id

        assert [SagaState.COMPENSATED, [f"{id}/book/1"]] == [await state(app), undone]
        assert [] == answers


async def test_a_caller_is_answered_in_the_middle_of_a_saga() -> None:
    """With what the step returned; or with why it was never reached."""
    service = Service("shop")
    order = service.saga("order", version=1)

    @order.step(effect="read")
    async def check(step: Step, o: Order) -> int:
        if not o.cents:
            raise Refused("there is none")
        return o.cents

    @order.flow
    async def place(saga: Flow, o: Order) -> None:
        await saga.do(check)
        await saga.review("really?")

    async with service.test() as app:
        good, bad = [await order.start(Order(str(cents), cents), id=str(cents)) for cents in (100, 0)]
        with pytest.raises(TimeoutError):
            await good.reached(check, timeout=0)
        await advance(app, 3, 6)

        assert 100 == await good.reached(check, timeout=0)
        with pytest.raises(SagaRefused, match="there is none"):
            await bad.reached(check, timeout=0)


async def test_health_and_metrics_tell_what_needs_somebody() -> None:
    """One asks, one is of a version that nobody has, and one is due and not taken up; each is told in its time."""
    service = Service("shop")
    order = service.saga("order", version=1)

    @order.flow
    async def place(saga: Flow, o: Order) -> None:
        raise KeyError("really?")

    async with started(service) as app:
        part = service.runtime.part(SagaPart)
        found = await service.saga.handle("order", "1").look()
        (given,) = [row for row in found.steps if row.place == INPUT]
        await part.sagas.start(replace(found.saga, saga_id="old", version=9), given, None, None)
        part.runner._claimed_max = 0
        await part.sagas.start(replace(found.saga, saga_id="late"), given, None, None)
        await advance(app, limits.SAGA_COUNT_SECONDS + 2, 10)
        early = part.report().issues
        await advance(app, limits.SAGA_STRANDED_SECONDS + 32, 20)
        late = part.report().issues
        told = {(metric.name, labels): value for metric, labels, value in part.measures()}

    assert ("sagas: 1 of order stand in review; spoolproof saga ls --state in_review",) == early
    assert [True] * 3 == [
        any(text in one for one in late)
        for text in (
            "1 of order stand in",
            "order version 1 (running) are due for",
            "version 9 (running) are stra",
        )
    ]
    assert 1 == told["saga_stranded", ("order", "9")]
    assert 0 == told["saga_stranded", ("order", "1")]
    assert 2 == told["sagas", ("order", "running")]
    assert told["saga_late_seconds", ("order",)] > limits.SAGA_STRANDED_SECONDS
    assert told["saga_oldest_timestamp_seconds", ("order", "in_review")] > 0


async def test_how_long_attempts_and_sagas_take_is_measured() -> None:
    """By outcome: their counts are the rates of success and failure."""
    async with started(ordering(World(errors={"charge": [ConnectionRefusedError()]}))) as app:
        await advance(app, 3, 6)
        assert SagaState.COMPLETED is await state(app)
        seen = {(sample.metric.name, sample.labels): sum(sample.buckets) for sample in METER.samples()}

    assert seen["saga_duration_seconds", ("order", "completed")] >= 1
    for outcome in ("unavailable", "succeeded"):
        assert seen["saga_attempt_seconds", ("order", "take", "do", outcome)] >= 1


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
