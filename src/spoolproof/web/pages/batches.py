"""Batches: how far each is, what became of every item, and sending again what failed."""

from __future__ import annotations

from spoolproof.consumer.jobs import desk
from spoolproof.consumer.jobs.tools import Tools
from spoolproof.errors import InvalidMessage
from spoolproof.ports.batches import Batches, BatchState, ItemState
from spoolproof.web.page import PAGE_ROWS, Action, Ask, Document, Done, Page

_LIST_MAX = 500


async def read_list(ask: Ask) -> Document:
    """Return batches with their numbers, the newest first."""
    form = ask.form
    state = form.one("state")
    if state and state not in list(BatchState):
        raise InvalidMessage("state", state, f"one of {', '.join(BatchState)}")
    limit = form.whole("limit", PAGE_ROWS, _LIST_MAX)
    wanted = {"limit": limit + 1, "state": BatchState(state) if state else None, "job": form.one("job") or None}
    rows = await desk.ls(ask.source.store.port(Batches), **wanted)
    return {
        "rows": rows[:limit],
        "more": min(limit + PAGE_ROWS, _LIST_MAX) if len(rows) > limit else None,
        "state": state,
        "states": list(BatchState),
        "job": form.one("job"),
    }


async def read_one(ask: Ask) -> Document:
    """Return a batch and a page of its items. Raises NotFound."""
    form = ask.form
    state = form.one("state")
    after = form.whole("after", 0, 10_000_000) if form.one("after") else -1
    only = {state} if state else None
    report = await desk.get(ask.source.store.port(Batches), ask.id, only=only, after=after, limit=PAGE_ROWS)
    left = report.counts[ItemState.PENDING]
    return {
        "report": report,
        "batch": report.batch,
        "state": state,
        "states": list(ItemState),
        "done": report.batch.total - left,
        "again": report.counts[ItemState.FAILED] + (left if report.batch.state is BatchState.CANCELLED else 0),
    }


async def cancel(ask: Ask) -> Done:
    """Run no further item."""
    batch, _ = await desk.find(ask.source.store.port(Batches), ask.id)
    async with ask.source.publishing(batch.service) as publisher:
        tools = Tools(store=ask.source.store, publisher=publisher, clock=ask.source.clock)
        await desk.cancel(tools, ask.id, actor=ask.principal.name, reason=ask.reason)
    return Done("Cancelled: no further item runs.")


async def replay(ask: Ask) -> Done:
    """Send again what failed."""
    batch, _ = await desk.find(ask.source.store.port(Batches), ask.id)
    async with ask.source.publishing(batch.service) as publisher:
        tools = Tools(store=ask.source.store, publisher=publisher, clock=ask.source.clock)
        sent = await desk.replay(tools, ask.id, only=None, actor=ask.principal.name, reason=ask.reason)
    return Done(f"{sent} items are on their way.")


PAGES = (
    Page(
        path="/batches",
        title="Batches",
        read=read_list,
        template="batches.html",
        section="Now",
        topics=("numbers", "letters", "store"),
    ),
    Page(
        path="/batches/{id}",
        title="Batch",
        read=read_one,
        template="batch.html",
        under="/batches",
        topics=("numbers", "letters", "store"),
    ),
)
ACTIONS = (
    Action(path="/batches/{id}/cancel", name="batch:cancel", permission="batch:act", run=cancel),
    Action(path="/batches/{id}/replay", name="batch:replay", permission="batch:act", run=replay),
)
