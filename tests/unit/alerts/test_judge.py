"""Who judges, who is told, and that nobody is told twice: several processes on one store, on the manual clock."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest

import spoolproof.runtime  # noqa: F401 - declares metrics
from spoolproof.alerts import desk
from spoolproof.alerts.book import AlertFile, Book, Silence, kind_of
from spoolproof.alerts.engine import AlertState
from spoolproof.alerts.judge import LEAD, Judge
from spoolproof.alerts.notify import Notification, Notifier
from spoolproof.alerts.rule import Severity
from spoolproof.alerts.rules import RULES
from spoolproof.errors import InvalidMessage, NotFound, StoreUnavailable
from spoolproof.ids import Ids
from spoolproof.lifecycle.membership import Holding
from spoolproof.parts import FEATURES, entry_of
from spoolproof.ports.leases import Fence, Process
from spoolproof.stores.memory import MemoryStore
from spoolproof.telemetry.events import Event, listening
from spoolproof.telemetry.metrics import METRICS, Sample
from spoolproof.testing.clock import ManualClock

for feature in FEATURES:
    entry_of(feature)  # declares the others


class Phone:
    """A sink that a test reads. faults: how many sends fail from now on."""

    id, name, is_whole = "phone", "phone", False
    severities = frozenset(Severity)

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.faults = 0

    async def send(self, notes: Sequence[Notification]) -> None:
        if self.faults:
            self.faults -= 1
            raise OSError("https://hooks.test/secret is away")
        self.heard += [note.title.partition(": ")[2] for note in notes]


class Machine:
    """A store that can be away, a phone, and processes that share both; each is looked at every five seconds."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore(clock=self.clock, ids=Ids(self.clock), outbox_rows_max=1000, ports=())
        self.is_away = False
        self.phone = Phone()
        self.folder = folder
        self.nodes: list[Node] = []
        self.tasks: set[asyncio.Task[None]] = set()

    def __getattr__(self, verb: str) -> Any:  # the state table, as it is or away
        async def call(*given: Any) -> Any:
            if self.is_away:
                raise StoreUnavailable("away")
            return await getattr(self.store.state, verb)(*given)

        return call

    async def processes(self) -> list[Process]:
        if self.is_away:
            raise StoreUnavailable("away")
        return [node.process for node in self.nodes]

    def start(self, *, leads: bool, name: str = "") -> Node:
        node = Node(self, leads=leads, name=name)
        self.nodes.append(node)
        return node

    async def pass_seconds(self, seconds: float, step: float = 5) -> None:
        for _ in range(int(seconds / step)):
            await self.clock.advance(step)
            for node in list(self.nodes):
                await node.judge.look_once()
                await asyncio.gather(*self.tasks)

    def spawn(self, work: Any, name: str) -> Any:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task


class Node:
    """A process. facts: metric name → label values → number."""

    def __init__(self, machine: Machine, *, leads: bool, name: str) -> None:
        self.id = uuid4()
        self.process = Process(id=self.id, service="shop", host="h", pid=1, roles=())
        self.facts: dict[str, Mapping[tuple[str, ...], float]] = {}
        self.machine = machine
        clock = machine.clock
        self.lead = Holding("alerts/shop", [LEAD], clock, 1e9)
        if leads:
            self.takes_lead()
        book = Book("shop", machine, AlertFile(machine.folder / "alerts.json"), clock=clock)  # type: ignore[arg-type]
        notifier = Notifier("shop", book, [machine.phone], clock=clock, spawn=machine.spawn)
        self.judge = Judge(
            *(RULES, book, notifier, machine, machine, self.lead),  # type: ignore[arg-type]
            process_id=lambda: self.id,
            clock=clock,
            samples=self.samples,
        )
        self.judge.name_in_file = name or str(self.id)
        notifier.persist = self.judge.persist
        self.book = book

    def takes_lead(self) -> None:
        self.lead.add([Fence(kind="alerts/shop", name=LEAD, owner=self.id, epoch=1)], 0)

    def samples(self) -> Iterator[Sample]:
        for name, values in self.facts.items():
            yield from (Sample(METRICS[name], labels, value) for labels, value in values.items())

    def dies(self) -> None:
        self.machine.nodes.remove(self)

    async def drains(self) -> None:
        await self.judge.drain()
        self.dies()

    def firing(self) -> set[str]:
        return {name for name, one in self.book.alerts.items() if one.state is AlertState.FIRING}


