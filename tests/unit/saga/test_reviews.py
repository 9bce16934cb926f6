"""What sagas ask: one item for each question, answered once, and closed when nobody needs the answer any more."""

from __future__ import annotations

from typing import Any

import pytest

from spoolproof import Service, Transaction
from spoolproof.errors import Conflict, InvalidMessage
from spoolproof.ports.sagas import SagaState
from spoolproof.saga import Flow, Refused, Step
from spoolproof.testing.app import App

from .test_flow import Order, World, advance, ordering, started, state


def asking(opened: bool = True) -> tuple[Service, list[str]]:
    """Return a service whose order asks in its first step, does the second, and then waits for the verdict."""
    service, done = Service("shop"), list[str]()
    order = service.saga("order", version=1, deadline=1000)

    @order.step(effect="tx")
    async def create(step: Step, o: Order, tx: Transaction) -> None:
        if opened:
            await step.open_review("stock", tx, text="Is it there?", evidence={"cents": o.cents}, priority="low")

    @create.compensate
    async def cancel(step: Step, o: Order, output: None, tx: Transaction) -> None:
        done.append("cancelled")

    @order.step(why="test")
    async def call(step: Step, o: Order) -> None:
        done.append("called")

    @order.flow
    async def place(saga: Flow, o: Order) -> object:
        await saga.do(create)
        await saga.do(call)
        verdict = await saga.review("stock", text="Is it there?")
        if verdict.action == "reject":
            raise Refused(verdict.reason)
        return [verdict.action, verdict.payload]

    return service, done


async def items(app: App, **wanted: Any) -> list[dict[str, Any]]:
    return list((await app.service.reviews.ls(**wanted))["items"])


@pytest.mark.parametrize("opened", [True, False])
async def test_a_review_is_waited_for_and_opened_once(opened: bool) -> None:
    """Opened by a step long before, or by the flow when it comes there; the step in between is not held up."""
    service, done = asking(opened)
    async with started(service) as app:
        (item,) = await items(app)
        found = await service.saga.handle("order", "1").look()
        assert ("saga.approval", "order/stock/1", "Is it there?", 1) == tuple(
            item[name] for name in ("kind", "subject", "question", "seen")
        )
        assert ("review:stock", ["called"]) == (found.saga.waiting_for, done)
        with pytest.raises(InvalidMessage, match="edit is an approval with another payload"):
            await service.reviews.resolve(item["id"], "edit", actor="ann", reason="fewer")
        await service.reviews.resolve(item["id"], "edit", actor="ann", reason="fewer", values={"payload": 2})
        await advance(app, 2, 4)

        assert ["edit", 2] == await service.saga.handle("order", "1").result()
        assert [] == await items(app)


async def test_an_answer_that_comes_before_the_question_is_not_lost() -> None:
    """The item is there since the first step; whoever is quick is heard when the flow comes to it."""
    service, _ = asking()
    async with service.test() as app:
        await advance(app, 2, 4)
        await service.saga.start("order", Order("1"), id="1")
        for _ in range(20):
            if found := await items(app):
                await service.saga.answer(service.saga.handle("order", "1").id, "reject", actor="a", reason="no stock")
                break
            await advance(app, 0.1)
        await advance(app, 3, 6)

        assert found
        assert SagaState.COMPENSATED is await state(app)


@pytest.mark.parametrize("end", ["cancel", "deadline"])
async def test_a_question_is_closed_when_nobody_needs_its_answer(end: str) -> None:
    """The order was cancelled, or is late: what waits for a verdict hears of it, and the item says so."""
    service, done = asking()
    async with started(service) as app:
        (item,) = await items(app)
        if end == "cancel":
            await service.saga.cancel(service.saga.handle("order", "1").id, actor="cem", reason="the customer called")
        await advance(app, 5 if end == "cancel" else 1010, 10)

        assert [SagaState.COMPENSATED, ["called", "cancelled"]] == [await state(app), done]
        shown = await service.reviews.show(item["id"])
        assert ("settled", "spoolproof") == (shown["action"], shown["resolved_by"])
        with pytest.raises(Conflict):
            await service.reviews.resolve(item["id"], "approve", actor="ann", reason="late")
        assert {"checked": 1, "faults": []} == await service.reviews.verify()


