"""The memory store keeps every contract of a store, by the ports' own suites; and what only it has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

import pytest

from spoolproof.clock import SystemClock
from spoolproof.errors import NotInTransaction, WrongDatabase
from spoolproof.ids import Ids
from spoolproof.ports.store import Store
from spoolproof.stores.memory import MemoryStore
from spoolproof.testing.conformance import (
    AuditConformance,
    BatchesConformance,
    BulksConformance,
    DeadLettersConformance,
    EffectKeysConformance,
    HeldKeysConformance,
    InboxConformance,
    LeasesConformance,
    MigrationsConformance,
    OutboxConformance,
    ReconciliationsConformance,
    RecurringConformance,
    RetentionConformance,
    ReviewsConformance,
    SagasConformance,
    ScheduleConformance,
    ServicesConformance,
    StateConformance,
    TransactionConformance,
    TriageConformance,
    ValuesConformance,
    WakeUpConformance,
    WebhooksConformance,
)
from spoolproof.wiring import PORTS


async def _started(outbox_rows_max: int) -> AsyncIterator[MemoryStore]:
    clock = SystemClock()
    store = MemoryStore(clock=clock, ids=Ids(clock), outbox_rows_max=outbox_rows_max, ports=PORTS)
    await store.start()
    yield store
    await store.stop()


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async for started in _started(outbox_rows_max=10_000):
        yield started


@pytest.fixture
async def other_store() -> AsyncIterator[Store]:
    async for started in _started(outbox_rows_max=10_000):
        yield started


class _Memory:
    has_sql = False
    transactions_overlap = False


class TestOutbox(_Memory, OutboxConformance):
    @pytest.fixture
    async def small_store(self) -> AsyncIterator[Store]:
        async for started in _started(outbox_rows_max=3):
            yield started


class TestEffectKeys(_Memory, EffectKeysConformance):
    pass


class TestHeldKeys(_Memory, HeldKeysConformance):
    pass


class TestInbox(_Memory, InboxConformance):
    pass


class TestBulks(_Memory, BulksConformance):
    pass


class TestDeadLetters(_Memory, DeadLettersConformance):
    pass


class TestLeases(_Memory, LeasesConformance):
    pass


class TestMigrations(_Memory, MigrationsConformance):
    pass


class TestRetention(_Memory, RetentionConformance):
    pass


class TestSagas(_Memory, SagasConformance):
    pass


class TestReviews(_Memory, ReviewsConformance):
    pass


class TestSchedule(_Memory, ScheduleConformance):
    pass


class TestAudit(_Memory, AuditConformance):
    pass


class TestBatches(_Memory, BatchesConformance):
    pass


class TestReconciliations(_Memory, ReconciliationsConformance):
    pass


class TestRecurring(_Memory, RecurringConformance):
    pass


class TestServices(_Memory, ServicesConformance):
    pass


class TestState(_Memory, StateConformance):
    pass


class TestTriage(_Memory, TriageConformance):
    pass


class TestValues(_Memory, ValuesConformance):
    pass


class TestWakeUp(_Memory, WakeUpConformance):
    pass


class TestTransaction(_Memory, TransactionConformance):
    def user_transaction(self, store: Store) -> AbstractAsyncContextManager[object]:
        return store.transaction()


async def test_business_rows_in_raw_commit_and_roll_back_with_the_rest(store: MemoryStore) -> None:
    """A handler can be tested without a database; also a change deep inside a value is undone."""
    async with store.transaction() as tx:
        tx.raw["orders"] = {"o1": ["placed"]}

    async def pay() -> None:
        async with store.transaction() as tx:
            tx.raw["orders"]["o1"].append("paid")
            raise RuntimeError("card declined")

    with pytest.raises(RuntimeError, match="card declined"):
        await pay()

    async with store.transaction() as tx:
        assert {"orders": {"o1": ["placed"]}} == tx.raw


async def test_a_statement_is_refused_with_what_to_do_instead(store: MemoryStore) -> None:
    """A handler with SQL under test must not seem to work."""
    async with store.transaction() as tx:
        with pytest.raises(NotImplementedError, match=r"insert into payments.*tx\.raw"):
            await tx.execute("insert into payments values ($1)", 1)
        with pytest.raises(NotImplementedError, match="SPOOLPROOF_STORE"):
            await tx.fetch("select 1")


async def test_a_transaction_that_has_ended_or_is_anothers_is_refused(
    store: MemoryStore, other_store: MemoryStore
) -> None:
    """What is written through it would be lost."""
    async with store.transaction() as ended:
        pass

    with pytest.raises(NotInTransaction):
        await store.adopt(ended)
    async with other_store.transaction() as tx:
        with pytest.raises(WrongDatabase, match=store.name):
            await store.adopt(tx)


class TestWebhooks(_Memory, WebhooksConformance):
    pass
