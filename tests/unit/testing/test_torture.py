"""Torture finds what is planted, and nothing in a saga that is sound."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest

from spoolproof import Service
from spoolproof.ids import Ids
from spoolproof.saga import Flow, Landed, NotLanded, Refused, Step
from spoolproof.saga.definition import SagaDefinition
from spoolproof.testing.clock import ManualClock
from spoolproof.testing.torture import Report, torture

FRESH = Ids(ManualClock())


@dataclass
class Order:
    id: str
    cents: int = 100


class Bank:
    """Does everything once for a key, and nothing any more after its undo, unless told not to."""

    def __init__(self) -> None:
        self.has_keys = self.has_tombstones = True
        self.in_force: Counter[str] = Counter()
        self.done: dict[str, str] = {}
        self.refused: set[str] = set()

    async def take(self, name: str, key: str) -> str:
        if key in self.refused:
            raise Refused("it was undone")
        if key not in self.done or not self.has_keys:
            self.done[key] = name
            self.in_force[name] += 1
        return self.done[key]

    async def give_back(self, key: str, own: str) -> None:
        if self.has_tombstones:
            self.refused.add(key)
        if key in self.done and own not in self.done:
            self.done[own] = ""
            self.in_force[self.done[key]] -= 1

    async def find(self, key: str) -> str | None:
        return self.done.get(key)


def ordering(bank: Bank, bug: str) -> tuple[Service, SagaDefinition]:
    """Return an order of four steps with a fault planted: reserve, charge, label, ship."""
    service = Service("shop")
    order = service.saga("order", version=1, deadline=86_400)

    @order.step(tombstone=True)
    async def reserve(step: Step, o: Order) -> str:
        return await bank.take("reserved", step.key)

    @reserve.compensate
    async def release(step: Step, o: Order, reservation: str | None) -> None:
        try:
            await bank.give_back(step.forward_key, step.key)
        except Exception:
            if bug != "swallows its failure":
                raise

    @order.step(tombstone=True)
    async def charge(step: Step, o: Order, reservation: str) -> str:
        key = FRESH.message_id() if bug == "ignores its key" else step.key
        return await bank.take("charged", key)

    @charge.compensate
    async def refund(step: Step, o: Order, payment: str | None) -> None:
        if bug == "needs the output" and payment is None:
            return
        if bug == "trips over no output":
            assert payment == payment.upper().lower()  # type: ignore[union-attr]
        if bug == "undoes anew":
            bank.in_force["charged"] -= 1
        await bank.give_back(step.forward_key, step.key)

    @order.step(effect="once")
    async def print_label(step: Step, o: Order) -> str:
        return await bank.take("label", step.key)

    @print_label.probe
    async def was_printed(step: Step, o: Order) -> object:
        found = await bank.find(step.forward_key)
        return NotLanded() if found is None or bug == "probes the wrong place" else Landed(found)

    @print_label.compensate
    async def void(step: Step, o: Order, label: str | None) -> None:
        await bank.give_back(step.forward_key, step.key)

    @order.step(pivot=True)
    async def ship(step: Step, o: Order) -> str:
        return await bank.take("shipped", step.key)

    calls = Counter[str]()

    @order.flow
    async def place(saga: Flow, o: Order) -> str:
        reservation: str = await saga.do(reserve)
        calls[saga.id] += 1
        if bug == "another flow each time" and calls[saga.id] > 1:
            await saga.do(print_label)
        await saga.do(charge, reservation)
        if bug != "another flow each time":
            await saga.do(print_label)
        await saga.do(ship)
        return reservation

    return service, order


async def tortured(bug: str = "", **receiver: bool) -> Report:
    bank = Bank()
    for name, value in receiver.items():
        setattr(bank, name, value)
    service, order = ordering(bank, bug)
    async with service.test():
        return await torture(order, Order("o-1"), effects=lambda: bank.in_force, fakes=[bank])


async def test_a_sound_saga_passes_and_its_table_has_every_step_and_fault() -> None:
    """SA2 to SA5, for every step and every fault."""
    report = await tortured()

    assert report.ok, report
    assert {"", "reserve", "charge", "print_label", "ship"} == {case.step for case in report.cases}
    assert 3 * 16 + 12 + 1 == len([case for case in report.cases if case.is_struck])
    ends = {(case.step, case.fault): (case.end, dict(case.left)) for case in report.cases}
    assert ("compensated", {}) == ends["charge", "every answer lost"]
    assert ("compensated", {}) == ends["charge", "landed after its undo"]
    assert ("in_review: past_pivot", {"reserved": 1, "charged": 1, "label": 1, "shipped": 1}) == (
        ends["ship", "every answer lost"]
    )
    assert "charge       killed before the record  completed" in report.table()


@pytest.mark.parametrize(
    ("bug", "receiver", "finding", "place"),
    [
        ("ignores its key", {}, "landed_twice", ("charge", "killed before the record")),
        ("needs the output", {}, "left_behind", ("charge", "every answer lost")),
        ("", {"has_tombstones": False}, "left_behind", ("charge", "landed after its undo")),
        ("", {"has_keys": False}, "landed_twice", ("charge", "answer lost")),
        ("swallows its failure", {}, "left_behind", ("reserve", "undo unavailable once")),
        ("undoes anew", {}, "undone_twice", ("charge", "undo's answer lost")),
        ("trips over no output", {}, "bug", ("charge", "every answer lost")),
        ("probes the wrong place", {}, "landed_twice", ("print_label", "killed before the record")),
        ("another flow each time", {}, "replay_mismatch", ("charge", "killed before it landed")),
    ],
)
async def test_what_is_planted_is_found(
    bug: str, receiver: dict[str, bool], finding: str, place: tuple[str, str]
) -> None:
    """Each is the only fault of its saga, which passes without it."""
    if bug == "probes the wrong place":
        receiver = {"has_keys": False, "has_tombstones": True}
    report = await tortured(bug, **receiver)

    assert (finding, *place) in {(one.name, one.step, one.fault) for one in report.findings}, report
    assert not report.ok
