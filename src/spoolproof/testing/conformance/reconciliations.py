"""The contract of `ports.reconciliations.Reconciliations`."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from msgspec.structs import replace

from spoolproof.ports.reconciliations import Difference, Mark, Phase, Reconciliations, Run, Verdict
from spoolproof.ports.store import Store
from spoolproof.testing.conformance._messages import CLOCK, IDS
from spoolproof.testing.conformance._store import StoreSuite, rolled_back

OWN, NAME = "conformance", "orders"


def a_run() -> Run:
    """Return a run that has done nothing."""
    now = CLOCK.now()
    return Run(id=IDS.message_id(), service=OWN, reconciler=NAME, started_at=now, touched_at=now)


@pytest.mark.asyncio
class ReconciliationsConformance(StoreSuite):
    """Needs the fixture `store`, made with the ports of `wiring`."""

    async def test_a_key_that_is_marked_while_it_is_checked_is_checked_again(self, store: Store) -> None:
        """What was seen before the second mark says nothing about it."""
        port, now = store.port(Reconciliations), CLOCK.now()
        async with rolled_back(store) as tx:
            await port.mark(tx, OWN, NAME, "gone", now)
        async with store.transaction() as tx:
            await port.mark(tx, OWN, NAME, "k-1", now)
            await port.mark(tx, "other", NAME, "k-1", now)
        (mark,) = await port.due(OWN, now, 10)
        assert Mark(NAME, "k-1", 1, 0) == mark
        async with store.transaction() as tx:
            await port.mark(tx, OWN, NAME, "k-1", now)

        assert not await port.settle(OWN, mark)
        await port.delay(OWN, mark, now + timedelta(hours=1), "failed")
        (again,) = await port.due(OWN, now, 10)
        assert Mark(NAME, "k-1", 2, 0) == again
        assert await port.settle(OWN, again)
        assert {("other", NAME): 1} == dict(await port.marks(None))
        assert {} == dict(await port.marks(OWN))

    async def test_a_mark_in_a_transaction_that_is_open_is_not_lost_to_the_end_of_its_check(self, store: Store) -> None:
        """SA6, interleaved: the check that ends meanwhile waits, and does not forget what it has not seen."""
        self.needs_overlap()
        port, now = store.port(Reconciliations), CLOCK.now()
        async with store.transaction() as tx:
            await port.mark(tx, OWN, NAME, "k-1", now)
        (mark,) = await port.due(OWN, now, 10)
        async with store.transaction() as tx:
            await port.mark(tx, OWN, NAME, "k-1", now)
            settling = asyncio.ensure_future(port.settle(OWN, mark))
            await asyncio.sleep(0.05)

        assert not await settling
        assert ["k-1"] == [one.key for one in await port.due(OWN, now, 10)]

    async def test_what_was_put_off_is_due_later_or_when_woken(self, store: Store) -> None:
        port, now = store.port(Reconciliations), CLOCK.now()
        async with store.transaction() as tx:
            for key in ("k-1", "k-2"):
                await port.mark(tx, OWN, NAME, key, now)
        for mark in await port.due(OWN, now, 10):
            await port.delay(OWN, mark, now + timedelta(hours=1), "failed" if mark.key == "k-1" else "")

        assert [] == list(await port.due(OWN, now, 10))
        assert [1, 0] == [mark.failures for mark in await port.due(OWN, now + timedelta(hours=2), 10)]
        assert 0 == await port.wake(OWN, "another", now)
        assert 2 == await port.wake(OWN, NAME, now)
        assert ["k-1"] == [mark.key for mark in await port.due(OWN, now, 1)]

    async def test_one_run_is_unfinished_and_a_step_is_one_process_s(self, store: Store) -> None:
        """Of two that read the same version one writes; the other finds out, and what it did with it is undone."""
        port, run = store.port(Reconciliations), a_run()
        async with store.transaction() as tx:
            assert await port.start(tx, run)
            assert not await port.start(tx, a_run())
        found = Difference(key="k", ours="a", theirs=1, to=None, verdict=Verdict.UNMAPPED)
        step = replace(run, seen=1, position="k", differences=(found,), skipped={"gone": 1})
        async with store.transaction() as tx:
            assert await port.write(tx, step)
        async with store.transaction() as tx:
            assert not await port.write(tx, replace(step, seen=9))
        assert replace(step, version=1) == await port.get(run.id)

        over = replace(step, version=1, phase=Phase.FINISHED, finished_at=CLOCK.now())
        second = a_run()
        async with store.transaction() as tx:
            assert await port.write(tx, over)
            assert await port.start(tx, second)

        assert [second.id, run.id] == [one.id for one in await port.runs(OWN, NAME, 10)]
        assert [] == list(await port.runs(None, "another", 10))
        assert await port.get("none") is None

    async def test_old_runs_go(self, store: Store) -> None:
        port = store.port(Reconciliations)
        async with store.transaction() as tx:
            await port.start(tx, run := a_run())
            await port.write(tx, replace(run, finished_at=CLOCK.now()))
            await port.start(tx, unfinished := a_run())

        await store.retention.prune(lambda rule: -1.0 if rule.table == "reconciliation_run" else 1e9, limit=10)

        assert [unfinished.id] == [one.id for one in await port.runs(OWN, NAME, 10)]
