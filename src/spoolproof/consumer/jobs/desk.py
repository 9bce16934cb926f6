"""Everything a person does with batches that are stored; the command line and `service.batches` call the same.

A replay sends the items under the ids they have had from the start, so that whoever deduplicates by them still does. An
item that has an open dead letter is sent again through that, which is then no longer open.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import msgspec

from spoolproof import limits
from spoolproof.consumer.jobs.definition import Envelope, key_of, queue_of
from spoolproof.consumer.jobs.events import BatchEnded, BatchReplayed
from spoolproof.consumer.jobs.finished import BatchFinished
from spoolproof.consumer.jobs.ledger import envelope_of
from spoolproof.consumer.jobs.report import BatchReport, summary
from spoolproof.consumer.jobs.tools import Tools
from spoolproof.dead_letters.replay import check_who
from spoolproof.destination import to_queue
from spoolproof.errors import Conflict, InvalidMessage, NotFound
from spoolproof.failpoints import failpoint
from spoolproof.message import Message, Outgoing
from spoolproof.outbox.transaction import unit_of_work
from spoolproof.ports.batches import Batch, Batches, BatchState, Counts, Item, ItemState
from spoolproof.ports.dead_letters import DeadLetterFilter, DeadLetterRecord, DeadLetterState
from spoolproof.ports.store import Store
from spoolproof.telemetry.events import emit

REPLAYABLE = frozenset({ItemState.FAILED, ItemState.PENDING})
_AT_ONCE = 50  #: dead letters moved beside each other


async def find(batches: Batches, id: str) -> tuple[Batch, Counts]:
    """Return a batch and its numbers. Raises NotFound."""
    found = await batches.get(id)
    if found is None:
        error = NotFound(f"there is no batch {id!r}; reports are kept for 7 days after the end")
        error.hint = "spoolproof batch ls"
        raise error
    return found


async def get(
    batches: Batches, id: str, *, only: Collection[str] | None = None, after: int = -1, limit: int = limits.BATCH_PAGE
) -> BatchReport:
    """Return a page of a batch's report. only: states of the items to show. Raises NotFound, InvalidMessage."""
    states = states_of(only, frozenset(ItemState))
    batch, counts = await find(batches, id)
    items = [item for item, _ in await batches.items(id, states, after=after, limit=limit)]
    return BatchReport(batch, counts, items, items[-1].n if len(items) == limit else None)


def states_of(only: Collection[str] | None, allowed: frozenset[ItemState]) -> Sequence[ItemState]:
    """Return the states that are meant; None: all that are allowed. Raises InvalidMessage."""
    if only is None:
        return [state for state in ItemState if state in allowed]
    wrong = set((only,) if isinstance(only, str) else only) - {state.value for state in allowed}
    if wrong or not only or isinstance(only, str):
        raise InvalidMessage("only", only, f"must be some of {', '.join(sorted(allowed))}, as a set")
    return [state for state in ItemState if state in only]


async def ls(batches: Batches, **wanted: object) -> list[dict[str, object]]:
    """Return batches with their numbers, the newest first. wanted: as `Batches.search`."""
    found = [await batches.get(one.id) for one in await batches.search(**wanted)]  # type: ignore[arg-type]
    return [summary(*one) for one in found if one is not None]


async def end(tools: Tools, id: str, *, actor: str = "", reason: str = "") -> Batch | None:
    """End a batch that runs and has no pending item, or with an actor cancel it; None if there is nothing to end. Its
    BatchFinished is published with that."""
    failpoint("batch.before_end")
    found = await tools.batches.get(id)
    async with unit_of_work(tools.store, tools.publisher) as tx:
        batch = await tools.batches.end(tx.inner, id, cancel=bool(actor))
        if batch is None or found is None:
            return None
        numbers = {state.value: count for state, count in found[1].items()}
        told: dict[str, Any] = {"job": batch.job, "state": batch.state.value, "total": batch.total, **numbers}
        await tx.publish(BatchFinished(batch_id=id, **told))
    failpoint("batch.after_end")
    emit(BatchEnded(id=id, by=f" actor={actor} reason={reason}" if actor else "", **told))
    return batch