OPEN = {"breaker_state": {("pay", "open"): 1.0}}
SHUT = {"breaker_state": {("pay", "open"): 0.0}}
DB_AWAY = {"connection_state": {("db", "disconnected"): 1.0, ("db", "connected"): 0.0}}
DB_HERE = {"connection_state": {("db", "disconnected"): 0.0, ("db", "connected"): 1.0}}


@pytest.fixture
async def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    await made.store.start()
    return made


async def test_one_is_told_once_after_half_a_minute_and_of_the_end(machine: Machine) -> None:
    """What another process sees, too."""
    machine.start(leads=True)
    other = machine.start(leads=False)
    other.facts = dict(OPEN)

    await machine.pass_seconds(25)
    assert [] == machine.phone.heard
    await machine.pass_seconds(600)
    assert ["BreakerOpen firing"] == machine.phone.heard
    other.facts = dict(SHUT)
    await machine.pass_seconds(600)

    assert ["BreakerOpen firing", "BreakerOpen resolved"] == machine.phone.heard
    assert {} == machine.nodes[0].book.alerts


async def test_a_blink_that_ends_before_anybody_was_told_is_told_to_nobody(machine: Machine) -> None:
    node = machine.start(leads=True)
    node.facts = {"sagas": {("refund", "in_review"): 1.0}}
    await machine.pass_seconds(500)
    node.facts = {}
    await machine.pass_seconds(600)
    assert [] == machine.phone.heard


async def test_a_restart_and_another_judge_tell_nobody_twice(machine: Machine) -> None:
    """And do not forget: the end is told by whoever judges then."""
    first = machine.start(leads=True)
    first.facts = dict(OPEN)
    await machine.pass_seconds(60)
    first.dies()
    second = machine.start(leads=True)
    second.facts = dict(OPEN)
    third = machine.start(leads=False)
    third.facts = dict(OPEN)
    await machine.pass_seconds(60)
    await second.drains()
    third.takes_lead()
    await machine.pass_seconds(60)
    told = [line for line in machine.phone.heard if "BreakerOpen" in line]
    third.facts = dict(SHUT)
    await machine.pass_seconds(600)

    assert ["BreakerOpen firing"] == told
    assert ["BreakerOpen firing", "BreakerOpen resolved"] == [one for one in machine.phone.heard if "Breaker" in one]


async def test_for_goes_on_where_another_judge_was(machine: Machine) -> None:
    """Five minutes are five minutes, whoever counts them."""
    first = machine.start(leads=True)
    first.facts = dict(DB_AWAY)
    await machine.pass_seconds(200)
    first.dies()
    second = machine.start(leads=True)
    second.facts = dict(DB_AWAY)
    await machine.pass_seconds(95)
    assert "DisconnectedLong{dependency=db}" not in second.firing()
    await machine.pass_seconds(15)
    assert "DisconnectedLong{dependency=db}" in second.firing()


