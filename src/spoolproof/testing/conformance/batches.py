"""The contract of `ports.batches.Batches`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import timedelta

import pytest
from msgspec.structs import replace

from spoolproof.ports.batches import FINAL, Batch, Batches, BatchState, Item, ItemState
from spoolproof.ports.store import Store
from spoolproof.testing.conformance._messages import CLOCK, IDS
from spoolproof.testing.conformance._store import StoreSuite, rolled_back
from spoolproof.testing.conformance._wait import eventually

OWN, JOB = "conformance", "image.resize"
OPEN = tuple(state for state in ItemState if state not in FINAL)


def a_batch(total: int, **given: object) -> Batch:
    """Return a batch that nobody has submitted."""
    named = {"service": OWN, "job": JOB, "started_at": CLOCK.now(), **given}
    return Batch(id=IDS.message_id(), total=total, **named)  # type: ignore[arg-type]


def items_of(batch: Batch) -> list[tuple[Item, str]]:
    """Return its items, all of them pending, with payloads."""
    return [
        (Item(n=n, id=f"i-{n}", state=ItemState.PENDING, reason="queued"), f'{{"n":{n}}}') for n in range(batch.total)
    ]


async def kept(store: Store, batch: Batch) -> Batches:
    """Submit a batch; returns the port."""
    port = store.port(Batches)
    async with store.transaction() as tx:
        assert await port.add(tx, batch, items_of(batch))
    return port


@pytest.mark.asyncio
class BatchesConformance(StoreSuite):
    """Needs the fixture `store`, made with the ports of `wiring`."""

    async def test_a_batch_is_there_once_and_with_all_its_items(self, store: Store) -> None:
        """More than one statement takes, written with the caller's transaction or not at all."""
        port, batch = store.port(Batches), a_batch(1203)
        async with rolled_back(store) as tx:
            assert await port.add(tx, batch, items_of(batch))
        assert await port.get(batch.id) is None
        await kept(store, batch)
        async with store.transaction() as tx:
            assert not await port.add(tx, batch, items_of(batch))

        found = await port.get(batch.id)

        assert (batch, {**dict.fromkeys(ItemState, 0), ItemState.PENDING: 1203}) == found
        pages = [await port.items(batch.id, tuple(ItemState), after=after) for after in (-1, 999)]
        assert items_of(batch) == [*pages[0], *pages[1]]
        assert [] == list(await port.items(batch.id, [ItemState.FAILED]))
        assert (BatchState.RUNNING, ItemState.PENDING) == await port.standing(batch.id, 7)
        assert await port.standing(batch.id, 1203) is None

    async def test_an_item_moves_only_from_where_it_may(self, store: Store) -> None:
        batch = a_batch(2)
        port = await kept(store, batch)
        done = Item(n=0, id="i-0", state=ItemState.SUCCEEDED, attempts=2, seconds=0.5, value={"w": [1, None]})
        failed = Item(n=0, id="i-0", state=ItemState.FAILED, error_class="ValueError", error="\N{SNOWMAN}")
        async with rolled_back(store) as tx:
            await port.put(tx, batch.id, done, before=OPEN)
        async with store.transaction() as tx:
            assert await port.put(tx, batch.id, failed, before=OPEN)
            assert not await port.put(tx, batch.id, done, before=[ItemState.PENDING])
            assert await port.put(tx, batch.id, done, before=OPEN)
            assert not await port.put(tx, batch.id, failed, before=OPEN)
            assert not await port.put(tx, batch.id, replace(done, n=2), before=OPEN)

        ((found, body),) = await port.items(batch.id, [ItemState.SUCCEEDED])

        assert ('{"n":0}', done) == (body, found)

    async def test_a_batch_ends_when_nothing_of_it_is_pending(self, store: Store) -> None:
        """Whoever sees the last item end asks; one ends it."""
        batch, other = a_batch(2), a_batch(1, service="other")
        port = await kept(store, batch)
        await kept(store, other)
        done, unknown = (
            Item(n=n, id=f"i-{n}", state=state) for n, state in enumerate((ItemState.SUCCEEDED, ItemState.UNKNOWN))
        )
        async with store.transaction() as tx:
            await port.put(tx, batch.id, done, before=OPEN)
            assert await port.end(tx, batch.id) is None
            await port.put(tx, batch.id, unknown, before=OPEN)
        assert [batch.id] == list(await port.over(OWN, 10))

        async def end() -> Batch | None:
            async with store.transaction() as tx:
                return await port.end(tx, batch.id)

        ended = [one for one in await asyncio.gather(end(), end(), end()) if one is not None]

        assert [(batch.id, BatchState.FINISHED, True)] == [
            (one.id, one.state, one.finished_at is not None) for one in ended
        ]
        assert [] == list(await port.over(OWN, 10))
        assert {(JOB, BatchState.FINISHED): 1} == dict(await port.counts(OWN))
        assert [batch.id] == [one.id for one in await port.search(service=OWN, state=BatchState.FINISHED)]
        assert [] == list(await port.search(service=OWN, job="another"))
        assert {batch.id, other.id} == {one.id for one in await port.search()}

    async def test_a_cancelled_batch_may_run_again(self, store: Store) -> None:
        batch = a_batch(2)
        port, now = await kept(store, batch), CLOCK.now()
        failed = Item(n=1, id="i-1", state=ItemState.FAILED, error="it was so")
        async with store.transaction() as tx:
            await port.put(tx, batch.id, failed, before=OPEN)
            assert await port.end(tx, batch.id, cancel=True)
            assert await port.end(tx, batch.id, cancel=True) is None
        assert (BatchState.CANCELLED, ItemState.PENDING) == await port.standing(batch.id, 0)

        later = now + timedelta(hours=1)
        async with store.transaction() as tx:
            await port.reopen(tx, batch.id, later, [ItemState.FAILED])

        found = await port.get(batch.id)
        assert found is not None
        assert (BatchState.RUNNING, later, None) == (found[0].state, found[0].started_at, found[0].finished_at)
        again = await port.items(batch.id, [ItemState.PENDING])
        assert [items_of(batch)[0][0], replace(failed, state=ItemState.PENDING)] == [item for item, _ in again]

    async def test_reports_are_deleted_by_age_and_never_in_part(self, store: Store) -> None:
        """What runs stays; items go after their batch."""
        running, ended = a_batch(1), a_batch(1)
        port = await kept(store, running)
        await kept(store, ended)
        async with store.transaction() as tx:
            await port.end(tx, ended.id, cancel=True)

        def ages(items: float) -> object:
            return lambda rule: {"batch": 0.0, "batch_item": items}.get(rule.table, 10 * 86_400.0)

        await eventually(lambda: _is_one(store.retention.prune(ages(86_400.0), limit=10)))  # type: ignore[arg-type]
        assert await port.get(ended.id) is None
        assert 1 == await store.retention.prune(ages(0.0), limit=10)  # type: ignore[arg-type]
        assert 0 == await store.retention.prune(ages(0.0), limit=10)  # type: ignore[arg-type]
        assert await port.get(running.id) is not None


async def _is_one(pruned: Awaitable[int]) -> bool:
    return await pruned == 1
