"""The message that ends its process: what is recorded of a run, who runs alone, and when it is given up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from uuid import UUID

import msgspec
import pytest

from spoolproof.backoff import system_random
from spoolproof.consumer.gate import Gate, GateClosing
from spoolproof.consumer.records import RunRecords
from spoolproof.consumer.suspects import Suspects
from spoolproof.consumer.work import Refusal, Work, work_of
from spoolproof.errors import StoreUnavailable
from spoolproof.ids import Ids
from spoolproof.lifecycle.supervisor import Supervisor
from spoolproof.message import REPLAY_NO, Message
from spoolproof.ports.leases import Process
from spoolproof.ports.state import SUSPECT
from spoolproof.stores.memory import MemoryStore
from spoolproof.testing.clock import ManualClock

QUEUE = "s.q"
ID = "0190a0b0-0000-7000-8000-000000000001"


class FakeDelivery:
    fault = None
    dead_reason = None
    is_stale = False
    queue = QUEUE

    def __init__(self, message: Message, delivery_count: int) -> None:
        self.message = message
        self.delivery_count = delivery_count

    def ack(self) -> bool:
        return True

    nack = reject = ack


class Rig:
    """A store, and processes that use it."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.ids = Ids(self.clock)
        self.store = MemoryStore(clock=self.clock, ids=self.ids, outbox_rows_max=10)
        self.supervisor = Supervisor(self.clock, system_random())
        self.gate = Gate(self.store.state, clock=self.clock, spawn=self.supervisor.spawn)

    def process(self, id: UUID | None = None) -> Suspects:
        own = id or self.ids.uuid7()
        state, leases, spawn = self.store.state, self.store.leases, self.supervisor.spawn
        return Suspects(RunRecords(SUSPECT, state, leases, self.gate, lambda: own, clock=self.clock, spawn=spawn))

    def work(self, delivery_count: int, id: str = ID, body: bytes = b"{}", replay_no: int = 0) -> Work:
        headers: dict[str, str | int | bool] = {REPLAY_NO: replay_no} if replay_no else {}
        message = Message(id=id, type="t", source="s", time=self.clock.now(), body=body, headers=headers)
        return work_of(FakeDelivery(message, delivery_count), self.clock.now())

    async def crash(self, process_id: UUID | None = None, work: Work | None = None) -> None:
        """Leave what a process leaves that does not survive its run."""
        work = work or self.work(1)
        name = f"{QUEUE}/{work.key or work.content_key}/0"
        before = (await self.records()).get(name, [])
        await self.store.state.put(SUSPECT, name, msgspec.json.encode([*before, str(process_id or self.ids.uuid7())]))

    async def records(self) -> dict[str, list[str]]:
        found = await self.store.state.all(SUSPECT)
        return {name: msgspec.json.decode(record.value) for name, record in found.items()}


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    made = Rig()
    await made.store.start()
    async with made.clock.auto_advance():
        yield made
    await made.supervisor.stop()
    await made.store.stop()


async def test_a_first_delivery_costs_nothing(rig: Rig) -> None:
    """Nearly every message is one."""
    async with rig.process().running(rig.work(0)):
        assert {} == await rig.records()


@pytest.mark.parametrize("ending", [None, ValueError, asyncio.CancelledError])
async def test_the_record_of_a_run_goes_however_it_ends_in_a_living_process(
    rig: Rig, ending: type[BaseException] | None
) -> None:
    """A failure, a drain and a success are no crash."""
    own = rig.ids.uuid7()
    try:
        async with rig.process(own).running(rig.work(1)):
            assert [[str(own)]] == list((await rig.records()).values())
            if ending is not None:
                raise ending
    except (ValueError, asyncio.CancelledError):
        pass

    assert {} == await rig.records()


async def test_the_third_process_that_ends_over_a_message_was_the_last(rig: Rig) -> None:
    """The first end is not recorded, for nobody suspected it."""
    for _ in range(2):
        await rig.crash()

    with pytest.raises(Refusal, match="3 times the process that ran it ended") as refused:
        async with rig.process().running(rig.work(3)):
            raise AssertionError("it ran")

    assert "crash_loop" == refused.value.reason


async def test_what_was_given_up_may_be_replayed(rig: Rig) -> None:
    """Its count begins anew, or a replay that meets one lost connection would be given up at once; that of another copy
    of the message, which a relay that was killed sends, does not."""
    for _ in range(2):
        await rig.crash()
    process = rig.process()

    async with process.running(rig.work(1, replay_no=1)):
        ran = True
    with pytest.raises(Refusal):
        async with process.running(rig.work(1)):
            ran = False

    assert ran


async def test_a_run_in_a_process_that_lives_is_no_crash(rig: Rig) -> None:
    """A broker that restarts twice under slow handlers delivers everything three times; nobody has crashed."""
    other = rig.ids.uuid7()
    row = Process(id=other, service="s", host="h", pid=1, roles=())
    await rig.store.leases.beat(row, 3600.0)
    elsewhere = rig.process(other)
    run = elsewhere.running(rig.work(1))
    await run.__aenter__()

    waiting = asyncio.ensure_future(entered(rig.process(), rig.work(2)))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    await run.__aexit__(None, None, None)

    assert 1 == await waiting


