"""`spoolproof schedule`: what is to be published later, and what runs by the clock."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from spoolproof.cli.group import Group
from spoolproof.cli.letters import confirm
from spoolproof.cli.options import AsJson, Yes
from spoolproof.cli.output import emit, plain, say, table
from spoolproof.cli.store import with_store
from spoolproof.errors import NotFound
from spoolproof.outbox.events import ScheduleCancelled
from spoolproof.ports.recurring import Found, Recurring
from spoolproof.ports.schedule import Schedule, ScheduledRow
from spoolproof.ports.store import Store
from spoolproof.telemetry import events

LIST_MAX = 10_000
"""Rows one listing may ask for: it is held in memory and read by people."""
Of = Annotated[str | None, typer.Option("--service", help="Of this service alone.")]


def ls(
    service: Of = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=LIST_MAX, help="At most so many messages.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List scheduled messages, due first first, and the functions that run by the clock with their last run."""

    async def read(store: Store) -> tuple[list[ScheduledRow], Found]:
        rows = await store.port(Schedule).search(service, limit)
        return list(rows), await store.port(Recurring).find(service)

    messages, recurring = with_store(read)
    shown = [_message(row) for row in messages]
    functions = [
        {
            "function": row.name,
            "service": row.service,
            "runs": row.expression,
            "next_at": row.next_at,
            "last_at": row.last_at,
            "last_run": None if row.last_at is None else row.outcome or "on its way, or no longer known",
        }
        for row in recurring.rows
    ]
    if as_json:
        emit("schedule.ls", {"messages": shown, "functions": functions})
        return
    if not shown and not functions:
        say("nothing is scheduled")
    for rows in (shown, functions):
        if rows:
            table(tuple(name.replace("_", " ") for name in rows[0]), [tuple(row.values()) for row in rows])


def cancel(
    id: Annotated[str, typer.Argument(metavar="ID")], service: Of = None, yes: Yes = False, as_json: AsJson = False
) -> None:
    """Take a scheduled message back: it is never published. ID is that of the message, as `ls` shows it."""
    confirm(f"Cancel {id} for good?", yes)
    cancelled = with_store(lambda store: store.port(Schedule).cancel(id, service))
    if not cancelled:
        error = NotFound(f"no scheduled message {plain(id)!r}: it is on its way already, or there was none")
        error.hint = "spoolproof schedule ls shows what is scheduled"
        raise error
    events.emit(ScheduleCancelled(id=id, service=service or "any"))
    if as_json:
        emit("schedule.cancel", {"cancelled": id, "rows": cancelled})
    else:
        say(f"cancelled {plain(id)}")


def _message(row: ScheduledRow) -> dict[str, Any]:
    message = row.outgoing.message
    return {
        "id": message.id,
        "service": row.service,
        "type": message.type,
        "key": message.key,
        "destination": str(row.outgoing.destination),
        "due_at": row.due_at,
        "created_at": row.created_at,
    }


GROUP = Group("schedule", {"ls": ls, "cancel": cancel}, "What is published later, and what runs by the clock.")
