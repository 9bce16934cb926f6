"""One saga under one fault, from its start until nothing moves any more.

The real `Run` works on the real store; a second process takes over by a real claim after a real lease has run out. Time
jumps to whatever is due next. What the saga's own code does is written down for the judge.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from typing import Any, cast

from spoolproof import limits
from spoolproof.caught import error_line
from spoolproof.errors import Conflict, StoreUnavailable
from spoolproof.failpoints import InjectedFault
from spoolproof.ports.leases import Process
from spoolproof.ports.reviews import ReviewFilter, Reviews
from spoolproof.ports.sagas import Decision, Journal, Move, Phase, SagaRow, Sagas, SagaState, StepState
from spoolproof.ports.units import Units
from spoolproof.review.actions import Actions
from spoolproof.review.desk import Desk, Tools
from spoolproof.saga import desk
from spoolproof.saga.decisions import open_item_of
from spoolproof.saga.definition import SagaDefinition
from spoolproof.saga.errors import Refused
from spoolproof.saga.outcome import Effect, outcome_of
from spoolproof.saga.part import SagaPart
from spoolproof.saga.question import Question, read
from spoolproof.saga.run import Run
from spoolproof.saga.transitions import OVER
from spoolproof.testing.clock import ManualClock
from spoolproof.testing.torture.faults import UNDO, Fault, Place
from spoolproof.testing.torture.owner import Owner, SagasDoor, StoreDoor, owner_here
from spoolproof.testing.torture.stage import Make, Visit

Effects = Mapping[Any, int]
_TURNS_MAX = 300
_AWAY_HITS = 4  #: then time jumps to where patience ends
_OUTSIDE_SECONDS = 0.002  #: real time for what waits for something outside the event loop


@dataclass(frozen=True, slots=True, kw_only=True)
class Rig:
    """What all trials of a saga share. effects: reads what is in force. answers: to questions the flow itself asks."""

    definition: SagaDefinition
    part: SagaPart
    clock: ManualClock
    effects: Callable[[], Awaitable[Effects]]
    signals: Sequence[tuple[object, Any]]
    answers: Mapping[str, str]
    calls: dict[Place, int] = field(default_factory=dict)  #: of fakes, where no fault strikes
    openings: dict[Place, int] = field(default_factory=dict)  #: which transaction of a run is the step's


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something that happened: called, returned, clean (ended without effect for certain), verdict, bug."""

    what: str
    place: Place
    text: str = ""


@dataclass(slots=True, kw_only=True)
class Trace:
    """How a trial went. items: about it that are open. net: what it left in force. broken: what
    no journal shows."""

    fault: Fault
    place: Place | None
    hits: int
    journal: Journal
    question: Question | None
    items: int
    net: dict[Any, int]
    notes: list[Note]
    broken: list[str]


