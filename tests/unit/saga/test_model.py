"""Whatever a step's calls do, and whichever process dies in them, a saga ends whole, undone, or with a question.

A saga of three steps runs on the memory store, with time in the test's hand. Every call takes its fate from a script:
it succeeds, is refused, finds nobody, is lost with or without its effect, or takes its process with it before or after.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spoolproof import Service, limits
from spoolproof.backoff import seeded_random
from spoolproof.failpoints import InjectedFault
from spoolproof.ids import Ids
from spoolproof.ports.leases import Process
from spoolproof.ports.reviews import ReviewFilter, Reviews
from spoolproof.ports.sagas import FINAL, Journal, Phase, SagaRow, Sagas, SagaState, StepRow, StepState
from spoolproof.saga import Flow, Landed, NotLanded, Refused, Step
from spoolproof.saga.attempt import Tools
from spoolproof.saga.definition import SagaDefinition
from spoolproof.saga.question import Asking, read
from spoolproof.saga.run import INPUT, Run
from spoolproof.saga.transitions import OVER
from spoolproof.saga.watch import Watch
from spoolproof.stores.memory import MemoryStore
from spoolproof.testing.clock import ManualClock
from spoolproof.wiring import PORTS

FATES = ["ok", "refused", "away", "lost", "lost after", "died", "died after"]
SCRIPT = st.lists(st.sampled_from(FATES), max_size=9)
UNDO = st.lists(st.sampled_from([fate for fate in FATES if fate != "refused"]), max_size=5)
EFFECT = st.sampled_from(["keyed", "once", "once with a probe"])
ID = "s-1"


class World:
    """The other systems. landed: by forward key, how often an effect is in force."""

    def __init__(self, scripts: dict[str, list[str]]) -> None:
        self.scripts = {name: list(script) for name, script in scripts.items()}
        self.landed: Counter[str] = Counter()
        self.seen: set[str] = set()
        self.calls: list[tuple[str, bool]] = []
        self.undone: list[str] = []
        self.verdicts: set[str] = set()

    async def call(self, name: str, step: Step, *, is_keyed: bool) -> str:
        script = self.scripts[name]
        fate = script.pop(0) if script else "ok"
        assert is_keyed or not self.landed[step.key] or step.key in self.verdicts, "called again after it landed"
        if fate in ("ok", "lost after", "died after") and not (is_keyed and step.key in self.seen):
            self.seen.add(step.key)
            self.landed[step.key] += 1
        return self._end(fate, name)

    async def undo(self, name: str, step: Step) -> None:
        script = self.scripts[f"undo {name}"]
        fate = script.pop(0) if script else "ok"
        if fate in ("ok", "lost after", "died after"):
            self.landed[step.forward_key] = 0
            self.seen.add(step.forward_key)  # its tombstone
            self.undone.append(name)
        self._end(fate, name)

    def _end(self, fate: str, name: str) -> str:
        if fate == "refused":
            raise Refused(name)
        if fate == "away":
            raise ConnectionRefusedError(name)
        if fate.startswith("lost"):
            raise TimeoutError(name)
        if fate.startswith("died"):
            raise InjectedFault(name)
        return name


def defined(world: World, effects: tuple[str, str]) -> SagaDefinition:
    definition = Service("model").saga("order", version=1)
    steps: list[Any] = []
    for name, effect in zip(("a", "b"), effects, strict=True):
        steps.append(_step(definition, world, name, effect))

    @definition.step(pivot=True)
    async def c(step: Step, given: object) -> str:
        return await world.call("c", step, is_keyed=True)

    @definition.flow
    async def flow(saga: Flow, given: object) -> list[str]:
        return [await saga.do(steps[0]), await saga.do(steps[1]), await saga.do(c)]

    assert [] == definition.check()
    return definition


def _step(definition: SagaDefinition, world: World, name: str, effect: str) -> Any:
    is_keyed = effect == "keyed"

    @definition.step(effect="keyed" if is_keyed else "once", tombstone=True, name=name)
    async def step(step: Step, given: object) -> str:
        return await world.call(name, step, is_keyed=is_keyed)

    @step.compensate
    async def undo(step: Step, given: object, output: str | None) -> None:
        await world.undo(name, step)

    if effect.endswith("probe"):

        @step.probe
        async def probe(step: Step, given: object) -> object:
            return Landed(name) if world.landed[step.key] else NotLanded()

    return step


@settings(max_examples=150, deadline=None)
@given(
    scripts=st.fixed_dictionaries(
        {"a": SCRIPT, "b": SCRIPT, "c": SCRIPT, "undo a": UNDO, "undo b": UNDO},
    ),
    effects=st.tuples(EFFECT, EFFECT),
)
def test_it_ends_whole_undone_or_with_a_question(scripts: dict[str, list[str]], effects: tuple[str, str]) -> None:
    """SA2, SA3, SA4, SA5."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "SAGA_IN_PLACE_SECONDS", -1.0)  # every wait is a row
        world, found, items = asyncio.run(_run(scripts, effects))

    saga, rows = found.saga, {row.place: row for row in found.steps}
    landed = [world.landed[f"{ID}/{name}/1"] for name in "abc"]
    if saga.state is SagaState.COMPLETED:
        assert [1, 1, 1] == landed
    elif saga.state is SagaState.COMPENSATED:
        assert [0, 0, 0] == landed
        assert not rows[Phase.DO, "c", "1"].is_maybe_landed if (Phase.DO, "c", "1") in rows else True
    else:
        assert SagaState.IN_REVIEW is saga.state
        assert items == [read(saga.question or "").review], "one item is open, and it is its own"
        assert max(landed) <= 1
    assert sorted(world.undone, reverse=True) == world.undone, "the last step is undone first"
    assert saga.owner is None
    assert bool(items) == (saga.state is SagaState.IN_REVIEW)


