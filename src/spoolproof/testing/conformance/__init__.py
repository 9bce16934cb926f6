"""The contracts of the ports as test classes: subclass one, provide its fixture, and pytest runs it on your adapter.

    class TestMyStoreOutbox(OutboxConformance):
        @pytest.fixture
        async def store(self) -> AsyncIterator[Store]: ...   # started, migrated, empty; stopped afterwards

Store suites need the fixture `store`, BrokerConformance the fixture `brokers` (see `Brokers`), SharedCacheConformance
`connect`. What an adapter does not
claim (`Capabilities`; for stores `has_sql`, `transactions_overlap`) is skipped with that reason. Needs pytest,
pytest-asyncio and hypothesis.
"""

from __future__ import annotations

from spoolproof.testing.conformance._broker import Brokers
from spoolproof.testing.conformance._wait import eventually, holds_for
from spoolproof.testing.conformance.audit import AuditConformance
from spoolproof.testing.conformance.batches import BatchesConformance
from spoolproof.testing.conformance.broker import BrokerConformance
from spoolproof.testing.conformance.bulk import BulksConformance
from spoolproof.testing.conformance.dead_letters import DeadLettersConformance
from spoolproof.testing.conformance.effect_keys import EffectKeysConformance
from spoolproof.testing.conformance.held_keys import HeldKeysConformance
from spoolproof.testing.conformance.inbox import InboxConformance
from spoolproof.testing.conformance.leases import LeasesConformance
from spoolproof.testing.conformance.migrations import MigrationsConformance
from spoolproof.testing.conformance.outbox import OutboxConformance
from spoolproof.testing.conformance.reconciliations import ReconciliationsConformance
from spoolproof.testing.conformance.recurring import RecurringConformance
from spoolproof.testing.conformance.retention import RetentionConformance
from spoolproof.testing.conformance.reviews import ReviewsConformance
from spoolproof.testing.conformance.sagas import SagasConformance
from spoolproof.testing.conformance.schedule import ScheduleConformance
from spoolproof.testing.conformance.services import ServicesConformance
from spoolproof.testing.conformance.shared_cache import SharedCacheConformance
from spoolproof.testing.conformance.state import StateConformance
from spoolproof.testing.conformance.transaction import TransactionConformance
from spoolproof.testing.conformance.triage import TriageConformance
from spoolproof.testing.conformance.values import ValuesConformance
from spoolproof.testing.conformance.wakeup import WakeUpConformance
from spoolproof.testing.conformance.webhooks import WebhooksConformance

__all__ = [
    "AuditConformance",
    "BatchesConformance",
    "BrokerConformance",
    "Brokers",
    "BulksConformance",
    "DeadLettersConformance",
    "EffectKeysConformance",
    "HeldKeysConformance",
    "InboxConformance",
    "LeasesConformance",
    "MigrationsConformance",
    "OutboxConformance",
    "ReconciliationsConformance",
    "RecurringConformance",
    "RetentionConformance",
    "ReviewsConformance",
    "SagasConformance",
    "ScheduleConformance",
    "ServicesConformance",
    "SharedCacheConformance",
    "StateConformance",
    "TransactionConformance",
    "TriageConformance",
    "ValuesConformance",
    "WakeUpConformance",
    "WebhooksConformance",
    "eventually",
    "holds_for",
]