class Trial:
    """place: of the call that the fault strikes. trigger: of the step that is refused so that there is an undo."""

    def __init__(self, rig: Rig, fault: Fault, place: Place | None = None, trigger: Place | None = None) -> None:
        self._rig = rig
        self._fault = fault
        self._place = place
        self._trigger = trigger
        self._effect = rig.definition.steps[place[1]].effect if place is not None else Effect.READ
        self._hits = self._openings = 0
        self._late: Make | None = None
        self._notes: list[Note] = []
        self._broken: list[str] = []
        self._frozen: list[Owner] = []

    # --- calls -------------------------------------------------------------------------------------------------------

    def note(self, what: str, place: Place, text: str = "") -> None:
        self._notes.append(Note(what=what, place=place, text=text))

    async def call(self, place: Place, make: Make, visit: Visit) -> Any:
        owner = owner_here.get()
        assert owner is not None
        owner.check()
        self.note("called", place)
        is_struck = place == self._place and self._fault is not Fault.NONE
        visit.strike_at = self._rig.calls.get(place, 0) if is_struck else 0
        try:
            if place == self._trigger:
                value = await self._turn_back(place, make)
            else:
                value = await (self.strike(make) if is_struck and not visit.strike_at else make())
        except Exception as error:
            self._judge(place, error)
            raise
        if self._fault is Fault.NONE or (self._fault is Fault.REFUSED and place[0] is Phase.COMPENSATE):
            self._rig.calls[place], self._rig.openings[place] = visit.calls, self._openings
        self.note("returned", place)
        if is_struck and self._fault is Fault.KILLED_AFTER_RECORD and self._hits == 1:
            owner.dies_after_write = True
        return value

    async def _turn_back(self, place: Place, make: Make) -> Any:
        """Be refused; if it is what is to be undone, after a call that landed without an answer."""
        is_own = self._place is not None and self._place[1:] == place[1:]
        if is_own and not any(note.what == "clean" or note.what == "lost" for note in self._notes):
            await make()
            self.note("lost", place)
            raise TimeoutError("torture: no answer")
        raise Refused("torture: refused")

    def _judge(self, place: Place, error: Exception) -> None:
        outcome = outcome_of(error, self._rig.definition.steps[place[1]].effect)
        if outcome.is_bug:
            self.note("bug", place, error_line(error))
        elif outcome.state in (StepState.REFUSED, StepState.UNAVAILABLE):
            self.note("clean", place)

    async def strike(self, make: Make) -> Any:
        self._hits += 1
        is_first, owner = self._hits == 1, owner_here.get()
        assert owner is not None
        match self._fault:
            case Fault.REFUSED | Fault.UNDO_REFUSED:
                raise Refused("torture: refused")
            case Fault.AWAY:
                raise self._unavailable()
            case Fault.AWAY_ONCE | Fault.UNDO_AWAY if is_first:
                raise self._unavailable()
            case Fault.KILLED_IN_CALL if is_first:
                owner.die()
            case Fault.LATE | Fault.LATE_AFTER_UNDO if is_first:
                self._late = make
                raise TimeoutError("torture: no answer yet")
            case Fault.LATE_AFTER_UNDO:
                raise Refused("torture: refused")
            case Fault.FROZEN if is_first and self._effect is Effect.KEYED:
                await self._freeze(owner)
            case Fault.TWICE if not is_first:
                await self._thaw()
        value = await make()
        if self._fault is Fault.LATE:
            await self._land()
        elif self._fault is Fault.LOST or (self._fault in (Fault.LOST_ONCE, Fault.UNDO_LOST) and is_first):
            self._lose(owner)
        elif is_first and self._fault in (Fault.KILLED_BEFORE_RECORD, Fault.UNDO_KILLED):
            owner.die()
        elif is_first and (self._fault is Fault.TWICE or (self._fault, self._effect) == (Fault.FROZEN, Effect.ONCE)):
            await self._freeze(owner)
        return value

    def _lose(self, owner: Owner) -> None:
        """Lose the answer: of a call, or of the commit that a call in a transaction ends with."""
        if not self._is_tx:
            raise TimeoutError("torture: no answer")
        owner.loses_commit = True

    def _unavailable(self) -> Exception:
        return (StoreUnavailable if self._is_tx else ConnectionRefusedError)("torture: unavailable")

    @property
    def _is_tx(self) -> bool:
        assert self._place is not None
        step = self._rig.definition.steps[self._place[1]]
        return step.is_undone_in_tx if self._fault in UNDO else step.effect is Effect.TX

    # --- late calls, and processes that stand still ------------------------------------------------------------------

    async def _land(self) -> None:
        late, self._late = self._late, None
        if late is not None:
            with suppress(Exception):  # nobody is there any more to be told
                await late()

    def _is_ripe(self) -> bool:
        """Whether the late call arrives before more time passes."""
        assert self._place is not None
        undo = (Phase.COMPENSATE, *self._place[1:])
        return self._effect is Effect.ONCE or any((n.what, n.place) == ("returned", undo) for n in self._notes)

    async def _opening(self, owner: Owner) -> None:
        self._openings += 1
        is_it = self._place is not None and self._rig.openings.get(self._place) == self._openings
        if is_it and (self._fault, self._effect) == (Fault.FROZEN, Effect.TX) and not self._frozen:
            self._hits += 1
            await self._freeze(owner)
            owner.check()

    async def _freeze(self, owner: Owner) -> None:
        self._frozen.append(owner)
        await owner.freeze()

    async def _thaw(self) -> None:
        """Let those go on that stand still, until they have found out."""
        tasks = [owner.task for owner in self._frozen if owner.task is not None and not owner.task.done()]
        for owner in self._frozen:
            owner.thaw()
        if tasks:
            await asyncio.wait(tasks)

    # --- the life of the saga ----------------------------------------------------------------------------------------

    async def run(self, payload: object, id: str) -> Trace:
        """Start it and see it to its end."""
        rig, facet = self._rig, self._rig.definition._facet
        before = dict(await rig.effects())
        handle = await rig.definition.start(payload, id=id)
        for number, (signal, body) in enumerate(rig.signals):
            await facet.signal(rig.definition.name, id, signal, body, message_id=f"{id}/{number}")
        found = await self._live(handle.id)
        after = await rig.effects()
        net = {key: after.get(key, 0) - before.get(key, 0) for key in {**before, **after}}
        return Trace(
            fault=self._fault,
            place=self._place,
            hits=self._hits,
            journal=found,
            items=await self._items(handle.id),
            question=None if found.saga.question is None else read(found.saga.question),
            net={key: number for key, number in net.items() if number},
            notes=self._notes,
            broken=self._broken,
        )

    async def _items(self, saga_id: str) -> int:
        wanted = ReviewFilter(service=self._rig.part.of.service, limit=10_000)
        found = await self._rig.part.of.store.port(Reviews).search(wanted)
        return sum(isinstance(one.evidence, dict) and one.evidence.get("saga") == saga_id for one in found)

    async def _live(self, saga_id: str) -> Journal:
        sagas, part = self._rig.part.sagas, self._rig.part
        owner, runs = await self._process(), [(self._rig.definition.name, self._rig.definition.version)]
        for _ in range(_TURNS_MAX):
            found = await desk.find(sagas, saga_id)
            if found.saga.state in OVER or found.saga.state is SagaState.IN_REVIEW:
                if not await self._went_on(found):
                    return found
                continue
            if await self._answered(found):
                continue
            if owner.is_dead or owner.is_frozen or not await part.of.store.leases.beat(_row(owner, part), _LEASE):
                await self._rig.clock.jump(_LEASE + 1)
                owner = await self._process()
                await sagas.rescue(part.of.service, limits.SAGA_CRASH_DELAYS_SECONDS)
                continue
            claimed = await sagas.claim(part.of.service, runs, owner.id, 1)
            if claimed:
                await self._work(owner, claimed[0])
            elif not await self._pass_time(found):
                break
        self._broken.append(f"it does not end: {found.saga.state.value} after {_TURNS_MAX} turns, or for ever")
        async with part.of.store.transaction() as tx:  # no later trial shall meet it
            await sagas.decide(Decision(saga_id=saga_id, move=Move(state=SagaState.ABANDONED)), tx)
        return found

    async def _work(self, owner: Owner, row: SagaRow) -> None:
        of = self._rig.part.of
        tools = replace(
            self._rig.part.runner._tools,
            store=cast(Any, StoreDoor(of.store, owner, self._opening)),
            is_trusted=lambda: owner.is_trusted,
            is_draining=lambda: False,
        )
        run = Run(tools, cast(Sagas, SagasDoor(self._rig.part.sagas, owner)), row, self._rig.definition)
        context = copy_context()
        context.run(owner_here.set, owner)
        owner.task = asyncio.get_running_loop().create_task(run.live(), context=context)
        while not owner.task.done() and not owner.is_frozen:
            await self._let_run(owner.task)
        if not owner.task.done():
            return
        error = owner.task.exception()
        if error is not None and not isinstance(error, InjectedFault):
            self._broken.append(f"its run failed: {error_line(error)}")
            owner.is_dead = True

    async def _let_run(self, task: asyncio.Task[None]) -> None:
        await self._rig.clock.rest()
        if task.done():
            return
        done, _ = await asyncio.wait({task}, timeout=_OUTSIDE_SECONDS)
        if not done:
            await self._rig.clock.step(float("inf"))

    async def _pass_time(self, found: Journal) -> bool:
        """Jump to when it is due; False if it never is."""
        saga = found.saga
        if self._late is not None and self._is_ripe():
            await self._land()
            return True
        if saga.wake_at is None:
            return False
        seconds = (saga.wake_at - found.now).total_seconds()
        if self._fault is Fault.AWAY and self._hits >= _AWAY_HITS and saga.state is SagaState.RUNNING:
            assert self._place is not None
            ends = [self._rig.definition.steps[self._place[1]].give_up_seconds]
            if saga.deadline_at is not None:
                ends.append((saga.deadline_at - found.now).total_seconds() + 1)
            seconds = max(seconds, min(end for end in ends if end is not None))
        await self._rig.clock.jump(max(0.001, seconds))  # a store rounds
        return True

    async def _answered(self, found: Journal) -> bool:
        """Answer what the flow itself asks."""
        waits_for, of = found.saga.waiting_for or "", self._rig.part.of
        if not waits_for.startswith("review:"):
            return False
        action = self._rig.answers.get(waits_for.partition(":")[2], "approve")
        try:
            id = await open_item_of(self._rig.part.sagas, of.store.port(Reviews), found.saga.saga_id)
        except Conflict:  # it is answered, and has not run since
            return False
        actions = of.registrations.of(Actions)
        people = Desk(Tools(store=of.store, units=of.the(Units), actions=actions, clock=of.clock))
        await people.resolve(id, action, actor="torture", reason="torture")
        return True

    async def _went_on(self, found: Journal) -> bool:
        """Let happen what is still to come; True when the saga moves again for it."""
        if self._late is None and not any(owner.is_frozen for owner in self._frozen):
            return False
        await self._land()
        thawing = asyncio.ensure_future(self._thaw())
        while not thawing.done():
            await self._let_run(thawing)
        after = await desk.find(self._rig.part.sagas, found.saga.saga_id)
        if replace(after, now=found.now) != found:
            self._broken.append("a process that had lost its lease has changed the journal")
        return True

    async def _process(self) -> Owner:
        part = self._rig.part
        owner = Owner(part.of.ids.uuid7())
        await part.of.store.leases.beat(_row(owner, part), _LEASE)
        return owner


_LEASE = limits.LEASE_SECONDS


def _row(owner: Owner, part: SagaPart) -> Process:
    return Process(id=owner.id, service=part.of.service, host="torture", pid=1, roles=())
