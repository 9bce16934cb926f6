"""The SQLite store keeps the contract of every store port, on a real file."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

import pytest

from spoolproof.clock import SystemClock
from spoolproof.ids import Ids
from spoolproof.ports.store import Store
from spoolproof.stores.sqlite import SqliteStore
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


@asynccontextmanager
async def sqlite_store(
    path: Path, *, outbox_rows_max: int = 100_000, is_migrated: bool = True
) -> AsyncIterator[SqliteStore]:
    clock = SystemClock()
    store = SqliteStore(path, clock=clock, ids=Ids(clock), outbox_rows_max=outbox_rows_max, ports=PORTS)
    await store.start()
    try:
        if is_migrated:
            await store.migrations.apply()
        yield store
    finally:
        await store.stop()


class OnSqlite:
    transactions_overlap = False

    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[SqliteStore]:
        async with sqlite_store(tmp_path / "store.db") as store:
            yield store


class TestOutbox(OnSqlite, OutboxConformance):
    @pytest.fixture
    async def small_store(self, tmp_path: Path) -> AsyncIterator[SqliteStore]:
        async with sqlite_store(tmp_path / "small.db", outbox_rows_max=3) as store:
            yield store


class TestEffectKeys(OnSqlite, EffectKeysConformance):
    pass


class TestHeldKeys(OnSqlite, HeldKeysConformance):
    pass


class TestInbox(OnSqlite, InboxConformance):
    pass


class TestBulks(OnSqlite, BulksConformance):
    pass


class TestDeadLetters(OnSqlite, DeadLettersConformance):
    pass


class TestLeases(OnSqlite, LeasesConformance):
    pass


class TestTransaction(OnSqlite, TransactionConformance):
    @asynccontextmanager
    async def user_transaction(self, store: Store) -> AsyncIterator[object]:
        with _users_transaction(Path(store.name.removeprefix("sqlite:///"))) as connection:
            yield connection


class TestMigrations(OnSqlite, MigrationsConformance):
    @pytest.fixture
    async def blank_store(self, tmp_path: Path) -> AsyncIterator[SqliteStore]:
        async with sqlite_store(tmp_path / "blank.db", is_migrated=False) as store:
            yield store


class TestRetention(OnSqlite, RetentionConformance):
    pass


class TestSagas(OnSqlite, SagasConformance):
    pass


class TestReviews(OnSqlite, ReviewsConformance):
    pass


class TestSchedule(OnSqlite, ScheduleConformance):
    pass


class TestAudit(OnSqlite, AuditConformance):
    pass


class TestBatches(OnSqlite, BatchesConformance):
    pass


class TestReconciliations(OnSqlite, ReconciliationsConformance):
    pass


class TestRecurring(OnSqlite, RecurringConformance):
    pass


class TestServices(OnSqlite, ServicesConformance):
    pass


class TestState(OnSqlite, StateConformance):
    pass


class TestTriage(OnSqlite, TriageConformance):
    pass


class TestValues(OnSqlite, ValuesConformance):
    pass


class TestWakeUp(OnSqlite, WakeUpConformance):
    pass


@contextmanager
def _users_transaction(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("begin immediate")
        yield connection


class TestWebhooks(OnSqlite, WebhooksConformance):
    pass
