"""The PostgreSQL store keeps the contract of every store port, on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from spoolproof.ports.store import Store
from spoolproof.stores.postgres import PostgresStore
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
from spoolproof.testing.stores import postgres_store

pytestmark = pytest.mark.servers


class OnPostgres:
    @pytest.fixture
    async def store(self, postgres_url: str) -> AsyncIterator[PostgresStore]:
        async with postgres_store(postgres_url) as store:
            yield store


class TestOutbox(OnPostgres, OutboxConformance):
    @pytest.fixture
    async def small_store(self, postgres_url: str) -> AsyncIterator[PostgresStore]:
        async with postgres_store(postgres_url, outbox_rows_max=3) as store:
            yield store


class TestEffectKeys(OnPostgres, EffectKeysConformance):
    pass


class TestHeldKeys(OnPostgres, HeldKeysConformance):
    pass


class TestInbox(OnPostgres, InboxConformance):
    pass


class TestBulks(OnPostgres, BulksConformance):
    pass


class TestDeadLetters(OnPostgres, DeadLettersConformance):
    pass


class TestLeases(OnPostgres, LeasesConformance):
    pass


class TestTransaction(OnPostgres, TransactionConformance):
    @asynccontextmanager
    async def user_transaction(self, store: Store) -> AsyncIterator[object]:
        assert isinstance(store, PostgresStore)
        connection = await asyncpg.connect(store.work._url)
        try:
            async with connection.transaction():
                yield connection
        finally:
            await connection.close()


class TestMigrations(OnPostgres, MigrationsConformance):
    @pytest.fixture
    async def blank_store(self, postgres_url: str) -> AsyncIterator[PostgresStore]:
        async with postgres_store(postgres_url, migrate=False) as store:
            yield store


class TestRetention(OnPostgres, RetentionConformance):
    pass


class TestSagas(OnPostgres, SagasConformance):
    pass


class TestReviews(OnPostgres, ReviewsConformance):
    pass


class TestSchedule(OnPostgres, ScheduleConformance):
    pass


class TestAudit(OnPostgres, AuditConformance):
    pass


class TestBatches(OnPostgres, BatchesConformance):
    pass


class TestReconciliations(OnPostgres, ReconciliationsConformance):
    pass


class TestRecurring(OnPostgres, RecurringConformance):
    pass


class TestServices(OnPostgres, ServicesConformance):
    pass


class TestState(OnPostgres, StateConformance):
    pass


class TestTriage(OnPostgres, TriageConformance):
    pass


class TestValues(OnPostgres, ValuesConformance):
    pass


class TestWakeUp(OnPostgres, WakeUpConformance):
    pass


class TestWebhooks(OnPostgres, WebhooksConformance):
    pass