async def test_what_stops_a_saga_is_one_item_whose_answer_moves_it() -> None:
    world = World(errors={"charge": [TimeoutError()]})
    async with started(ordering(world, effect="once")) as app:
        (item,) = await items(app)
        shown = await app.service.reviews.show(item["id"])
        assert ("saga.unknown_outcome", "order/1", ("landed", "not_landed", "compensate"), "high") == tuple(
            item[name] for name in ("kind", "subject", "actions", "priority")
        )
        assert "take" == shown["evidence"]["step"]
        with pytest.raises(InvalidMessage, match="is not what step 'take' returns"):
            await app.service.reviews.resolve(
                item["id"], "landed", actor="ann", reason="seen", values={"output": "much"}
            )
        assert 1 == len(await items(app)), "a refused answer leaves the question open"
        await app.service.reviews.resolve(item["id"], "landed", actor="ann", reason="seen", values={"output": 100})
        await advance(app, 2, 4)

        assert SagaState.COMPLETED is await state(app)
        assert [] == await items(app)
        with pytest.raises(Conflict, match="asks nothing"):
            await app.service.saga.answer(app.service.saga.handle("order", "1").id, "landed", actor="a", reason="r")


async def test_whoever_abandons_a_saga_closes_what_else_it_asks() -> None:
    """An approval is open since the first step when the flow fails for good."""
    service = Service("shop")
    order = service.saga("order", version=1)

    @order.step(effect="tx", why="test")
    async def create(step: Step, o: Order, tx: Transaction) -> None:
        await step.open_review("stock", tx)

    @order.flow
    async def place(saga: Flow, o: Order) -> None:
        await saga.do(create)
        raise KeyError("a bug")

    async with started(service) as app:
        assert ["saga.approval", "saga.flow_failed"] == sorted(item["kind"] for item in await items(app))
        id = service.saga.handle("order", "1").id
        await service.saga.answer(id, "abandon", actor="ann", reason="it is little")
        assert [SagaState.ABANDONED, []] == [await state(app), await items(app)]


async def test_only_a_step_opens_a_review_and_only_through_its_own_tx() -> None:
    service, errors = Service("shop"), list[str]()
    order = service.saga("order", version=1)

    @order.step(why="test")
    async def keyed(step: Step, o: Order) -> None:
        for name, tx in (("stock", None), ("st/ock", None)):
            try:
                await step.open_review(name, tx)
            except RuntimeError as error:
                errors.append(str(error))

    @order.step(effect="tx", why="test")
    async def create(step: Step, o: Order, tx: Transaction) -> None:
        for name, given, error in (("stock", None, RuntimeError), ("st/ock", tx, InvalidMessage)):
            with pytest.raises(error) as raised:
                await step.open_review(name, given)
            errors.append(str(raised.value))

    @order.flow
    async def place(saga: Flow, o: Order) -> None:
        await saga.do(keyed)
        await saga.do(create)

    async with started(service) as app:
        assert SagaState.COMPLETED is await state(app)
    assert 4 == len(errors)
    assert ["effect='tx'", "effect='tx'", "no other transaction", "letters, digits"] == [
        next(part for part in ("effect='tx'", "no other transaction", "letters, digits") if part in one)
        for one in errors
    ]


async def test_a_service_that_is_started_anew_answers_where_it_runs_now() -> None:
    """The effects of decisions are those of the runtime of the moment, not of the first."""
    service, _ = asking()
    for _ in range(2):
        async with started(service) as app:
            (item,) = await items(app)
            await service.reviews.resolve(item["id"], "approve", actor="ann", reason="there it is")
            await advance(app, 3, 6)
            assert SagaState.COMPLETED is await state(app)
