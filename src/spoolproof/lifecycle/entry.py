"""How a feature enters the list of parts: from what its part is made, and what it brings along.

A feature declares its entry beside its part and knows nothing of the list; the list names the entry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from spoolproof.backoff import RandomSource
from spoolproof.clock import Clock
from spoolproof.ids import Ids
from spoolproof.lifecycle.part import Part
from spoolproof.lifecycle.registrations import Facet, Registrations
from spoolproof.ports.broker import Broker, Spawn
from spoolproof.ports.store import Store
from spoolproof.settings_group import Groups

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a part may be made from."""

    service: str
    settings: Groups
    store: Store
    broker: Broker
    registrations: Registrations
    singles: Mapping[type[Any], Any]  #: what else a process has one of, by type
    fence_seconds: float  #: how long a lease is trusted after the renewal that was answered was sent
    clock: Clock
    ids: Ids
    random: RandomSource
    process_id: Callable[[], UUID]  #: this process's, as its peers see it now
    spawn: Spawn

    def the(self, kind: type[T]) -> T:
        """Return what a process has one of: the `Publisher`, the `Registry` of policies."""
        single: T = self.singles[kind]
        return single


@dataclass(frozen=True, slots=True)
class Entry:
    """One part of the list. facet: of a feature that offers more than the service's verbs."""

    make: Callable[[Context], Part]
    facet: type[Facet] | None = None
