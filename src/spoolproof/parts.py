"""The parts of a service: the one list of features that a process is built from.

A new feature is its own folder and one line here. A line says for which role a part is made (None: in every process)
and how, from what every feature may use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from spoolproof.backoff import RandomSource
from spoolproof.clock import Clock
from spoolproof.codec import TypeRegistry
from spoolproof.consumer.part import ConsumerPart
from spoolproof.consumer.router import Router
from spoolproof.consumer.settings import ConsumerSettings
from spoolproof.health.settings import HealthSettings
from spoolproof.ids import Ids
from spoolproof.lifecycle.part import Part
from spoolproof.lifecycle.registrations import Facet, Registrations
from spoolproof.maintenance.part import MaintenancePart, PoliciesPart, QueuesPart
from spoolproof.maintenance.settings import InboxSettings
from spoolproof.outbox.part import RelayPart
from spoolproof.outbox.publish import Publisher
from spoolproof.policies import Registry
from spoolproof.ports.broker import Broker, Spawn
from spoolproof.ports.store import Store
from spoolproof.settings_group import SettingsGroup

if TYPE_CHECKING:
    from spoolproof.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What parts are made from."""

    service: str
    settings: Settings
    store: Store
    broker: Broker
    registrations: Registrations
    policies: Registry
    publisher: Publisher
    clock: Clock
    ids: Ids
    random: RandomSource
    process_id: Callable[[], UUID]  #: this process's, as its peers see it now
    spawn: Spawn

    @property
    def fence_seconds(self) -> float:
        """How long a lease is trusted after the renewal that was answered was sent: two thirds of it."""
        return self.settings.lease_seconds * 2 / 3


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the list. facet: what `service.<name>` is, if the feature offers more than the service's verbs.
    settings: the groups it reads."""

    role: str | None
    make: Callable[[Context], Part]
    facet: tuple[str, type[Facet]] | None = None
    settings: tuple[type[SettingsGroup], ...] = ()


RELAY = "relay"
CONSUMER = "consumer"
MAINTENANCE = "maintenance"

ENTRIES = (
    Entry(None, lambda of: PoliciesPart(of.service, of.policies, of.store.state, clock=of.clock)),
    Entry(
        RELAY,
        lambda of: RelayPart(
            *(of.store.services, of.store.outbox, of.store.dead_letters, of.store.wakeup, of.broker),
            fence_seconds=of.fence_seconds,
            clock=of.clock,
            ids=of.ids,
        ),
    ),
    Entry(
        CONSUMER,
        lambda of: ConsumerPart(
            of.service,
            of.store,
            of.broker,
            of.registrations.of(Router),
            of.registrations.of(TypeRegistry),
            of.publisher,
            settings=of.settings.of(ConsumerSettings),
            clock=of.clock,
            ids=of.ids,
            random=of.random,
            process_id=of.process_id,
            spawn=of.spawn,
        ),
        settings=(ConsumerSettings,),
    ),
    Entry(
        CONSUMER,
        lambda of: QueuesPart(
            *(of.service, of.registrations.of(Router).queues, of.store.state, of.store.leases, of.broker),
            clock=of.clock,
        ),
    ),
    Entry(
        MAINTENANCE,
        lambda of: MaintenancePart(
            of.store.retention,
            setting=of.settings.named,
            fence_seconds=of.fence_seconds,
            clock=of.clock,
        ),
        settings=(InboxSettings,),
    ),
)

ROLES = tuple(dict.fromkeys(entry.role for entry in ENTRIES if entry.role is not None))
"""What a process can do; all of it unless `--only` names some."""
GROUPS: tuple[type[SettingsGroup], ...] = (HealthSettings, *(group for entry in ENTRIES for group in entry.settings))
"""Every group of settings but the service's own."""
FACETS = dict(entry.facet for entry in ENTRIES if entry.facet is not None)


def make_parts(context: Context, roles: Sequence[str]) -> list[Part]:
    """Return the parts of a process that has these roles."""
    return [entry.make(context) for entry in ENTRIES if entry.role is None or entry.role in roles]
