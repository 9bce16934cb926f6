"""Around it all: the processes, one message wherever it is known, what people did, and the settings in force."""

from __future__ import annotations

import os
from typing import Any

from pydantic import SecretStr

from spoolproof.ports.audit import Audit
from spoolproof.ports.dead_letters import DeadLetterFilter
from spoolproof.ports.reviews import ReviewFilter, Reviews
from spoolproof.ports.sagas import Sagas
from spoolproof.ports.schedule import Schedule
from spoolproof.settings import setting_kinds
from spoolproof.telemetry.redaction import masked_text
from spoolproof.web.page import PAGE_ROWS, Ask, Document, Page

_FOUND_MAX = 20
_SCHEDULED_MAX = 1000


async def read_processes(ask: Ask) -> Document:
    """Return the processes that live, and what each tells."""
    views = await ask.source.views()
    processes = await ask.source.store.leases.processes()
    rows = [
        (one, views.get(str(one.id))) for one in sorted(processes, key=lambda one: (one.service, one.host, one.pid))
    ]
    return {"rows": rows, "own": ask.source.process_id}


async def read_message(ask: Ask) -> Document:
    """Return what is known of a message: by its id, its ordering key, the id of a saga, or what an item is about."""
    q = ask.form.one("q")
    if not q:
        return {"q": "", "events": [], "letters": [], "items": [], "sagas": [], "scheduled": []}
    store = ask.source.store
    letters = dict[str, Any]()
    for wanted in ({"message_id": q}, {"key": q}):
        for record in await store.dead_letters.search(DeadLetterFilter(limit=_FOUND_MAX, **wanted)):  # type: ignore[arg-type]
            letters[record.id] = await store.dead_letters.get(record.id)
    reviews = store.port(Reviews)
    items = [
        await reviews.get(item.id)
        for item in await reviews.search(ReviewFilter(subject=q, state=None, limit=_FOUND_MAX))
    ]
    saga = await store.port(Sagas).journal(q)
    scheduled = [
        row
        for row in await store.port(Schedule).search(None, _SCHEDULED_MAX)
        if q in (row.outgoing.message.id, row.outgoing.message.key, row.outgoing.message.correlation_id)
    ]
    events = _timeline([one for one in letters.values() if one], [one for one in items if one], saga, scheduled)
    return {"q": q, "events": events, "letters": letters, "items": items, "sagas": saga, "scheduled": scheduled}


def _timeline(letters: list[Any], items: list[Any], saga: Any, scheduled: list[Any]) -> list[dict[str, Any]]:
    """Return everything that happened, oldest first."""
    found: list[dict[str, Any]] = []

    def add(at: Any, what: str, detail: str = "", to: str = "", tone: str = "") -> None:
        if at is not None:
            found.append({"at": at, "what": what, "detail": detail, "to": to, "tone": tone})

    for one in letters:
        record, to = one.record, f"/dead-letters/{one.record.id}"
        add(record.message.time, f"{record.message.type or 'message'} made by {record.message.source}")
        for attempt in record.attempts:
            add(attempt.at, f"failed in {record.consumer}", f"{attempt.error_class}: {attempt.error}", to, "bad")
        for entry in one.audit:
            add(entry.at, f"dead letter {entry.verb} by {entry.actor}", entry.detail, to)
    for one in items:
        for event in one.events:
            told = event.detail.get("action", "") if isinstance(event.detail, dict) else ""
            add(event.at, f"review {event.verb} by {event.actor} {told}".strip(), "", f"/reviews/{event.review_id}")
    if saga is not None:
        to = f"/sagas/{saga.saga.saga_id}"
        add(saga.saga.created_at, f"saga {saga.saga.name} started", "", to)
        for step in saga.steps:
            add(step.finished_at or step.started_at, f"step {step.name} {step.state}", step.error, to)
        add(saga.saga.finished_at, f"saga {saga.saga.state}", saga.saga.cause or "", to)
    for row in scheduled:
        add(
            row.created_at,
            f"{row.outgoing.message.type} scheduled",
            f"due {row.due_at:%Y-%m-%d %H:%M:%S} UTC",
            "/schedules",
        )
    return sorted(found, key=lambda one: one["at"])


async def read_audit(ask: Ask) -> Document:
    """Return what people did, newest first."""
    rows = list(await ask.source.store.port(Audit).search(ask.form.one("after") or None, PAGE_ROWS))
    return {"rows": rows, "next": rows[-1].id if len(rows) == PAGE_ROWS else None}


async def read_settings(ask: Ask) -> Document:
    """Return every setting of this process with where it comes from; no password of any."""
    settings, found = ask.source.settings, list[dict[str, Any]]()
    for kind in setting_kinds():
        group = settings if isinstance(settings, kind) else settings.of(kind)
        for name, field in kind.model_fields.items():
            variable = next((one for one in kind.variables_of(name) if one in os.environ), "")
            value = getattr(group, name)
            found.append(
                {
                    "name": kind.variables_of(name)[0],
                    "value": _shown(value),
                    "source": variable
                    or ("default" if value == field.get_default(call_default_factory=True) else "set"),
                }
            )
    return {"rows": found}


def _shown(value: object) -> str:
    if isinstance(value, SecretStr):
        text = value.get_secret_value()
        return masked_text(text) if "://" in text else "***" if text else ""
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


PAGES = (
    Page(
        path="/processes",
        title="Processes",
        read=read_processes,
        template="processes.html",
        key="p",
        section="System",
        topics=("processes", "numbers", "store"),
    ),
    Page(path="/message", title="Message", read=read_message, template="message.html", section="System"),
    Page(
        path="/audit",
        title="Audit",
        read=read_audit,
        template="audit.html",
        permission="audit:read",
        key="t",
        section="System",
    ),
    Page(
        path="/settings",
        title="Settings",
        read=read_settings,
        template="settings.html",
        permission="settings:read",
        section="System",
    ),
)
