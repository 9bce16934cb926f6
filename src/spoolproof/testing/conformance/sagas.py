"""The contract of `ports.sagas.Sagas`."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import UUID

import pytest

from spoolproof.errors import Conflict
from spoolproof.ids import derived_id
from spoolproof.outbox.publish import Publisher
from spoolproof.outbox.transaction import UnitsOfWork
from spoolproof.ports.leases import Process
from spoolproof.ports.reviews import Reviews
from spoolproof.ports.sagas import (
    STRANGE,
    Decision,
    Journal,
    Move,
    Phase,
    SagaFilter,
    SagaRow,
    Sagas,
    SagaState,
    Signal,
    StepRow,
    StepState,
    Write,
)
from spoolproof.ports.store import Store
from spoolproof.review.actions import Actions
from spoolproof.review.desk import Desk, Tools
from spoolproof.saga.decisions import Decisions
from spoolproof.saga.definition import Definitions
from spoolproof.saga.question import Asking, Kind, Question, written
from spoolproof.testing.conformance._messages import CLOCK, IDS
from spoolproof.testing.conformance._store import LEASE_SECONDS, TINY_LEASE_SECONDS, StoreSuite, Undo, rolled_back

OWN, RUNS = "conformance", [("order", 1), ("order", 2)]
INPUT = StepRow(
    phase=Phase.FLOW, name="input", item="1", state=StepState.SUCCEEDED, seq=0, arguments="digest", output=b'{"n":1}'
)
CHARGE = StepRow(phase=Phase.DO, name="charge", item="1", state=StepState.STARTED, seq=1, attempts=1)
DELAYS = (0.0, 5.0, 15.0, 60.0, 300.0)


@pytest.mark.asyncio
class SagasConformance(StoreSuite):
    """Needs the fixture `store`, made with the ports of `wiring`."""

    async def test_a_start_is_there_with_its_transaction_and_once(self, store: Store) -> None:
        """AC1: the caller's rows and the saga are both there, or neither; a late duplicate starts nothing."""
        sagas = store.port(Sagas)
        async with rolled_back(store, Undo) as tx:
            assert await sagas.start(_saga("a"), INPUT, 60.0, tx)
        gone = await sagas.journal(_saga("a").saga_id)
        async with store.transaction() as tx:
            assert await sagas.start(_saga("a"), INPUT, 60.0, tx)
        again = await sagas.start(_saga("a"), replace(INPUT, output=b"{}"), 60.0, None)

        found = await _read(sagas, "a")

        assert (None, False) == (gone, again)
        assert (SagaState.RUNNING, 0, None) == (found.saga.state, found.saga.epoch, found.saga.owner)
        assert [(b'{"n":1}', "digest")] == [(step.output, step.arguments) for step in found.steps]
        assert found.saga.deadline_at is not None
        assert 55 < (found.saga.deadline_at - found.now).total_seconds() <= 60

    async def test_a_saga_goes_to_one_process_that_lives_and_knows_its_version(self, store: Store) -> None:
        """Of two that claim at once one gets it; a process whose row has expired gets none."""
        sagas, first, second = store.port(Sagas), await _process(store), await _process(store)
        dead = IDS.uuid7()
        for key, version in (("a", 1), ("b", 2), ("c", 3)):
            await sagas.start(_saga(key, version), INPUT, None, None)

        nothing = await sagas.claim(OWN, RUNS, dead, 10)
        taken = await asyncio.gather(*(sagas.claim(OWN, RUNS, one, 10) for one in (first, second)))
        other = await sagas.claim("another", RUNS, first, 10)

        assert ([], []) == (list(nothing), list(other))
        assert ["a", "b"] == sorted(row.key for rows in taken for row in rows)
        assert {1} == {row.epoch for rows in taken for row in rows}
        assert None is (await _read(sagas, "c")).saga.owner

    async def test_a_write_of_another_owner_or_epoch_does_nothing(self, store: Store) -> None:
        """SA1: that is what makes a process that was frozen past its lease harmless."""
        sagas, owner, claimed = await _claimed(store)
        good = Write(saga_id=claimed.saga_id, owner=owner, epoch=claimed.epoch, steps=[CHARGE])

        refused = [
            await sagas.write(replace(good, epoch=claimed.epoch - 1)),
            await sagas.write(replace(good, epoch=claimed.epoch + 1)),
            await sagas.write(replace(good, owner=IDS.uuid7())),
        ]
        before = (await _read(sagas, "a")).steps
        taken = [await sagas.write(good), await sagas.write(good)]

        assert [None, None, None] == refused
        assert 1 == len(before)
        assert all(one is not None and not one.is_cancel_requested for one in taken)
        assert ["input", "charge"] == [step.name for step in (await _read(sagas, "a")).steps]

    async def test_what_is_final_stays_and_what_may_have_landed_stays_so(self, store: Store) -> None:
        """SA1: a late answer changes no record; one unknown attempt is enough for good."""
        sagas, owner, claimed = await _claimed(store)
        write = Write(saga_id=claimed.saga_id, owner=owner, epoch=claimed.epoch)
        unknown = replace(CHARGE, state=StepState.UNKNOWN, is_maybe_landed=True, error="timeout")
        done = replace(CHARGE, state=StepState.SUCCEEDED, output=b"1", attempts=2)
        for step in (CHARGE, unknown, done, replace(done, state=StepState.REFUSED, output=b"2")):
            await sagas.write(replace(write, steps=[step]))

        step = (await _read(sagas, "a")).steps[1]

        assert (StepState.SUCCEEDED, b"1", True, 2) == (step.state, step.output, step.is_maybe_landed, step.attempts)
        assert step.started_at is not None
        assert step.finished_at is not None

    async def test_a_step_and_its_effect_commit_together(self, store: Store) -> None:
        """AC1, on the way back: a rollback leaves neither."""
        sagas, owner, claimed = await _claimed(store)
        write = Write(saga_id=claimed.saga_id, owner=owner, epoch=claimed.epoch, steps=[CHARGE])
        async with rolled_back(store, Undo) as tx:
            assert await sagas.write(write, tx) is not None

        assert ["input"] == [step.name for step in (await _read(sagas, "a")).steps]

    async def test_a_released_saga_is_due_when_it_said(self, store: Store) -> None:
        """Timers and retries are rows; nothing else remembers them."""
        sagas, owner, claimed = await _claimed(store)
        later = Move(state=SagaState.RUNNING, is_released=True, wake_seconds=60.0, waiting_for="dependency:psp")
        await sagas.write(Write(saga_id=claimed.saga_id, owner=owner, epoch=claimed.epoch, move=later))
        asleep = await sagas.claim(OWN, RUNS, owner, 10)
        nobody = await sagas.wake(OWN, "dependency:other", 10)

        woken = await sagas.wake(OWN, "dependency:psp", 10)
        (again,) = await sagas.claim(OWN, RUNS, owner, 10)

        assert ([], 0, 1) == (list(asleep), nobody, woken)
        assert (claimed.epoch + 1, None) == (again.epoch, again.waiting_for)
        assert await sagas.write(Write(saga_id=claimed.saga_id, owner=owner, epoch=claimed.epoch)) is None

    async def test_a_signal_finds_the_saga_asleep_at_work_and_not_yet_there(self, store: Store) -> None:
        """SA6: whichever commits first, the saga is due; twice the same signal is one."""
        sagas, owner, claimed = await _claimed(store)
        wait = Move(state=SagaState.RUNNING, is_released=True, waiting_for="signal:shipped", signals_seen=0)
        write = Write(saga_id=claimed.saga_id, owner=owner, epoch=claimed.epoch, move=wait)
        at_work = [await sagas.signal(_saga("a"), _signal("m-1"), None) for _ in range(2)]
        await sagas.write(write)
        (again,) = await sagas.claim(OWN, RUNS, owner, 10)
        await sagas.write(replace(write, epoch=again.epoch, move=replace(wait, signals_seen=1)))
        asleep = list(await sagas.claim(OWN, RUNS, owner, 10))
        await sagas.signal(_saga("a"), _signal("m-2"), None)
        (woken,) = await sagas.claim(OWN, RUNS, owner, 10)
        await sagas.signal(_saga("early"), _signal("m-3"), None)
        expected = (await _read(sagas, "early")).saga.state
        early = await sagas.start(_saga("early"), INPUT, None, None)

        assert ([True, False], [], 2) == (at_work, asleep, woken.signals)
        assert ["m-1", "m-2"] == [one.message_id for one in (await _read(sagas, "a")).signals]
        assert (SagaState.EXPECTED, True) == (expected, early)
        assert 1 == (await _read(sagas, "early")).saga.signals

    async def test_a_signal_in_a_transaction_that_is_open_is_not_lost_to_a_release(self, store: Store) -> None:
        """SA6, interleaved: one of the two sees the other."""
        self.needs_overlap()
        sagas, owner, claimed = await _claimed(store)
        wait = Move(state=SagaState.RUNNING, is_released=True, waiting_for="signal:shipped")
        write = Write(saga_id=claimed.saga_id, owner=owner, epoch=claimed.epoch, move=wait)
        async with store.transaction() as tx:
            await sagas.signal(_saga("a"), _signal("m-1"), tx)
            writing = asyncio.ensure_future(sagas.write(write))
            await asyncio.sleep(0.05)
        await writing

        assert ["a"] == [row.key for row in await sagas.claim(OWN, RUNS, owner, 10)]

    async def test_a_signal_and_a_start_that_overlap_both_count(self, store: Store) -> None:
        """SA6, interleaved: whichever comes first waits for the other's commit, and the saga is due with its signal."""
        self.needs_overlap()
        sagas, owner = store.port(Sagas), await _process(store)
        async with store.transaction() as tx:
            await sagas.signal(_saga("a"), _signal("m-1"), tx)
            starting = asyncio.ensure_future(sagas.start(_saga("a"), INPUT, None, None))
            await asyncio.sleep(0.05)
        async with store.transaction() as tx:
            await sagas.start(_saga("b"), INPUT, None, tx)
            signalling = asyncio.ensure_future(sagas.signal(_saga("b"), _signal("m-2"), None))
            await asyncio.sleep(0.05)
        both = (await starting, await signalling)

        claimed = await sagas.claim(OWN, RUNS, owner, 10)

        assert (True, True) == both
        assert [("a", 1), ("b", 1)] == sorted((row.key, row.signals) for row in claimed)

    async def test_sagas_of_a_dead_process_are_rescued_and_those_of_a_live_one_are_not(self, store: Store) -> None:
        """The dead one's late writes do nothing; each further crash waits longer."""
        sagas, live, dying = store.port(Sagas), await _process(store), await _process(store, TINY_LEASE_SECONDS)
        await sagas.start(_saga("a"), INPUT, None, None)
        (claimed,) = await sagas.claim(OWN, RUNS, dying, 1)
        await sagas.start(_saga("b"), INPUT, None, None)
        await sagas.claim(OWN, RUNS, live, 1)

        rescued: list[SagaRow] = []
        async with asyncio.timeout(5):
            while not rescued:
                rescued = list(await sagas.rescue(OWN, DELAYS))
                await asyncio.sleep(0.02)
        late = await sagas.write(Write(saga_id=claimed.saga_id, owner=dying, epoch=claimed.epoch, steps=[CHARGE]))
        (again,) = await sagas.claim(OWN, RUNS, live, 10)
        progress = Write(saga_id=again.saga_id, owner=live, epoch=again.epoch, has_progress=True)

        assert [("a", 1, None)] == [(row.key, row.crashes, row.owner) for row in rescued]
        assert None is late
        assert ("a", 1) == (again.key, again.crashes)
        assert again.epoch > claimed.epoch
        await sagas.write(progress)
        assert 0 == (await _read(sagas, "a")).saga.crashes
        assert [] == list(await sagas.rescue(OWN, DELAYS))

    async def test_what_a_person_decides_fences_the_owner_out(self, store: Store) -> None:
        """Decision and effect are one commit; whoever was at work finds out at its next write."""
        sagas, owner, claimed = await _claimed(store)
        write = Write(saga_id=claimed.saga_id, owner=owner, epoch=claimed.epoch, steps=[CHARGE])
        await sagas.write(replace(write, move=Move(state=SagaState.IN_REVIEW, is_released=True, question="{}")))
        asleep = list(await sagas.claim(OWN, RUNS, owner, 10))
        async with store.transaction() as tx:
            found = await sagas.journal(claimed.saga_id, tx)
            assert found is not None
            landed = replace(CHARGE, state=StepState.SUCCEEDED, output=b"7")
            move = Move(state=SagaState.RUNNING)
            await sagas.decide(Decision(saga_id=claimed.saga_id, move=move, steps=[landed], crashes=0), tx)

        (again,) = await sagas.claim(OWN, RUNS, owner, 10)

        assert ([], "{}", None) == (asleep, found.saga.question, again.question)
        assert again.epoch >= claimed.epoch + 2
        assert [b'{"n":1}', b"7"] == [step.output for step in (await _read(sagas, "a")).steps]

    async def test_of_two_who_answer_at_once_one_moves_the_saga(self, store: Store) -> None:
        """RV1: the question, its item, the answer and what follows from it are two commits; the epoch rises once."""
        sagas, owner, claimed = await _claimed(store)
        asking = Asking(store.port(Reviews), clock=CLOCK, ids=IDS)
        question = Question(kind=Kind.UNKNOWN_OUTCOME, text="Did it land?", phase=Phase.DO, step="charge", item="1")
        async with store.transaction() as tx:
            review = await asking.open(tx, claimed, question)
            move = Move(state=SagaState.IN_REVIEW, is_released=True, question=written(question, review))
            write = Write(saga_id=claimed.saga_id, owner=owner, epoch=claimed.epoch, steps=[CHARGE], move=move)
            assert await sagas.write(write, tx)
        actions = Actions()
        Decisions(store, asking, Definitions()).register(actions)
        units = UnitsOfWork(store, Publisher(store, source=OWN, clock=CLOCK, ids=IDS))
        desk = Desk(Tools(store=store, units=units, actions=actions, clock=CLOCK))

        answers = {"landed": {"output": 7}, "not_landed": {}}
        both = [desk.resolve(review, one, actor="ann", reason="looked", values=given) for one, given in answers.items()]
        ended = await asyncio.gather(*both, return_exceptions=True)

        found = await _read(sagas, "a")
        assert 1 == sum(isinstance(one, Conflict) for one in ended)
        assert (SagaState.RUNNING, claimed.epoch + 1, None) == (
            *(found.saga.state, found.saga.epoch),
            found.saga.question,
        )
        charge = found.steps[1]
        is_landed = charge.state is StepState.SUCCEEDED
        assert (b"7" if is_landed else None) == charge.output
        assert ["landed" if is_landed else "not_landed"] == [one["action"] for one in ended if isinstance(one, dict)]

    async def test_a_cancel_reaches_the_owner_or_wakes_the_saga(self, store: Store) -> None:
        """It is seen at the next write."""
        sagas, owner, claimed = await _claimed(store)
        async with store.transaction() as tx:
            await sagas.journal(claimed.saga_id, tx)
            move = Move(state=SagaState.RUNNING)
            await sagas.decide(Decision(saga_id=claimed.saga_id, move=move, is_cancel_requested=True), tx)
        (again,) = await sagas.claim(OWN, RUNS, owner, 10)
        seen = await sagas.write(Write(saga_id=again.saga_id, owner=owner, epoch=again.epoch, steps=[CHARGE]))

        assert again.is_cancel_requested
        assert seen is not None
        assert seen.is_cancel_requested

    async def test_what_lives_is_counted_with_what_it_has_begun_and_waits_for(self, store: Store) -> None:
        """What a deploy must know before it takes code away."""
        sagas, owner, claimed = await _claimed(store)
        undo = replace(CHARGE, phase=Phase.COMPENSATE)
        move = Move(state=SagaState.RUNNING, is_released=True, wake_seconds=5.0, waiting_for=STRANGE)
        write = Write(saga_id=claimed.saga_id, owner=owner, epoch=claimed.epoch, steps=[CHARGE, undo], move=move)
        await sagas.write(write)
        await sagas.start(_saga("b", version=2), INPUT, None, None)

        first, second = sorted(await sagas.counts(OWN), key=lambda count: count.version)

        assert [("order", 1, "charge", 1)] == [(b.name, b.version, b.step, b.sagas) for b in await sagas.begun(OWN)]
        assert [(1, 0.0), (0, True)] == [
            (first.strange, first.late_seconds),
            (second.strange, second.late_seconds >= 0),
        ]

    async def test_an_end_is_counted_no_more_and_forgotten_by_age(self, store: Store) -> None:
        """What is over keeps its row, so that a duplicate of its start runs nothing."""
        sagas, owner, claimed = await _claimed(store)
        await sagas.start(_saga("b"), INPUT, None, None)
        before = await sagas.counts(OWN)
        over = Move(state=SagaState.COMPLETED, is_released=True)
        await sagas.write(Write(saga_id=claimed.saga_id, owner=owner, epoch=claimed.epoch, move=over))
        found = await sagas.search(SagaFilter(service=OWN, name="order", state=SagaState.COMPLETED))

        (count,) = before
        assert ("order", 1, SagaState.RUNNING, 2, 0) == (
            *(count.name, count.version, count.state, count.sagas),
            count.strange,
        )
        assert count.oldest_at is not None
        assert 0 <= count.late_seconds < 60
        assert [1] == [count.sagas for count in await sagas.counts(OWN)]
        assert ["a"] == [row.key for row in found]
        assert not await sagas.start(_saga("a"), INPUT, None, None)
        await store.retention.prune(lambda rule: -1.0 if rule.table == "saga" else 1e9, 100)
        assert None is await sagas.journal(claimed.saga_id)
        assert await sagas.journal(_saga("b").saga_id) is not None


def _saga(key: str, version: int = 1) -> SagaRow:
    return SagaRow(saga_id=derived_id(OWN, "order", key), service=OWN, name="order", version=version, key=key)


def _signal(id: str) -> Signal:
    return Signal(message_id=id, type="shipped", body=b"{}")


async def _process(store: Store, seconds: float = LEASE_SECONDS) -> UUID:
    process = Process(id=IDS.uuid7(), service=OWN, host="h", pid=1, roles=())
    assert await store.leases.beat(process, seconds)
    return process.id


async def _claimed(store: Store) -> tuple[Sagas, UUID, SagaRow]:
    sagas, owner = store.port(Sagas), await _process(store)
    await sagas.start(_saga("a"), INPUT, None, None)
    (claimed,) = await sagas.claim(OWN, RUNS, owner, 10)
    return sagas, owner, claimed


async def _read(sagas: Sagas, key: str) -> Journal:
    found = await sagas.journal(_saga(key).saga_id)
    assert found is not None
    return found
