"""The contract of `ports.retention.Retention`, and the rules of the ports that every store has."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from spoolproof.ports.dead_letters import DeadLetterFilter, DeadLetterState
from spoolproof.ports.leases import Process
from spoolproof.ports.retention import Rule
from spoolproof.ports.state import SUSPECT
from spoolproof.ports.store import Store
from spoolproof.testing.conformance._messages import IDS, make_dead_letter
from spoolproof.testing.conformance._store import LEASE_SECONDS, TINY_LEASE_SECONDS, StoreSuite
from spoolproof.testing.conformance._wait import eventually

_DAY = 86400.0


@pytest.mark.asyncio
class RetentionConformance(StoreSuite):
    """Needs the fixture `store`."""

    async def test_what_is_young_stays(self, store: Store) -> None:
        """Forgotten too soon, a duplicate would have a second effect."""
        await _handle(store, 3)
        await _close(store)

        assert 0 == await store.retention.prune(_ages(), limit=100)
        assert await store.inbox.contains("orders", "m0")

    async def test_old_inbox_rows_go_at_most_so_many_at_once(self, store: Store) -> None:
        """One huge DELETE would block everybody."""
        await _handle(store, 5)
        deleted: list[int] = []

        async def are_gone() -> bool:
            deleted.append(await store.retention.prune(_ages(inbox=0.0), limit=2))
            return sum(deleted) == 5

        await eventually(are_gone)
        assert max(deleted) <= 2
        assert not await store.inbox.contains("orders", "m0")

    async def test_closed_dead_letters_go_and_open_ones_never_do(self, store: Store) -> None:
        """Nothing expires while it is open, nor while its replay is under way."""
        kept = await _close(store)
        deleted: list[int] = []

        async def are_gone() -> bool:
            deleted.append(await store.retention.prune(_ages(dead_letter=0.0), limit=1))
            return sum(deleted) == 2

        await eventually(are_gone)
        found = await store.dead_letters.search(DeadLetterFilter())
        assert max(deleted) == 1
        assert kept == {record.state: record.id for record in found}
        assert 0 == await store.retention.prune(_ages(dead_letter=0.0), limit=100)

    async def test_the_record_of_a_run_that_never_came_again_goes_and_other_facts_stay(self, store: Store) -> None:
        """Nothing else ends it; an open breaker must not go with it."""
        await store.state.put(SUSPECT, "m0", b"[]")
        await store.state.put("breaker/shop", "psp", b"{}")

        assert 0 == await store.retention.prune(_ages(), limit=100)
        await eventually(lambda: _is_one(store.retention.prune(_ages(state=0.0), limit=100)))

        assert {} == await store.state.all(SUSPECT)
        assert ["psp"] == list(await store.state.all("breaker/shop"))

    async def test_processes_that_are_long_gone_are_forgotten(self, store: Store) -> None:
        """Each start adds one."""
        gone, alive = (Process(id=IDS.uuid7(), service="s", host="h", pid=1, roles=()) for _ in range(2))
        await store.leases.beat(gone, TINY_LEASE_SECONDS)
        await store.leases.beat(alive, LEASE_SECONDS)

        assert 0 == await store.retention.prune(_ages(), limit=100)
        await eventually(lambda: _is_one(store.retention.prune(_ages(process=0.0), limit=100)))

        assert [alive.id] == [process.id for process in await store.leases.processes()]


def _ages(**seconds: float) -> Callable[[Rule], float]:
    """Return the age of each rule's rows by table: a day where none is given."""
    return lambda rule: seconds.get(rule.table, _DAY)


async def _is_one(pruned: Awaitable[int]) -> bool:
    return await pruned == 1


async def _handle(store: Store, count: int) -> None:
    async with store.transaction() as tx:
        for number in range(count):
            await store.inbox.record(tx, "orders", f"m{number}")


async def _close(store: Store) -> dict[DeadLetterState, str]:
    """Keep one dead letter per state; returns the ids of those that are not closed."""
    opened, replaying, discarded, resolved = (make_dead_letter() for _ in range(4))
    for record in (opened, replaying, discarded, resolved):
        await store.dead_letters.add(record)
    await store.dead_letters.replay(replaying.id, "ann", "fixed")
    await store.dead_letters.discard(discarded.id, "ann", "spam")
    async with store.transaction() as tx:
        await store.dead_letters.resolve(tx, resolved.consumer, resolved.message)
    return {DeadLetterState.OPEN: opened.id, DeadLetterState.REPLAYING: replaying.id}
