"""Two processes on one file: each item is one person's, and decided once."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from spoolproof.clock import SystemClock
from spoolproof.errors import Conflict
from spoolproof.ids import Ids
from spoolproof.stores.sqlite import SqliteStore
from spoolproof.testing.conformance.reviews import a_desk, an_item
from spoolproof.wiring import PORTS

ITEMS = 12


async def test_of_two_processes_one_has_each_item(tmp_path: Path) -> None:
    """SQLite lets one write at a time; whoever comes second sees what the first has written."""
    async with AsyncExitStack() as closing:
        stores = []
        for _ in range(2):
            clock = SystemClock()
            store = SqliteStore(tmp_path / "store.db", clock=clock, ids=Ids(clock), outbox_rows_max=1000, ports=PORTS)
            await store.start()
            closing.push_async_callback(store.stop)
            await store.migrations.apply()
            stores.append(store)
        ids = [(await an_item(stores[0], f"o-{n}")).id for n in range(ITEMS)]
        done: list[str] = []
        desks = {name: a_desk(store, done) for name, store in zip(("ann", "bob"), stores, strict=True)}

        claims = await asyncio.gather(
            *(desk.claim(id, actor=name) for id in ids for name, desk in desks.items()), return_exceptions=True
        )
        ended = await asyncio.gather(
            *(desk.resolve(id, "approve", actor=name, reason="mine") for id in ids for name, desk in desks.items()),
            return_exceptions=True,
        )

        for results in (claims, ended):
            assert ITEMS == sum(isinstance(one, dict) for one in results)
            assert ITEMS == sum(isinstance(one, Conflict) for one in results)
        assert sorted(done) == sorted(f"o-{n}" for n in range(ITEMS))
        assert {"checked": ITEMS, "faults": []} == await desks["bob"].verify()
