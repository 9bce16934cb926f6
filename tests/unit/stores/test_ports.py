"""Further ports: a feature asks its store for one by type, and no store knows it by name."""

from __future__ import annotations

import pytest

from spoolproof.clock import SystemClock
from spoolproof.errors import InvariantViolated
from spoolproof.ids import Ids
from spoolproof.ports.inbox import Inbox
from spoolproof.ports.state import State
from spoolproof.stores.memory import MemoryStore


def memory_store(*ports: str) -> MemoryStore:
    clock = SystemClock()
    return MemoryStore(clock=clock, ids=Ids(clock), outbox_rows_max=10, ports=ports)


async def test_a_listed_port_is_one_adapter_on_the_stores_own_engine() -> None:
    """Two features that ask must share what the adapter keeps in memory."""
    store = memory_store("state.State")
    await store.start()

    port = store.port(State)
    await port.put("kind", "name", b"1")

    assert port is store.port(State)
    assert await store.state.get("kind", "name") is not None


def test_a_port_that_wiring_does_not_list_is_refused_by_its_name() -> None:
    """The remedy is one line, and the error says where."""
    with pytest.raises(InvariantViolated, match=r"no store has the port inbox\.Inbox; name it in wiring\.PORTS"):
        memory_store("state.State").port(Inbox)


async def test_a_table_of_a_further_port_commits_and_rolls_back_with_the_rest() -> None:
    """A saga's step and its outbox rows are one, in tests as on a database."""
    store = memory_store()
    await store.start()
    async with store.transaction() as tx:
        tx.table("saga")["kept"] = 1
        with pytest.raises(RuntimeError):
            async with tx.savepoint():
                tx.table("saga")["undone"] = 2
                raise RuntimeError
    with pytest.raises(RuntimeError):
        async with store.transaction() as tx:
            tx.table("saga")["lost"] = 3
            raise RuntimeError

    assert {"kept": 1} == store.table("saga")