async def _run(scripts: dict[str, list[str]], effects: tuple[str, str]) -> tuple[World, Journal, list[str]]:
    clock, world = ManualClock(), World(scripts)
    store = MemoryStore(clock=clock, ids=Ids(clock), outbox_rows_max=10, ports=PORTS)
    await store.start()
    sagas, definition = store.port(Sagas), defined(world, effects)
    tools = Tools(
        store=store,
        publisher=None,  # type: ignore[arg-type]
        clock=clock,
        random=seeded_random(1),
        asking=Asking(store.port(Reviews), clock=clock, ids=store.ids),
        is_trusted=lambda: True,
        is_draining=lambda: False,
        watch=Watch(clock),
    )
    row = SagaRow(saga_id=ID, service="model", name="order", version=1, key="1")
    phase, name, item = INPUT
    given_row = StepRow(phase=phase, name=name, item=item, state=StepState.SUCCEEDED, seq=0, output=b"null")
    assert await sagas.start(row, given_row, 1e9, None)
    process, final = await _process(store), {}
    for _ in range(400):
        found = await sagas.journal(ID)
        assert found is not None
        for step in found.steps:
            known = final.setdefault(step.place, step) if step.state in FINAL else step
            assert replace(known, seq=0) == replace(step, seq=0), "what is final has changed"
        if found.saga.state in (*OVER, SagaState.IN_REVIEW):
            return world, found, [item.id for item in await store.port(Reviews).search(ReviewFilter())]
        claimed = await sagas.claim("model", [("order", 1)], process.id, 1)
        if not claimed:
            assert found.saga.wake_at is not None, "it rests, and nothing will wake it"
            await clock.advance((found.saga.wake_at - found.now).total_seconds())
            continue
        try:
            await Run(tools, sagas, claimed[0], definition).live()
        except InjectedFault:
            await store.leases.beat(process, 0.0)
            process = await _process(store)
            assert 1 == len(await sagas.rescue("model", limits.SAGA_CRASH_DELAYS_SECONDS))
    raise AssertionError(f"it never ends: {found.saga}")


async def _process(store: MemoryStore) -> Process:
    process = Process(id=store.ids.uuid7(), service="model", host="h", pid=1, roles=())
    assert await store.leases.beat(process, 1e9)
    return process
