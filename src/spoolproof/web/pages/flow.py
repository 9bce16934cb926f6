"""What moves: queues and who reads them, what waits for the broker, what waits for its time, and where webhooks go."""

from __future__ import annotations

from typing import Any

from spoolproof.consumer import queues
from spoolproof.errors import NotFound
from spoolproof.outbox import document as outbox
from spoolproof.ports.recurring import Recurring
from spoolproof.ports.schedule import Schedule
from spoolproof.ports.webhooks import Webhooks
from spoolproof.web import figures
from spoolproof.web.page import PAGE_ROWS, Action, Ask, Document, Done, Page
from spoolproof.webhooks import endpoints
from spoolproof.wiring import damaged_spools, look_into_spools, spool_folder


async def read_queues(ask: Ask) -> Document:
    """Return every queue of the store's services, and what their readers tell of it."""
    source = ask.source
    known = (await queues.document(source.store))["queues"]
    rows = figures.queues_of(await source.views())
    for one in known:
        place = (one["service"], one["queue"])
        rows.setdefault(place, figures.QueueRow(one["queue"], one["service"]))
    kept = {(one["service"], one["queue"]): one for one in known}
    return {"queues": [(row, kept.get(place)) for place, row in sorted(rows.items())]}


async def read_outbox(ask: Ask) -> Document:
    """Return what waits in the store and in files of this machine, and what the broker said to what it was given."""
    source = ask.source
    views = await source.views()
    answers: dict[str, dict[str, int]] = {}
    for view in views.values():
        for (destination, outcome), value in view.of("relay_published_total"):
            found = answers.setdefault(destination, {})
            found[outcome] = found.get(outcome, 0) + int(value)
    folder = spool_folder(source.settings)
    is_there = folder is not None and folder.exists()
    return {
        **await outbox.status(source.store),
        "answers": sorted(answers.items()),
        "in_flight": int(sum(view.sum("relay_in_flight") for view in views.values())),
        "folder": folder,
        "files": look_into_spools(folder) if folder is not None and is_there else [],
        "damaged": [str(path) for path in damaged_spools(folder)] if folder is not None and is_there else [],
        "held": int(sum(view.sum("spool_rows") for view in views.values())),
    }


async def read_schedules(ask: Ask) -> Document:
    """Return what runs by the clock, and messages that are not due yet, the next first."""
    limit = ask.form.whole("limit", PAGE_ROWS, 1000)
    store = ask.source.store
    rows = list(await store.port(Schedule).search(None, limit + 1))
    return {
        "functions": (await store.port(Recurring).find(None)).rows,
        "messages": [(row, row.outgoing.message) for row in rows[:limit]],
        "more": limit + PAGE_ROWS if len(rows) > limit else None,
    }


async def cancel_scheduled(ask: Ask) -> Done:
    """Take a message back."""
    if not await ask.source.store.port(Schedule).cancel(ask.form.one("id"), ask.form.one("service") or None):
        raise NotFound("it is on its way already, or there was none")
    return Done("Taken back: it is never published.")


async def read_webhooks(ask: Ask) -> Document:
    """Return every endpoint, and how much waits for it."""
    port = ask.source.store.port(Webhooks)
    waiting = await port.waiting()
    found: list[dict[str, Any]] = []
    for one in await port.all():
        found.append({"endpoint": one, "waiting": waiting.get(one.name, 0)})
    return {"endpoints": found}


async def pause(ask: Ask) -> Done:
    """Let the events of an endpoint wait."""
    await endpoints.pause(ask.source.store.port(Webhooks), ask.form.one("name"), f"{ask.principal.name}: {ask.reason}")
    return Done("Paused: its events wait.")


async def resume(ask: Ask) -> Done:
    """Send an endpoint what waits."""
    await endpoints.resume(ask.source.store.port(Webhooks), ask.form.one("name"))
    return Done("Resumed: what waits is sent.")


PAGES = (
    Page(
        path="/queues",
        title="Queues",
        read=read_queues,
        template="queues.html",
        key="q",
        section="Now",
        topics=("numbers", "processes", "store"),
    ),
    Page(
        path="/outbox",
        title="Outbox and spool",
        read=read_outbox,
        template="outbox.html",
        key="u",
        section="Now",
        topics=("outbox", "numbers", "processes", "store"),
    ),
    Page(
        path="/schedules",
        title="Schedules",
        read=read_schedules,
        template="schedules.html",
        section="Now",
        topics=("numbers", "store"),
    ),
    Page(
        path="/webhooks",
        title="Webhooks",
        read=read_webhooks,
        template="webhooks.html",
        section="Now",
        topics=("numbers", "store"),
    ),
)
ACTIONS = (
    Action(
        path="/schedules/cancel",
        name="schedule:cancel",
        permission="schedule:act",
        run=cancel_scheduled,
        target=lambda ask: ask.form.one("id"),
    ),
    Action(
        path="/webhooks/pause",
        name="webhook:pause",
        permission="webhook:act",
        run=pause,
        target=lambda ask: ask.form.one("name"),
    ),
    Action(
        path="/webhooks/resume",
        name="webhook:resume",
        permission="webhook:act",
        run=resume,
        target=lambda ask: ask.form.one("name"),
    ),
)
