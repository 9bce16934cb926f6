"""From a value to a state: pure, so that every rule can be played through without a clock.

inactive → pending, for as long as the rule asks → firing → well again for as long as the rule asks → resolved. Moments
are stored, never counted down: whoever judges next, after a restart or on another machine, goes on where this one was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from spoolproof.alerts.fact import Fact, History, Parts
from spoolproof.alerts.rule import Rule, Severity
from spoolproof.telemetry.metrics import Labels

Shares = Mapping[str, Mapping[Labels, Parts]]
"""What one process has of every fact: by rule, then by the values of its labels."""


class AlertState(StrEnum):
    """pending: bad, but not for long enough. resolved: kept until everybody who was told of it is told of its end."""

    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What a sink was last told of an alert, and when. is_given_up: it could not be told in a day."""

    state: AlertState
    at: datetime
    is_given_up: bool = False


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong. since: when its state began. well_since: firing, but well for that long. told: by sink.
    acknowledged_by: who has it in hand; it is not told of again until it is over."""

    rule: str
    labels: dict[str, str]
    state: AlertState
    severity: Severity
    since: datetime
    fired_at: datetime | None = None
    well_since: datetime | None = None
    value: float = 0.0
    told: dict[str, Told] = {}
    acknowledged_by: str = ""

    @property
    def identity(self) -> str:
        """Its name and labels: the same thing is never two alerts."""
        return identity_of(self.rule, self.labels)


def identity_of(rule: str, labels: Mapping[str, str]) -> str:
    """Return `Name{label=value}`, without braces where there are no labels."""
    inside = ",".join(f"{name}={labels[name]}" for name in sorted(labels))
    return f"{rule}{{{inside}}}" if inside else rule


def follow(
    rule: Rule, labels: Mapping[str, str], before: Alert | None, value: float | None, now: datetime
) -> Alert | None:
    """Return the alert after one more look; None if there is none. value: None if there is nothing to be wrong."""
    is_bad = value is not None and rule.is_bad(value)
    if before is None or before.state is AlertState.RESOLVED:
        if not is_bad or value is None:
            return before
        told = {} if before is None else before.told
        before = Alert(
            rule=rule.name,
            labels=dict(labels),
            state=AlertState.PENDING,
            severity=rule.severity,
            since=now,
            value=value,
            told=told,
        )
    shown = before.value if value is None else value
    if before.state is AlertState.PENDING:
        if not is_bad:
            return None if not before.told else _changed(before, state=AlertState.RESOLVED, since=now)
        if now - before.since >= timedelta(seconds=rule.for_seconds):
            return _changed(before, state=AlertState.FIRING, since=now, fired_at=now, value=shown)
        return _changed(before, value=shown)
    if value is not None and not rule.is_well(value):
        return _changed(before, well_since=None, value=shown)
    well_since = before.well_since or now
    if now - well_since >= timedelta(seconds=rule.keep_seconds):
        return _changed(before, state=AlertState.RESOLVED, since=now, well_since=None, acknowledged_by="")
    return _changed(before, well_since=well_since, value=shown)


def _changed(alert: Alert, **changes: object) -> Alert:
    return msgspec.structs.replace(alert, **changes)


def shares_of(rules: Iterable[Rule], history: History) -> dict[str, dict[Labels, Parts]]:
    """Return this process's share of every fact; what cannot make an alert fire is left out."""
    shares: dict[str, dict[Labels, Parts]] = {}
    for rule in rules:
        for name, fact in ((rule.name, rule.fact), (guard_of(rule), rule.when)):
            if fact is None:
                continue
            is_needed = rule.is_below and fact is rule.fact
            found = {key: parts for key, parts in fact.read(history).items() if is_needed or any(parts)}
            if found:
                shares[name] = found
    return shares


def guard_of(rule: Rule) -> str:
    """Return the name under which the share of a rule's `when` travels."""
    return f"{rule.name}?"


def values_of(rule: Rule, shares: Sequence[Shares], now: datetime) -> dict[Labels, float]:
    """Return the number of a rule for each set of labels, from the shares of all processes."""
    values = _joined(rule.fact, [one.get(rule.name, {}) for one in shares], now)
    if rule.when is None:
        return values
    allowed = _joined(rule.when, [one.get(guard_of(rule), {}) for one in shares], now)
    return {labels: value for labels, value in values.items() if allowed.get(labels, 0) > 0}


def _joined(fact: Fact, shares: Sequence[Mapping[Labels, Parts]], now: datetime) -> dict[Labels, float]:
    values = {}
    for labels in dict.fromkeys(labels for one in shares for labels in one):
        parts = fact.join([one[labels] for one in shares if labels in one])
        value = fact.value(parts, now.timestamp())
        if value is not None:
            values[labels] = value
    return values


def is_muted(alert: Alert, rule: Rule, firing: Iterable[Alert]) -> bool:
    """Whether another alert that fires is the cause, and was told of. One of the same label only where both have it."""
    for one in firing:
        for cause in rule.muted_by:
            name, _, which = cause.partition(":")
            if one.rule != name:
                continue
            dependency = one.labels.get("dependency")
            if which and (dependency == "db") is not (which == "db"):
                continue
            if all(alert.labels[label] == value for label, value in one.labels.items() if label in alert.labels):
                return True
    return False