async def test_while_the_store_is_away_alerts_go_on_and_a_restart_tells_nothing_twice(machine: Machine) -> None:
    """The very thing that is wrong is where it is kept; the file of the machine has it, too."""
    first = machine.start(leads=True, name="a")
    first.facts = {**OPEN, **DB_HERE}
    await machine.pass_seconds(60)
    assert ["BreakerOpen firing"] == machine.phone.heard

    machine.is_away = True
    first.facts = {**OPEN, **DB_AWAY}
    await machine.pass_seconds(60)
    assert ["BreakerOpen firing", "ConnectionLost firing"] == machine.phone.heard
    first.dies()
    second = machine.start(leads=False, name="b")  # no lease is given out now
    second.facts = {**OPEN, **DB_AWAY}
    await machine.pass_seconds(120)
    assert {"BreakerOpen{policy=pay}", "ConnectionLost{dependency=db}"} == second.firing()
    assert ["BreakerOpen firing", "ConnectionLost firing"] == machine.phone.heard

    machine.is_away = False
    second.takes_lead()
    second.facts = {**SHUT, **DB_HERE}
    await machine.pass_seconds(900)
    ends = [line for line in machine.phone.heard[2:] if "resolved" in line and "Crashed" not in line]
    assert {"BreakerOpen resolved", "ConnectionLost resolved"} == set(ends)
    assert len(ends) == 2
    assert not [line for line in machine.phone.heard[2:] if "firing" in line and "Breaker" in line]


async def test_of_two_on_one_machine_one_judges_while_the_store_is_away(machine: Machine) -> None:
    nodes = [machine.start(leads=True, name="a"), machine.start(leads=False, name="b")]
    await machine.pass_seconds(10)
    machine.is_away = True
    for node in nodes:
        node.facts = dict(DB_AWAY)
    await machine.pass_seconds(120)
    assert ["ConnectionLost firing"] == machine.phone.heard
    assert 1 == sum(node.judge.is_judge for node in nodes)


async def test_what_nobody_tells_while_the_store_is_away_stays_as_it_is(machine: Machine) -> None:
    """No row is no news: who counts the outbox cannot."""
    node = machine.start(leads=True)
    node.facts = {"outbox_rows": {(): 500.0}}
    await machine.pass_seconds(60)
    assert {"OutboxPending"} == node.firing()
    machine.is_away = True
    node.facts = {}
    await machine.pass_seconds(600)
    assert {"OutboxPending"} == node.firing()
    machine.is_away = False
    await machine.pass_seconds(200)
    assert set() == node.firing()


async def test_a_process_that_ends_without_a_drain_has_crashed(machine: Machine) -> None:
    """One that drains has not; and the only process of a service is missed by its successor."""
    machine.start(leads=True)
    drained, crashed = machine.start(leads=False), machine.start(leads=False)
    await machine.pass_seconds(10)
    await drained.drains()
    await machine.pass_seconds(60)
    assert set() == machine.nodes[0].firing()
    with heard("process.crashed") as told:
        crashed.dies()
        await machine.pass_seconds(10)
    assert [str(crashed.id)] == [event.id for event in told]  # type: ignore[attr-defined]
    assert {"BackendCrashed"} == machine.nodes[0].firing()
    await machine.pass_seconds(240)
    assert set() == machine.nodes[0].firing()

    for _ in range(5):
        machine.nodes[0].dies()
        machine.start(leads=True)
        await machine.pass_seconds(20)
    assert {"BackendCrashed", "ProcessCrashLooping"} == machine.nodes[0].firing()


async def test_a_sink_that_fails_is_tried_again_and_holds_nobody_up(machine: Machine) -> None:
    node = machine.start(leads=True)
    node.facts = dict(OPEN)
    machine.phone.faults = 5
    with heard("alert.undelivered", "alert.delivered") as told:
        await machine.pass_seconds(300)
    assert ["BreakerOpen firing"] == machine.phone.heard
    assert {"OSError"} == {event.error for event in told if hasattr(event, "error")}  # its text is a URL
    assert "alert.delivered" == told[-1].name


async def test_a_sink_that_is_away_for_a_day_is_given_up_with_a_line(machine: Machine) -> None:
    node = machine.start(leads=True)
    node.facts = dict(OPEN)
    machine.phone.faults = 10**6
    with heard("alert.given_up") as told:
        await machine.pass_seconds(86_400 + 1200, step=200)
    assert ["BreakerOpen"] == [event.alert for event in told]  # type: ignore[attr-defined]
    machine.phone.faults = 0
    await machine.pass_seconds(300)
    assert [] == machine.phone.heard


