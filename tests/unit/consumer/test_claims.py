"""Claimed runs of handlers that call the world: who waits, what is unknown, and what is left behind."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from uuid import UUID

import pytest
from tests.unit.consumer.test_suspects import FakeDelivery

from spoolproof import Park, RegistrationError, Service, Transaction
from spoolproof.backoff import system_random
from spoolproof.consumer.claims import Claims
from spoolproof.consumer.failure import PARK
from spoolproof.consumer.gate import Gate, GateClosing
from spoolproof.consumer.records import RunRecords
from spoolproof.consumer.registration import make_handler
from spoolproof.consumer.work import Admitted, Refusal, Work, work_of
from spoolproof.ids import Ids
from spoolproof.lifecycle.supervisor import Supervisor
from spoolproof.message import REPLAY_NO, Message
from spoolproof.ports.leases import Process
from spoolproof.ports.state import CLAIM
from spoolproof.stores.memory import MemoryStore
from spoolproof.testing.clock import ManualClock


async def call_the_bank(payload: dict[str, int]) -> None: ...


class Rig:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.ids = Ids(self.clock)
        self.store = MemoryStore(clock=self.clock, ids=self.ids, outbox_rows_max=10)
        self.supervisor = Supervisor(self.clock, system_random())
        self.gate = Gate(self.store.state, clock=self.clock, spawn=self.supervisor.spawn)

    async def process(self) -> tuple[Claims, UUID]:
        own = self.ids.uuid7()
        await self.store.leases.beat(Process(id=own, service="s", host="h", pid=1, roles=()), 15.0)
        state, leases = self.store.state, self.store.leases
        spawn = self.supervisor.spawn
        records = RunRecords(CLAIM, state, leases, self.gate, lambda: own, clock=self.clock, spawn=spawn)
        return Claims(records, self.gate), own

    def work(self, on_unknown: str = "park", formerly: tuple[str, ...] = (), **headers: str | int) -> Work:
        message = Message(
            id="0190a0b0-0000-7000-8000-000000000001",
            type="pay",
            source="s",
            time=self.clock.now(),
            body=b"{}",
            headers=headers,
        )
        work = work_of(FakeDelivery(message, 0), self.clock.now())
        options: dict[str, object] = dict(timeout=1, concurrency=1, prefetch=1, attempts=1, delays=(1,), dedupe="inbox")
        options["formerly"] = formerly
        handler = make_handler(call_the_bank, ["pay"], service="s", queue="s.q", on_unknown=on_unknown, **options)  # type: ignore[arg-type]
        work.admitted = Admitted(handler, {})
        return work

    async def dies_in(self, claims: Claims, own: UUID, work: Work, queue: str = "s.q") -> None:
        """Run it as a process does that is killed in the handler."""
        await claims._records.begin(f"{queue}/{work.key}/{work.message.headers.get(REPLAY_NO, 0)}")
        await self.store.leases.beat(Process(id=own, service="s", host="h", pid=1, roles=()), 0.0)


@pytest.fixture
async def rig() -> Rig:
    rig = Rig()
    await rig.store.start()
    return rig


async def test_what_a_dead_process_ran_is_asked_about(rig: Rig) -> None:
    await rig.dies_in(*await rig.process(), rig.work())
    claims, _ = await rig.process()

    with pytest.raises(Refusal) as caught:
        async with claims.held(rig.work()):
            pytest.fail("it ran again")

    assert PARK == caught.value.reason


async def test_what_it_ran_under_a_former_name_is_asked_about_as_well(rig: Rig) -> None:
    """And it is called again under the key that the release before gave it."""
    before = rig.work()
    before.queue = "s.old"
    await rig.dies_in(*await rig.process(), before, queue="s.old")
    claims, _ = await rig.process()

    with pytest.raises(Refusal):
        async with claims.held(rig.work(formerly=("s.old",))):
            pytest.fail("it ran again")
    again = rig.work(on_unknown="retry", formerly=("s.old",))
    async with claims.held(again):
        again.has_run = again.is_recorded = True

    assert before.for_handler().idempotency_key == again.for_handler().idempotency_key
    assert {} == dict(await rig.store.state.all(CLAIM))


async def test_a_person_who_replays_it_has_answered(rig: Rig) -> None:
    await rig.dies_in(*await rig.process(), rig.work())
    claims, own = await rig.process()
    replay = rig.work(**{REPLAY_NO: 1})

    async with claims.held(replay):
        ran = True
    await rig.dies_in(claims, own, replay)
    third, _ = await rig.process()
    with pytest.raises(Refusal):  # the replay's own end is as unknown as the first one's
        async with third.held(rig.work(**{REPLAY_NO: 1})):
            pytest.fail("it ran again")

    assert ran


async def test_a_second_delivery_waits_for_the_process_that_runs_it(rig: Rig) -> None:
    first, _ = await rig.process()
    second, _ = await rig.process()
    work, entered, order = rig.work(), asyncio.Event(), list[str]()

    async def run() -> None:
        async with second.held(rig.work()):
            order.append("second")

    async with first.held(work):
        task = asyncio.create_task(run())
        await rig.clock.advance(3)
        order.append("first")
        work.has_run = work.is_recorded = True
        entered.set()
    await rig.clock.advance(3)
    await task

    assert ["first", "second"] == order
    assert {} == dict(await rig.store.state.all(CLAIM))


@pytest.mark.parametrize(
    ("has_run", "is_recorded", "is_draining", "is_left"),
    [
        (False, False, False, False),  # it failed, and is tried again
        (True, True, False, False),
        (True, False, False, True),  # its success is still to be recorded
        (False, False, True, True),  # a drain cut it off in its call
    ],
)
async def test_a_claim_goes_when_the_outcome_is_known(
    rig: Rig, has_run: bool, is_recorded: bool, is_draining: bool, is_left: bool
) -> None:
    claims, _ = await rig.process()
    work = rig.work()

    with pytest.raises(LookupError):
        async with claims.held(work):
            work.has_run, work.is_recorded = has_run, is_recorded
            if is_draining:
                rig.gate.drain()
            raise LookupError

    assert is_left is bool(await rig.store.state.all(CLAIM))


@pytest.mark.parametrize(
    ("drains", "fault", "is_kept"), [(False, None, False), (False, RuntimeError(), False), (True, GateClosing(), True)]
)
async def test_a_run_that_asks_a_person_is_claimed_until_the_question_is_there(
    rig: Rig, drains: bool, fault: Exception | None, is_kept: bool
) -> None:
    """Killed before, it must not run again. A question that cannot be written in a process that lives on must not make
    whoever gets the message next wait for this process's end."""
    claims, _ = await rig.process()
    work = rig.work()
    with pytest.raises(Park):
        async with claims.held(work):
            raise Park("did it arrive?")

    assert await rig.store.state.all(CLAIM), "nobody has been asked yet"
    with suppress(RuntimeError, GateClosing):
        async with claims.asking(work):
            assert await rig.store.state.all(CLAIM)
            if drains:
                rig.gate.drain()
            if fault is not None:
                raise fault

    assert is_kept == bool(await rig.store.state.all(CLAIM))


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"on_unknown": "guess"}, "on_unknown='guess': 'retry' or 'park'"),
        ({"on_unknown": "park", "dedupe": "none"}, "dedupe='none' keeps no record"),
    ],
)
def test_a_claim_that_cannot_be_kept_is_refused(options: dict[str, str], fault: str) -> None:
    with pytest.raises(RegistrationError, match=fault.replace("'", "."[0])):
        Service("s").on("pay", **options)(call_the_bank)  # type: ignore[arg-type]


def test_a_transaction_has_no_unknown_outcome() -> None:
    async def book(payload: dict[str, int], tx: Transaction) -> None: ...

    with pytest.raises(RegistrationError, match="without Transaction"):
        Service("s").on("pay", on_unknown="park")(book)