async def test_it_waits_no_longer_than_a_dead_process_is_listed(rig: Rig) -> None:
    """A killed process cannot take its row with it; the row runs out."""
    dead = rig.ids.uuid7()
    await rig.store.leases.beat(Process(id=dead, service="s", host="h", pid=1, roles=()), 15.0)
    await rig.crash(dead)

    assert 2 == await entered(rig.process(), rig.work(2))
    assert 15 <= rig.clock.monotonic() < 20


async def test_a_redelivery_while_it_runs_in_this_very_process_waits_for_that_run(rig: Rig) -> None:
    """A lost connection; the handler goes on."""
    process = rig.process()
    run = process.running(rig.work(1))
    await run.__aenter__()
    waiting = asyncio.ensure_future(entered(process, rig.work(2)))
    await asyncio.sleep(0.02)
    assert not waiting.done()

    await run.__aexit__(None, None, None)

    assert 1 == await waiting


async def test_a_message_that_left_a_record_runs_alone(rig: Rig) -> None:
    """It takes no neighbour with it, and is not taken for guilty of what a neighbour does."""
    await rig.crash()
    process = rig.process()
    before = process.running(rig.work(0, "0190a0b0-0000-7000-8000-000000000002"))
    await before.__aenter__()

    suspect = asyncio.ensure_future(holding(process, rig.work(2)))
    await asyncio.sleep(0.01)
    assert not suspect.done()
    later = asyncio.ensure_future(holding(process, rig.work(0, "0190a0b0-0000-7000-8000-000000000003")))
    await before.__aexit__(None, None, None)
    stack = await suspect
    await asyncio.sleep(0.01)
    assert not later.done()

    await stack.aclose()
    await (await later).aclose()


async def test_first_redeliveries_run_beside_each_other(rig: Rig) -> None:
    """Thousands come after a broker's restart; one at a time they would take all night."""
    process = rig.process()
    runs = [process.running(rig.work(1, id)) for id in ("a", "b", "c")]
    for run in runs:
        await run.__aenter__()
    assert 3 == len(await rig.records())
    for run in runs:
        await run.__aexit__(None, None, None)


async def test_a_message_without_an_id_is_known_by_its_content(rig: Rig) -> None:
    """It can end its process like any other."""
    for _ in range(2):
        await rig.crash(work=rig.work(1, "", b"kill"))
    async with rig.process().running(rig.work(1, "", b"harmless")):
        pass
    with pytest.raises(Refusal):
        await entered(rig.process(), rig.work(3, "", b"kill"))


async def test_without_the_store_nothing_runs_and_nothing_is_judged(rig: Rig) -> None:
    """The gate holds it as it holds every other."""
    await rig.store.stop()
    with pytest.raises(StoreUnavailable):
        await entered(rig.process(), rig.work(1))
    await rig.store.start()


async def test_a_record_that_cannot_be_removed_counts_for_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store went away under the run; its process lives."""
    process = rig.process()

    async def away(kind: str, name: str) -> bool:
        raise StoreUnavailable("planted")

    with monkeypatch.context() as patched:
        patched.setattr(rig.store.state, "remove", away)
        for _ in range(5):
            assert 1 == await entered(process, rig.work(1))

    assert 1 == await entered(process, rig.work(1))
    assert {} == await rig.records()


@pytest.mark.parametrize("lost", ["put", "remove"])
async def test_a_record_that_an_outage_left_holds_up_no_other_process(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """The process that it names lives, so whoever gets the message next would wait for that process to end. A `put`
    whose answer is lost leaves one, too."""
    own = rig.ids.uuid7()
    await rig.store.leases.beat(Process(id=own, service="s", host="h", pid=1, roles=()), 1e6)
    put = rig.store.state.put

    async def put_unanswered(kind: str, name: str, value: bytes) -> None:
        await put(kind, name, value)
        if kind == SUSPECT:
            raise StoreUnavailable("planted")

    async def away(kind: str, name: str) -> bool:
        raise StoreUnavailable("planted")

    with monkeypatch.context() as patched:
        patched.setattr(rig.store.state, "remove", away)
        if lost == "put":
            patched.setattr(rig.store.state, "put", put_unanswered)
        with suppress(StoreUnavailable):
            await entered(rig.process(own), rig.work(1))
        await rig.clock.sleep(60)
    assert 1 == len(await rig.records())

    async with asyncio.timeout(5):
        assert 1 == await entered(rig.process(), rig.work(2))


async def test_a_drain_does_not_wait_for_a_run_elsewhere(rig: Rig) -> None:
    """It goes back unstarted."""
    other = rig.ids.uuid7()
    await rig.store.leases.beat(Process(id=other, service="s", host="h", pid=1, roles=()), 1e6)
    await rig.crash(other)
    rig.gate.drain()

    with pytest.raises(GateClosing):
        await entered(rig.process(), rig.work(2))


async def entered(process: Suspects, work: Work) -> int:
    """Run it, and return how many runs were recorded while it ran."""
    async with process.running(work):
        record = await process._records._state.get(SUSPECT, f"{QUEUE}/{work.key or work.content_key}/0")
        return 0 if record is None else len(msgspec.json.decode(record.value))


async def holding(process: Suspects, work: Work) -> AsyncExitStack:
    """Begin a run, and return what ends it."""
    stack = AsyncExitStack()
    await stack.enter_async_context(process.running(work))
    return stack
