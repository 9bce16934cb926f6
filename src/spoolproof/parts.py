"""The parts of a service: the one list of features that a process is built from.

A new feature is its own folder and one line here, which names its `Entry`. In the order of the list parts are made,
restore what an earlier process left, and are told that a drain begins.

The line also says what a command needs to know without the feature's code, which is imported when a service is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pkgutil import resolve_name
from typing import Any, NamedTuple

from spoolproof.lifecycle.entry import Context, Entry
from spoolproof.lifecycle.part import Part
from spoolproof.settings_group import SettingsGroup


class Feature(NamedTuple):
    """entry: where its `Entry` is. role: what a process must be started for to have the part; None: every process has
    it. facet: what it is called on the service, if it has one. settings: where the group is that it reads."""

    entry: str
    role: str | None = None
    facet: str | None = None
    settings: str | None = None


FEATURES = (
    Feature("maintenance.part:POLICIES"),
    Feature("health.part:DEPENDENCIES"),
    Feature("outbox.part:RELAY", role="relay"),
    Feature("webhooks.part:WEBHOOKS", role="relay", facet="webhooks", settings="webhooks.settings:WebhookSettings"),
    Feature("schedules.part:SCHEDULES", role="relay"),
    Feature("spool.part:SPOOL", settings="spool.settings:SpoolSettings"),
    Feature("degradation.part:DEGRADATION", facet="degradation"),
    Feature("cache.part:CACHE", facet="cache", settings="cache.settings:CacheSettings"),
    Feature("consumer.jobs.part:BATCHES_ENTRY", facet="batches"),
    Feature("consumer.part:CONSUMER", role="consumer", settings="consumer.settings:ConsumerSettings"),
    Feature("saga.part:SAGA", role="saga", facet="saga", settings="saga.settings:SagaSettings"),
    Feature("saga.part:ASIDE", facet="keyed"),
    Feature("requests.part:REQUESTS_ENTRY"),
    Feature("maintenance.part:MAINTENANCE", role="maintenance", settings="maintenance.settings:InboxSettings"),
    Feature("dead_letters.part:DEAD_LETTERS", facet="dead_letters"),
    Feature("review.part:REVIEW", facet="reviews", settings="review.settings:ReviewSettings"),
    Feature("reconciliation.part:RECONCILIATION", facet="reconciliation"),
    Feature("alerts.part:ALERTS", settings="alerts.settings:AlertSettings"),
    Feature("web.part:DASHBOARD", facet="dashboard", settings="web.settings:DashboardSettings"),
)

ROLES = tuple(dict.fromkeys(feature.role for feature in FEATURES if feature.role is not None))
"""What a process can do; all of it unless `--only` names some."""
FACETS = {feature.facet: feature for feature in FEATURES if feature.facet is not None}


def groups() -> list[type[SettingsGroup]]:
    """Return every group of settings but the service's own and those of adapters."""
    names = ("health.settings:HealthSettings", "telemetry.settings:LogSettings")
    return [_named(name) for name in (*names, *(one.settings for one in FEATURES if one.settings is not None))]


@cache
def entry_of(feature: Feature) -> Entry:
    """Return what a feature declares; imports it."""
    found: Entry = _named(feature.entry)
    return found


def make_parts(context: Context, roles: Sequence[str]) -> list[Part]:
    """Return the parts of a process that has these roles."""
    return [entry_of(feature).make(context) for feature in FEATURES if feature.role is None or feature.role in roles]


def _named(name: str) -> Any:
    return resolve_name(f"spoolproof.{name}")
