"""How a feature enters the list of parts: for which processes its part is made, from what, and what it brings along.

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
from spoolproof.settings_group import Groups, SettingsGroup

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
    """One part of the list. role: what a process must be started for to have it; None: every process has it. facet:
    what `service.<name>` is, if the feature offers more than the service's verbs. settings: the groups it reads."""

    role: str | None
    make: Callable[[Context], Part]
    facet: tuple[str, type[Facet]] | None = None
    settings: tuple[type[SettingsGroup], ...] = ()
