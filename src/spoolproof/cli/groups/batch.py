"""`spoolproof batch`: what became of the items of each batch, and what may be done about them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import typer

from spoolproof.cli.group import Group
from spoolproof.cli.options import Actor, AsJson, Reason, actor_or_user
from spoolproof.cli.output import emit, plain, say, table
from spoolproof.cli.store import with_store
from spoolproof.clock import SystemClock
from spoolproof.consumer.jobs import desk
from spoolproof.consumer.jobs.tools import Tools
from spoolproof.ids import Ids
from spoolproof.outbox.publish import Publisher
from spoolproof.ports.batches import Batches, BatchState, ItemState
from spoolproof.ports.store import Store

Id = Annotated[str, typer.Argument(metavar="BATCH", help="Its id, as ls shows it.")]
Only = Annotated[list[ItemState] | None, typer.Option("--only", help="Items in this state; may be repeated.")]


def ls(
    service: Annotated[str | None, typer.Option("--service", help="Of this service alone.")] = None,
    job: Annotated[str | None, typer.Option("--job", help="Of this job alone.")] = None,
    state: Annotated[BatchState | None, typer.Option("--state", help="In this state alone.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="At most so many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List batches, newest first, with how many items are in each state."""
    found = with_store(lambda store: desk.ls(store.port(Batches), service=service, job=job, state=state, limit=limit))
    if as_json:
        emit("batch.ls", {"batches": found})
    elif not found:
        say("no batches")
    else:
        names = ("id", "service", "job", "state", "started_at", "total", *(state.value for state in ItemState))
        table([name.replace("_", " ") for name in names], [[plain(one[name]) for name in names] for one in found])


def show(
    id: Id,
    only: Only = None,
    after: Annotated[int, typer.Option("--after", min=-1, help="Behind this place; `next` of the page before.")] = -1,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="At most so many items.")] = 1000,
    as_json: AsJson = False,
) -> None:
    """Show one batch and its items."""
    states = {state.value for state in only} if only else None
    report = with_store(lambda store: desk.get(store.port(Batches), id, only=states, after=after, limit=limit))
    document = report.document()
    if as_json:
        emit("batch.show", {"batch": document})
        return
    items, next = document.pop("items"), document.pop("next")
    say("\n".join(f"{name:12} {plain(value)}" for name, value in document.items()))
    if items:
        names = ("n", "id", "state", "attempts", "field", "error", "reason", "next_at", "review_id")
        rows = [
            [plain(getattr(item, name) or ("-" if name not in ("n", "attempts") else 0)) for name in names]
            for item in report.items
        ]
        table([name.replace("_", " ") for name in names], rows)
    if next is not None:
        say(f"more: --after {next}")


def cancel(id: Id, reason: Reason, actor: Actor = "", as_json: AsJson = False) -> None:
    """Run no further item of a batch; those that run now end."""
    _act(id, lambda tools: desk.cancel(tools, id, actor=actor_or_user(actor), reason=reason))
    _tell("cancel", {"id": id}, f"cancelled {id}", as_json)


def replay(id: Id, reason: Reason, only: Only = None, actor: Actor = "", as_json: AsJson = False) -> None:
    """Send items again that failed, and those that are pending in a batch that was cancelled."""
    states = {state.value for state in only} if only else None
    who = actor_or_user(actor)
    sent = _act(id, lambda tools: desk.replay(tools, id, only=states, actor=who, reason=reason))
    _tell("replay", {"id": id, "items": sent}, f"{sent} items of {id} are on their way", as_json)


def _act(id: str, verb: Callable[[Tools], Awaitable[Any]]) -> Any:
    async def work(store: Store) -> Any:
        batch, _ = await desk.find(store.port(Batches), id)
        await store.services.claim(batch.service)  # what it publishes is shipped by that service's relay
        clock = SystemClock()
        publisher = Publisher(store, source=batch.service, clock=clock, ids=Ids(clock))
        return await verb(Tools(store=store, publisher=publisher, clock=clock))

    return with_store(work)


def _tell(verb: str, document: dict[str, Any], text: str, as_json: bool) -> None:
    if as_json:
        emit(f"batch.{verb}", document)
    else:
        say(text)


GROUP = Group(
    "batch",
    {"ls": ls, "show": show, "cancel": cancel, "replay": replay},
    "Many items of one job: what became of each.",
    also=("batches",),
)