async def cancel(tools: Tools, id: str, *, actor: str, reason: str) -> None:
    """Run no further item of a batch; running ones end. Raises NotFound, and Conflict if it is over."""
    check_who(actor, reason)
    batch, _ = await find(tools.batches, id)
    if await end(tools, id, actor=actor, reason=reason) is None:
        raise _is(batch.id, (await find(tools.batches, id))[0].state, "only one that runs can be cancelled")


async def replay(tools: Tools, id: str, *, only: Collection[str] | None, actor: str, reason: str) -> int:
    """Send items again that failed, or are pending in a batch that was cancelled; returns how many. Raises NotFound,
    InvalidMessage, and Conflict if there is none."""
    check_who(actor, reason)
    states = states_of(only, REPLAYABLE)
    batch, _ = await find(tools.batches, id)
    if batch.state is BatchState.RUNNING:  # those that are pending are on their way
        states = [state for state in states if state is not ItemState.PENDING]
    letters = {number: record async for number, record in letters_of(tools.store, batch.service, batch.job, {id})}
    items = await tools.batches.items(id, states, limit=limits.BATCH_ITEMS_MAX)
    if not items:
        raise _is(id, batch.state, "none of its items is to be sent again")
    now = tools.clock.now()
    again = [message_of(batch, item, body, now) for item, body in items if (id, item.n) not in letters]
    async with unit_of_work(tools.store, tools.publisher) as tx:
        await tools.batches.reopen(tx.inner, id, now, states)
        for outgoing in again:
            tx.keep(outgoing)
    failpoint("batch.after_reopen")
    moved = [letters[id, item.n] for item, _ in items if (id, item.n) in letters]
    for start in range(0, len(moved), _AT_ONCE):
        part = moved[start : start + _AT_ONCE]
        verbs = [tools.store.dead_letters.replay(one.id, actor, f"{reason} (batch {id})") for one in part]
        await asyncio.gather(*verbs)
    tools.store.wakeup.notify()
    emit(BatchReplayed(job=batch.job, id=id, items=len(items), actor=actor, reason=reason))
    return len(items)


async def letters_of(
    store: Store, service: str, job: str, batches: Collection[str]
) -> AsyncIterator[tuple[tuple[str, int], DeadLetterRecord]]:
    """Yield the open dead letters of items of these batches, whoever gave them up, by batch and place."""
    queue = to_queue(queue_of(service, job))
    for consumer in (queue.name, f"relay:{queue}"):
        wanted = DeadLetterFilter(state=DeadLetterState.OPEN, consumer=consumer, limit=limits.BATCH_PAGE)
        while records := await store.dead_letters.search(wanted):
            for record in records:
                given = envelope_of(record.message)
                if given is not None and given.batch in batches:
                    yield (given.batch, given.n), record
            if len(records) < wanted.limit:
                break
            wanted = replace(wanted, after=(records[-1].first_failed_at, records[-1].id))


def message_of(batch: Batch, item: Item, body: str, now: datetime) -> Outgoing:
    """Return the message of an item."""
    queue = queue_of(batch.service, batch.job)
    payload = Envelope(batch=batch.id, n=item.n, id=item.id, item=msgspec.Raw(body.encode()))
    message = Message(
        id=key_of(batch.id, item.id),
        type=queue,
        source=batch.service,
        time=now,
        body=msgspec.json.encode(payload),
        correlation_id=batch.id,
    )
    return Outgoing(message=message, destination=to_queue(queue))


def _is(id: str, state: BatchState, remedy: str) -> Conflict:
    error = Conflict(f"batch {id} is {state}: {remedy}")
    error.hint = f"spoolproof batch show {id}"
    return error
