"""Bad input is answered at the edge, with what is wrong and what to do; nothing of it is half accepted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from spoolproof import CodecError, RegistrationError, Service, Transaction
from spoolproof.ids import Ids
from spoolproof.ports.sagas import SagaFilter, SagaState, StepState
from spoolproof.saga import Flow, Step
from spoolproof.saga.definition import SagaDefinition
from spoolproof.saga.errors import InvalidSaga, KeyConflict
from spoolproof.saga.part import SagaPart
from spoolproof.stores.memory import MemoryStore

from .test_flow import Order, World, advance, ordering, started, state


async def keyed(step: Step, o: Order) -> int:
    return 1


async def in_tx(step: Step, o: Order, tx: Transaction) -> int:
    return 1


async def undo(step: Step, o: Order, output: int | None) -> None: ...


def plain(step: Step, o: Order) -> None: ...


def undone(order: SagaDefinition, name: str = "step", **options: Any) -> None:
    order.step(name=name, **options)(keyed).compensate(undo)


REGISTRATIONS: list[tuple[Callable[[SagaDefinition], object], str]] = [
    (lambda order: order.step()(keyed), "it has no compensation; add one, or say why there is none"),
    (lambda order: order.step(why="w")(plain), "write `async def`"),  # type: ignore[arg-type]
    (lambda order: order.step(effect="maybe", why="w")(keyed), "effect='maybe' is none of keyed, tx, once, read"),  # type: ignore[arg-type]
    (lambda order: order.step(effect="tx", why="w")(keyed), "needs a parameter tx"),
    (lambda order: order.step(why="w")(in_tx), "it takes tx; write effect='tx'"),
    (lambda order: order.step(effect="tx", why="w", tombstone=True)(in_tx), "tombstone= is for calls to another"),
    (lambda order: order.step(effect="tx", why="w")(in_tx).probe(keyed), "nothing to probe"),
    (lambda order: order.step(effect="read")(keyed).compensate(undo), "a read has nothing to undo"),
    (lambda order: order.step(why="w", fallback=1)(keyed), "fallback= is for effect='read'"),
    (lambda order: order.step(pivot=True)(keyed).compensate(undo), "a pivot is never undone"),
    (lambda order: [undone(order), order.step(name="step", why="w")(keyed)], "two steps are called 'step'"),
    (lambda order: [order.step(name=one, pivot=True)(keyed) for one in "ab"], "two pivots, a ("),
    (lambda order: undone(order, retry_seconds=(5, 1)), "first not above cap"),
    (lambda order: undone(order, retry_seconds=5), "retry_seconds=5"),
    (lambda order: undone(order, timeout=0), "timeout=0: seconds above 0"),
    (lambda order: undone(order, attempts=0), "attempts=0: at least 1"),
    (lambda order: undone(order, give_up_seconds=-1), "give_up_seconds=-1"),
    (lambda order: undone(order, on_exhausted="ignore"), "on_exhausted='ignore': compensate or review"),
    (lambda order: undone(order, policy="psp"), "policy='psp': pass a Policy"),
    (lambda order: undone(order, name="a/b"), "'a/b': a name has"),
    (lambda order: undone(order, aliases=[""]), "'': a name has"),
    (lambda order: order.step(why="w")(keyed).compensate(keyed), "it takes 2 parameters, at least 3 are given"),
    (lambda order: order.flow(plain), "two flows"),  # type: ignore[type-var]
]


def made(declare: Callable[[SagaDefinition], object]) -> SagaDefinition:
    order = Service("shop").saga("order", version=1)

    @order.flow
    async def place(saga: Flow, o: Order) -> None: ...

    declare(order)
    return order


@pytest.mark.parametrize(("declare", "text"), REGISTRATIONS, ids=[text for _, text in REGISTRATIONS])
def test_a_fault_of_a_definition_is_told_with_its_place(declare: Callable[[SagaDefinition], object], text: str) -> None:
    faults = made(declare).check()

    assert any(text in fault and f"{__file__}:" in fault for fault in faults), faults


async def test_all_faults_are_one_error_at_the_start() -> None:
    """Whoever mends one sees them all; two sagas of one name are among them."""
    service = Service("shop")
    for _ in range(2):
        order = service.saga("order", version=1)
        order.step()(keyed)
        order.step(effect="tx", why="w", name="other")(keyed)
    with pytest.raises(RegistrationError) as raised:
        async with service.test():
            pass

    for text in ("two sagas are called 'order' version 1", "no compensation", "needs a parameter tx", "it has no flow"):
        assert text in str(raised.value)
    for bad in ({"name": "a/b"}, {"name": ""}, {"version": 0}, {"version": "1"}, {"deadline": 0}, {"deadline": "1h"}):
        with pytest.raises(RegistrationError, match=next(iter(bad)) if "name" not in bad else "1 to 100 characters"):
            service.saga(**{"name": "order", **bad})  # type: ignore[arg-type]


async def test_a_start_that_no_saga_can_take_writes_nothing() -> None:
    service = ordering(World())
    other = MemoryStore(clock=service._clock, ids=Ids(service._clock), outbox_rows_max=1)
    await other.start()
    async with service.test() as app, other.transaction() as foreign:
        starts: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
            ("an order", {}, InvalidSaga, "takes a Order, not str"),
            (Order("x" * 300_000), {}, CodecError, "at most 262144"),
            (Order("1", cents="much"), {}, CodecError, "cents"),  # type: ignore[arg-type]
            (Order("1"), {"id": ""}, InvalidSaga, "1 to 150 characters"),
            (Order("1"), {"id": "x" * 151}, InvalidSaga, "1 to 150 characters"),
            (Order("1"), {"id": "\0"}, InvalidSaga, "1 to 150 characters"),
            (Order("1"), {"id": "\ud800"}, InvalidSaga, "lone surrogate"),
            (Order("1"), {"id": "1", "transaction": foreign}, Exception, "belongs to"),
            (Order("1"), {"id": "1", "transaction": object()}, Exception, "object"),
        ]
        for payload, options, error, text in starts:
            with pytest.raises(error, match=text):
                await service.saga.start("order", payload, **options)
        with pytest.raises(InvalidSaga, match="no saga 'trip' is defined in this process; there are: order"):
            await service.saga.start("trip", Order("1"))

        assert [] == list(await app.service.runtime.part(SagaPart).sagas.search(SagaFilter()))
    await other.stop()


async def test_a_known_id_is_that_saga_live_or_over_and_another_payload_a_conflict() -> None:
    world = World()
    async with started(ordering(world)) as app:
        assert SagaState.COMPLETED is await state(app)
        again = await app.service.saga.start("order", Order("1"), id="1")
        with pytest.raises(KeyConflict, match="was started with another payload"):
            await app.service.saga.start("order", Order("1", 5), id="1")

        assert (False, 3) == (again.is_new, len(world.calls))


async def test_an_output_that_cannot_be_kept_is_unknown_and_asked_about_never_undone() -> None:
    """The call may have landed; a bug of ours must not refund customers."""
    service, calls = Service("shop"), list[str]()
    order = service.saga("order", version=1)

    @order.step(attempts=2)
    async def book(step: Step, o: Order) -> int:
        calls.append("book")
        return "no number"  # type: ignore[return-value]

    @book.compensate
    async def cancel(step: Step, o: Order, output: int | None) -> None:
        calls.append("cancel")

    @order.flow
    async def place(saga: Flow, o: Order) -> None:
        await saga.do(book)

    async with started(service) as app:
        await advance(app, 30, 10)
        found = await service.saga.handle("order", "1").look()

        assert (SagaState.IN_REVIEW, ["book", "book"]) == (found.saga.state, calls)
        (row,) = [one for one in found.steps if one.name == "book"]
        assert (StepState.UNKNOWN, True) == (row.state, row.is_maybe_landed)
        assert "exhausted" in (found.saga.question or "")


@pytest.mark.parametrize("broken", ["input", "reserve"])
async def test_a_journal_that_does_not_decode_stops_that_saga_with_its_bytes_as_evidence(broken: str) -> None:
    """The others go on; on the way back as well."""
    world = World(errors={"charge": [ConnectionRefusedError()]})
    service = ordering(world, retry_seconds=(20, 20))
    async with started(service) as app:
        part, handle = service.runtime.part(SagaPart), service.saga.handle("order", "1")
        if broken == "reserve":
            await service.saga.cancel(handle.id, actor="ann", reason="r")
        steps = part.sagas._store._tables.table("saga_step")  # type: ignore[attr-defined]
        kept = steps[handle.id]
        steps[handle.id] = {
            place: replace(row, output=b"{") if row.name == broken else row for place, row in kept.items()
        }
        await service.saga.start("order", Order("2"), id="2")
        await advance(app, 40, 20)
        (item,) = (await service.reviews.ls())["items"]
        evidence = (await service.reviews.show(item["id"]))["evidence"]

        assert SagaState.COMPLETED is await state(app, "2")
        assert (SagaState.IN_REVIEW, "saga.unreadable", "{") == (await state(app), item["kind"], evidence["evidence"])
        part.sagas._store._tables.table("saga_step")[handle.id] = kept  # type: ignore[attr-defined]
        await service.saga.answer(handle.id, "retry", actor="ann", reason="mended")
        await advance(app, 30, 10)
        assert (SagaState.COMPENSATED if broken == "reserve" else SagaState.COMPLETED) is await state(app)
