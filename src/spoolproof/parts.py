"""The parts of a service: the one list of features that a process is built from.

A new feature is its own folder and one line here, which names its `Entry`. In the order of the list parts are made,
restore what an earlier process left, and are told that a drain begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from pkgutil import resolve_name

from spoolproof.health.settings import HealthSettings
from spoolproof.lifecycle.entry import Context, Entry
from spoolproof.lifecycle.part import Part
from spoolproof.settings_group import SettingsGroup
from spoolproof.telemetry.settings import LogSettings

FEATURES = (
    "maintenance.part:POLICIES",
    "outbox.part:RELAY",
    "webhooks.part:WEBHOOKS",
    "schedules.part:SCHEDULES",
    "spool.part:SPOOL",
    "cache.part:CACHE",
    "consumer.part:CONSUMER",
    "saga.part:SAGA",
    "requests.part:REQUESTS_ENTRY",
    "maintenance.part:MAINTENANCE",
    "dead_letters.part:DEAD_LETTERS",
    "review.part:REVIEW",
    "reconciliation.part:RECONCILIATION",
)
ENTRIES: tuple[Entry, ...] = tuple(resolve_name(f"spoolproof.{name}") for name in FEATURES)

ROLES = tuple(dict.fromkeys(entry.role for entry in ENTRIES if entry.role is not None))
"""What a process can do; all of it unless `--only` names some."""
GROUPS: tuple[type[SettingsGroup], ...] = (
    HealthSettings,
    LogSettings,
    *(group for entry in ENTRIES for group in entry.settings),
)
"""Every group of settings but the service's own and those of adapters."""
FACETS = dict(entry.facet for entry in ENTRIES if entry.facet is not None)


def make_parts(context: Context, roles: Sequence[str]) -> list[Part]:
    """Return the parts of a process that has these roles."""
    return [entry.make(context) for entry in ENTRIES if entry.role is None or entry.role in roles]
