"""`spoolproof dlq`: see what was given up on and why, send it again, or close it.

Both verbs that act need a reason and are audited. Bodies are shown by `show` alone: a list is what people paste.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any

import typer

from spoolproof.cli.exits import Failure, Refused, failure_of
from spoolproof.cli.group import Group
from spoolproof.cli.options import Actor, AsJson, Reason, Yes, actor_or_user
from spoolproof.cli.output import complain, emit, plain, say, table
from spoolproof.cli.store import with_store
from spoolproof.consumer.queues import stranded_queues
from spoolproof.dead_letters import replay as verbs
from spoolproof.dead_letters.document import shown_body, summary, whole
from spoolproof.errors import SpoolproofError
from spoolproof.ports.dead_letters import DeadLetterDetails, DeadLetterFilter, DeadLetterRecord, DeadLetterState
from spoolproof.ports.store import Store

LIST_MAX = 10_000
"""Rows one listing may ask for: it is held in memory and read by people."""


def ls(
    state: Annotated[DeadLetterState | None, typer.Option("--state", help="[default: open and replaying]")] = None,
    consumer: Annotated[str | None, typer.Option("--consumer", help="The queue that gave up.")] = None,
    reason: Annotated[str | None, typer.Option("--reason", help="handler, decode, unroutable, …")] = None,
    type: Annotated[str | None, typer.Option("--type", help="The event's wire name.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=LIST_MAX, help="At most so many.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List dead letters, oldest failure first. Without --state: those nobody has closed."""

    async def search(store: Store) -> list[DeadLetterRecord]:
        states = (DeadLetterState.OPEN, DeadLetterState.REPLAYING) if state is None else (state,)
        found: list[DeadLetterRecord] = []
        for one in states:
            wanted = DeadLetterFilter(state=one, consumer=consumer, reason=reason, type=type, limit=limit)
            found += await store.dead_letters.search(wanted)
        return sorted(found, key=lambda record: record.last_failed_at)[:limit]

    records = with_store(search)
    if as_json:
        emit("dlq.ls", {"dead_letters": [summary(record) for record in records]})
    elif not records:
        say("no dead letters match")
    else:
        table(
            ("id", "state", "consumer", "type", "reason", "attempts", "failed at", "error"),
            [_cells(record) for record in records],
        )


def show(id: Annotated[str, typer.Argument(metavar="ID")], as_json: AsJson = False) -> None:
    """Show one dead letter: message, attempts, stack and audit trail."""

    async def find(store: Store) -> DeadLetterDetails:
        return await verbs.find(store, id)

    details = with_store(find)
    if as_json:
        emit("dlq.show", {"dead_letter": whole(details)})
    else:
        say(plain(_page(details)))


def replay(
    ids: Annotated[list[str], typer.Argument(metavar="ID...")],
    reason: Reason,
    actor: Actor = "",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Send dead letters again, each to the consumer that gave up on it and to no other."""
    if len(ids) > 1:
        _confirm(f"Replay {len(ids)} dead letters?", yes)

    async def act(store: Store, id: str) -> None:
        await verbs.replay(store, id, actor=actor_or_user(actor), reason=reason)
        record = (await verbs.find(store, id)).record
        row = (await stranded_queues(store.state, record.service)).get(record.consumer)
        if row is not None:
            complain(plain(f"warning: {row.sentence(record.consumer, record.service)}, and so will this one"))

    _report("dlq.replay", "replayed", with_store(lambda store: _each(store, ids, act)), as_json)


def discard(
    id: Annotated[str, typer.Argument(metavar="ID")],
    reason: Reason,
    actor: Actor = "",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Close a dead letter for good. Its content stays readable for 30 days; nothing sends it again."""
    _confirm(f"Discard {id} for good?", yes)

    async def act(store: Store, id: str) -> None:
        await verbs.discard(store, id, actor=actor_or_user(actor), note=reason)

    _report("dlq.discard", "discarded", with_store(lambda store: _each(store, [id], act)), as_json)


Verb = Callable[[Store, str], Awaitable[None]]
Results = Sequence[tuple[str, Failure | None]]


async def _each(store: Store, ids: Sequence[str], act: Verb) -> Results:
    """Act on each id by itself: one that is refused keeps none of the others back."""
    results: list[tuple[str, Failure | None]] = []
    for id in dict.fromkeys(ids):
        try:
            await act(store, id)
        except SpoolproofError as error:
            results.append((id, failure_of(error)))
        else:
            results.append((id, None))
    return results


def _report(command: str, done: str, results: Results, as_json: bool) -> None:
    """Say what was done and what was not; the exit code is the gravest of those that were not."""
    failed = [(id, failure) for id, failure in results if failure is not None]
    if as_json:
        document: dict[str, Any] = {done: [id for id, failure in results if failure is None]}
        if failed:
            document["failed"] = [{"id": id, "error": failure.document()} for id, failure in failed]
            document["error"] = failed[0][1].document()
        emit(command, document)
    for id, failure in results:
        if failure is not None:
            complain(plain(f"error: {failure.message}\nhint: {failure.hint}"))
        elif not as_json:
            say(f"{done} {plain(id)}")
    if failed:
        raise typer.Exit(max(failure.exit_code for _, failure in failed))


def _confirm(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise Refused(f"{plain(question)} nobody is there to answer", "add --yes")
    if not typer.confirm(plain(question), err=True):
        raise Refused("not confirmed; nothing was done", "answer y, or add --yes")


def _cells(record: DeadLetterRecord) -> tuple[object, ...]:
    return (
        record.id,
        record.state,
        record.consumer,
        record.message.type,
        record.reason,
        len(record.attempts),
        record.last_failed_at,
        f"{record.error_class}: {record.error}"[:120],
    )


def _page(details: DeadLetterDetails) -> str:
    record = details.record
    message = record.message
    facts = summary(record) | {"destination": record.destination, "note": record.note, "closed_at": record.closed_at}
    lines = [f"{name:16} {plain(value)}" for name, value in facts.items()]
    lines += ["", "attempts"]
    lines += [f"  {plain(one.at)} {one.host} {one.error_class}: {one.error}" for one in record.attempts]
    lines += ["", "audit"]
    lines += [f"  {plain(one.at)} {one.actor} {one.verb} {one.detail}".rstrip() for one in details.audit]
    lines += ["", "headers", *(f"  {name}: {value}" for name, value in message.headers.items())]
    shown = shown_body(message.body)
    lines += ["", f"body ({len(message.body)} bytes)", str(shown.get("body", "not text; --json shows it in base64"))]
    if record.stack:
        lines += ["", "stack", record.stack.rstrip()]
    return "\n".join(lines)


GROUP = Group(
    "dlq",
    {"ls": ls, "show": show, "replay": replay, "discard": discard},
    "Messages given up on: see, replay, discard.",
)
