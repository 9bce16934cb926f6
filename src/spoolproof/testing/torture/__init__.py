"""Runs a saga through everything that can go wrong with each of its steps, and says what came of it.

    async with service.test(store="sqlite") as app:
        report = await torture(order, PlaceOrder("o-1", 100), effects=bank.in_force)
    assert report.ok, report

The saga's own steps, flow and compensations run, on the real journal, with time that jumps. See docs/testing-sagas.md.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from spoolproof.lifecycle.registrations import OwnHost
from spoolproof.outbox.transaction import UnitsOfWork
from spoolproof.policies import Registry
from spoolproof.ports.sagas import Phase, SagaState
from spoolproof.ports.units import Units
from spoolproof.saga.definition import SagaDefinition
from spoolproof.saga.part import SagaPart
from spoolproof.testing.clock import ManualClock
from spoolproof.testing.isolation import isolated
from spoolproof.testing.torture.faults import FAULTS, UNDO, Fault, Place
from spoolproof.testing.torture.judge import is_other_whole, judged
from spoolproof.testing.torture.report import Case, Finding, Report
from spoolproof.testing.torture.stage import Stage
from spoolproof.testing.torture.trial import Rig, Trace, Trial

__all__ = ["Case", "Fault", "Finding", "Report", "torture"]

Effects = Callable[..., Mapping[Any, int] | Awaitable[Mapping[Any, int]]]


async def torture(
    saga: SagaDefinition,
    payload: Any,
    *,
    effects: Effects,
    reset: Callable[..., object] | None = None,
    fakes: Sequence[object] = (),
    signals: Sequence[tuple[object, Any]] = (),
    answers: Mapping[str, str] | None = None,
) -> Report:
    """Run a saga under every fault of each of its steps; call it inside `async with service.test()`.

    payload: its input; or a function of the saga's id that returns it, for fakes that know orders by their number.
    effects: returns what is in force in the other systems, a number by name: `{"charged": 1, "reserved": 1}`; what
    counts is what one saga adds to it. reset: puts them back, before each saga. Both may be async, and may take `tx`,
    an open transaction of the store. fakes: objects or modules whose coroutine methods are the calls to other systems;
    faults strike there, else around a step. signals: (name or class, payload), sent right after the start. answers: to
    `saga.review`, by its name; default approve. The service's own loops (relay, handlers) end for it. Raises ValueError
    where a saga without faults does not complete, or leaves something else the second time.
    """
    session = _Session(saga, payload, effects, reset, fakes, signals, answers or {})
    with session.stage.set_up():
        return await session.run()


class _Session:
    def __init__(
        self,
        saga: SagaDefinition,
        payload: Any,
        effects: Effects,
        reset: Callable[..., object] | None,
        fakes: Sequence[object],
        signals: Sequence[tuple[object, Any]],
        answers: Mapping[str, str],
    ) -> None:
        host = saga._facet.host
        assert isinstance(host, OwnHost)
        part = host.part(SagaPart)
        clock = part.of.clock
        if not isinstance(clock, ManualClock):
            raise ValueError(f"torture({saga.name!r}): the service runs by the real clock; call it in service.test()")
        units = part.of.the(Units)
        assert isinstance(units, UnitsOfWork)
        self._units = units
        self._supervisor = host.runtime().supervisor
        self._saga = saga
        self._payload = payload
        self._reset = reset
        self._part = part
        self._number = 0
        self._wholes: list[Mapping[Any, int]] = []
        self.stage = Stage(saga, fakes)
        self._rig = Rig(
            definition=saga,
            part=part,
            clock=clock,
            effects=lambda: self._asked(effects),
            signals=signals,
            answers=answers,
        )

    async def run(self) -> Report:
        await self._supervisor.stop_loops()
        good, again = await self._trial(Fault.NONE), await self._trial(Fault.NONE)
        self._check(good, again)
        self._wholes = [good.net]
        plan, cases = self._plan(good), {-1: self._case(good)}
        # refusals first: they show what else a complete saga may be
        for number in sorted(range(len(plan)), key=lambda number: plan[number][0] not in (Fault.REFUSED, Fault.AWAY)):
            cases[number] = self._case(await self._trial(*plan[number]))
        return Report(f"{self._saga.name} version {self._saga.version}", tuple(cases[n] for n in sorted(cases)))

    async def _trial(self, fault: Fault, place: Place | None = None, trigger: Place | None = None) -> Trace:
        self._number += 1
        id = f"torture-{self._number}"
        if self._reset is not None:
            await self._asked(self._reset)
        is_made = callable(self._payload) and not isinstance(self._payload, type)
        trial = Trial(self._rig, fault, place, trigger)
        with isolated(self._part.of.the(Registry)):
            self.stage.trial = trial
            try:
                return await trial.run(self._payload(id) if is_made else self._payload, id)
            finally:
                self.stage.trial = None

    def _case(self, trace: Trace) -> Case:
        if is_other_whole(trace, self._saga) and trace.net not in self._wholes:
            self._wholes.append(trace.net)
        return judged(trace, self._saga, self._wholes)

    def _plan(self, good: Trace) -> list[tuple[Fault, Place, Place | None]]:
        """Return every fault with its place, and with the step that is refused where something is to be undone."""
        rows = sorted((row for row in good.journal.steps if row.phase is Phase.DO), key=lambda row: row.seq)
        steps = self._saga.steps
        plan: list[tuple[Fault, Place, Place | None]] = []
        has_passed = False
        for number, row in enumerate(rows):
            plan += [(fault, row.place, None) for fault in FAULTS[steps[row.name].effect]]
            has_passed = has_passed or steps[row.name].pivot
            if steps[row.name].undo is not None and not has_passed:
                trigger = rows[min(number + 1, len(rows) - 1)].place
                undo = (Phase.COMPENSATE, row.name, row.item)
                plan += [(fault, undo, trigger) for fault in Fault if fault in UNDO]
        return plan

    def _check(self, good: Trace, again: Trace) -> None:
        name = f"torture({self._saga.name!r})"
        if good.journal.saga.state is not SagaState.COMPLETED:
            why = good.journal.saga.cause or (good.question.text if good.question is not None else "")
            raise ValueError(f"{name}: without any fault it ends {good.journal.saga.state.value}: {why}")
        if good.net != again.net:
            raise ValueError(
                f"{name}: its first run left {good.net}, the same again {again.net}; pass reset=, which puts the fakes "
                "back, or a payload made from the id"
            )

    async def _asked(self, function: Callable[..., Any]) -> Any:
        if inspect.signature(function).parameters:
            async with self._units.open() as tx:
                value = function(tx)
                return await value if inspect.isawaitable(value) else value
        value = function()
        return await value if inspect.isawaitable(value) else value