async def test_it_is_repeated_every_four_hours_unless_somebody_has_it(machine: Machine) -> None:
    node = machine.start(leads=True)
    node.facts = dict(OPEN)
    await machine.pass_seconds(60)
    await machine.pass_seconds(4 * 3600, step=60)
    assert 2 == len(machine.phone.heard)
    await desk.acknowledge(machine.store, machine.clock, "shop", "BreakerOpen", {"policy": "pay"}, author="ann")
    await machine.pass_seconds(5 * 3600, step=60)
    assert 2 == len(machine.phone.heard)
    node.facts = dict(SHUT)
    await machine.pass_seconds(600)
    assert "BreakerOpen resolved" == machine.phone.heard[-1]
    with pytest.raises(NotFound, match="does not fire"):
        await desk.acknowledge(machine.store, machine.clock, "shop", "BreakerOpen", {"policy": "pay"}, author="ann")


async def test_a_silence_mutes_and_shows(machine: Machine) -> None:
    node = machine.start(leads=True)
    ids = Ids(machine.clock)
    silence = Silence(
        id=ids.message_id(),
        rule="BreakerOpen",
        labels={},
        author="ann",
        reason="deploy",
        begins_at=machine.clock.now(),
        ends_at=machine.clock.now() + timedelta(hours=1),
    )
    await machine.store.state.put(kind_of("shop"), f"silence:{silence.id}", msgspec.json.encode(silence))
    node.facts = dict(OPEN)
    await machine.pass_seconds(3000, step=30)
    assert [] == machine.phone.heard
    assert {"BreakerOpen{policy=pay}"} == node.firing()
    await machine.pass_seconds(700)
    assert ["BreakerOpen firing"] == machine.phone.heard
    assert not [name for name in await machine.store.state.all(kind_of("shop")) if name.startswith("silence:")]


async def test_a_cause_is_told_and_what_follows_from_it_is_not(machine: Machine) -> None:
    """Until the cause is over and the rest still is not well."""
    node = machine.start(leads=True)
    broker = {("rabbitmq", "disconnected"): 1.0}
    node.facts = {"connection_state": broker, "outbox_rows": {(): 500.0}}
    await machine.pass_seconds(200)
    assert ["ConnectionLost firing"] == machine.phone.heard
    node.facts = {"connection_state": {("rabbitmq", "disconnected"): 0.0}, "outbox_rows": {(): 500.0}}
    await machine.pass_seconds(600)
    assert {"ConnectionLost resolved", "OutboxPending firing"} == set(machine.phone.heard[1:])


async def test_nonsense_is_refused_by_name(machine: Machine) -> None:
    ids, tell = Ids(machine.clock), {"author": "ann", "reason": "x"}
    with pytest.raises(NotFound, match="OutboxPending"):
        await desk.silence(machine.store, machine.clock, ids, "shop", "Outbox", {}, seconds=60, **tell)
    with pytest.raises(NotFound, match="no label 'queue'; it has policy"):
        await desk.silence(machine.store, machine.clock, ids, "shop", "BreakerOpen", {"queue": "q"}, seconds=60, **tell)
    with pytest.raises(InvalidMessage, match="7 days"):
        await desk.silence(machine.store, machine.clock, ids, "shop", "BreakerOpen", {}, seconds=8 * 86_400, **tell)


async def test_a_row_of_another_release_stops_nothing(machine: Machine) -> None:
    node = machine.start(leads=True)
    await machine.store.state.put(kind_of("shop"), "alert:BreakerOpen{policy=pay}", b'{"rule":1}')
    node.facts = dict(OPEN)
    with heard("alert.row_unreadable") as told:
        await machine.pass_seconds(60)
    assert told
    assert ["BreakerOpen firing"] == machine.phone.heard


@contextmanager
def heard(*names: str) -> Iterator[list[Event]]:
    found: list[Event] = []
    with listening(lambda event: found.append(event) if event.name in names else None):
        yield found
