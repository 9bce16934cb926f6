"""What a person does with alerts: look, be spared, say "I have it". Functions that return documents; the command line
calls them and a page may."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, TypeVar

import msgspec

from spoolproof.alerts.book import ACK, ALERT, SILENCE, Acknowledged, Silence, kind_of
from spoolproof.alerts.engine import Alert, AlertState, identity_of
from spoolproof.alerts.rules import BY_NAME
from spoolproof.clock import Clock
from spoolproof.errors import InvalidMessage, NotFound
from spoolproof.ids import Ids
from spoolproof.ports.state import StateRecord
from spoolproof.ports.store import Store

SILENCE_SECONDS_MAX = 7 * 86_400.0
"""Longer, and what was silenced is forgotten rather than mended."""

T = TypeVar("T")


async def ls(store: Store, clock: Clock) -> dict[str, Any]:
    """Return the alerts of every service of the store, those that fire first, and the silences that are not over."""
    alerts: list[dict[str, Any]] = []
    silences: list[dict[str, Any]] = []
    now = clock.now()
    for service in await store.services.all():
        rows = await store.state.all(kind_of(service))
        silent = _those(rows, SILENCE, Silence)
        silences += [{"service": service, **msgspec.structs.asdict(one)} for one in silent if now < one.ends_at]
        acks = {
            name.removeprefix(ACK): _read(row.value, Acknowledged) for name, row in rows.items() if name.startswith(ACK)
        }
        found = _those(rows, ALERT, Alert)
        alerts += [_document(service, one, silent, acks.get(one.identity), now) for one in found]
    order = {AlertState.FIRING: 0, AlertState.PENDING: 1, AlertState.RESOLVED: 2}
    alerts.sort(key=lambda one: (order[one["state"]], one["severity"], one["alert"]))
    return {"alerts": alerts, "silences": silences}


async def silence(
    store: Store,
    clock: Clock,
    ids: Ids,
    service: str,
    rule: str,
    labels: Mapping[str, str],
    *,
    seconds: float,
    author: str,
    reason: str,
) -> dict[str, Any]:
    """Tell nobody of alerts of a rule, with these labels, for so long; at most seven days. `alert ls` shows them
    nevertheless. Raises NotFound, InvalidMessage."""
    _check(rule, labels)
    if not 0 < seconds <= SILENCE_SECONDS_MAX:
        raise InvalidMessage("for", seconds, "must be above 0 s and at most 7 days; silence it again then")
    if not reason.strip() or not author.strip():
        raise InvalidMessage("reason", reason, "say who and why: others will find it silent")
    await _find(store, service)
    now = clock.now()
    one = Silence(
        id=ids.message_id(),
        rule=rule,
        labels=dict(labels),
        author=author,
        reason=reason,
        begins_at=now,
        ends_at=now + timedelta(seconds=seconds),
    )
    await store.state.put(kind_of(service), SILENCE + one.id, msgspec.json.encode(one))
    return {"service": service, **msgspec.structs.asdict(one)}


async def unsilence(store: Store, service: str, id: str) -> None:
    """End a silence. Raises NotFound."""
    if not await store.state.remove(kind_of(service), SILENCE + id):
        raise NotFound(f"{service} has no silence {id!r}; `spoolproof alert ls` shows those there are")


async def acknowledge(
    store: Store, clock: Clock, service: str, rule: str, labels: Mapping[str, str], *, author: str
) -> dict[str, Any]:
    """Say that somebody has an alert in hand: it is not repeated until it is over. Raises NotFound."""
    _check(rule, labels)
    identity = identity_of(rule, labels)
    record = await store.state.get(kind_of(service), ALERT + identity)
    alert = None if record is None else _read(record.value, Alert)
    if alert is None or alert.state is not AlertState.FIRING:
        raise NotFound(f"{identity} of {service} does not fire; `spoolproof alert ls` shows what does")
    ack = Acknowledged(author=author, at=clock.now())
    await store.state.put(kind_of(service), ACK + identity, msgspec.json.encode(ack))
    return {"service": service, "alert": identity, "acknowledged_by": author}


def _check(rule: str, labels: Mapping[str, str]) -> None:
    if rule not in BY_NAME:
        raise NotFound(f"there is no alert {rule!r}; there are {', '.join(sorted(BY_NAME))}")
    if unknown := sorted(labels.keys() - set(BY_NAME[rule].fact.labels)):
        known = ", ".join(BY_NAME[rule].fact.labels) or "none"
        raise NotFound(f"{rule} has no label {unknown[0]!r}; it has {known}")


async def _find(store: Store, service: str) -> None:
    known = await store.services.all()
    if service not in known:
        raise NotFound(f"the store has no service {service!r}; it has {', '.join(known) or 'none yet'}")


def _document(
    service: str, one: Alert, silences: list[Silence], ack: Acknowledged | None, now: datetime
) -> dict[str, Any]:
    rule = BY_NAME.get(one.rule)
    words = {} if rule is None else rule.words(one.labels, one.value)
    has_ack = ack is not None and one.fired_at is not None and ack.at >= one.fired_at
    return {
        "service": service,
        "alert": one.identity,
        "rule": one.rule,
        "labels": one.labels,
        "severity": one.severity,
        "state": one.state,
        "since": one.since,
        "value": one.value,
        "acknowledged_by": ack.author if ack is not None and has_ack else None,
        "silenced_until": max((quiet.ends_at for quiet in silences if quiet.covers(one, now)), default=None),
        "is_told": any(told.state is one.state for told in one.told.values()),
        **words,
    }


def _those(rows: Mapping[str, StateRecord], prefix: str, kind: type[T]) -> list[T]:
    found = [_read(row.value, kind) for name, row in rows.items() if name.startswith(prefix)]
    return [one for one in found if one is not None]


def _read(value: bytes, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(value, type=kind)
    except (msgspec.MsgspecError, ValueError):
        return None
