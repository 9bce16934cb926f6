"""`spoolproof dlq`: see what was given up on and why, put it right, send it again, or close it.

Verbs that act need a reason and are audited. Bodies are shown by `show`, `edit` and `export` alone: a list is what
people paste. Secrets in them are masked but by `show --payload`, and by `export`, which another store is made from.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from spoolproof.cli.bulk import All, Detach, DryRun, bulk, bulks, cancel, is_bulk, resume
from spoolproof.cli.exits import Failure, Usage, failure_of
from spoolproof.cli.group import Group
from spoolproof.cli.letters import at_desk, confirm, filtered, page
from spoolproof.cli.options import Actor, AsJson, Reason, Yes, actor_or_user
from spoolproof.cli.output import complain, emit, plain, say, table
from spoolproof.cli.store import with_store
from spoolproof.consumer.queues import stranded_queues
from spoolproof.dead_letters import replay as verbs
from spoolproof.dead_letters.desk import Desk
from spoolproof.errors import SpoolproofError
from spoolproof.ports.dead_letters import DeadLetterState
from spoolproof.ports.store import Store

LIST_MAX = 10_000
"""Rows one listing may ask for: it is held in memory and read by people."""

Limit = Annotated[int, typer.Option("--limit", min=1, max=LIST_MAX, help="At most so many.")]


@filtered
def groups(wanted: dict[str, Any], limit: Limit = 20, as_json: AsJson = False) -> None:
    """Show what is failing, since when, how often, and whether it still is: a line for each cause."""
    found = at_desk(lambda desk: desk.groups(**wanted, limit=limit))
    if as_json:
        emit("dlq.groups", found)
        return
    say(f"{found['open']} open")
    if found["groups"]:
        table(
            ("group", "open", "consumer", "reason", "error", "since", "newest", "5 min", "look at"),
            [
                (
                    *(one["fingerprint"] or "-", one["count"], one["consumer"], one["reason"]),
                    f"{one['error_class']}: {one['error']}"[:100],
                    *(one["first_failed_at"], one["last_failed_at"]),
                    *(f"{one['recent']}, still failing" if one["is_failing"] else "none", one["sample_id"]),
                )
                for one in found["groups"]
            ],
        )


@filtered
def ls(
    wanted: dict[str, Any],
    state: Annotated[DeadLetterState | None, typer.Option("--state", help="[default: open and replaying]")] = None,
    after: Annotated[str | None, typer.Option("--after", help="`next` of the page before.")] = None,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """List dead letters, oldest failure first. Without --state: those nobody has closed."""
    found = at_desk(lambda desk: desk.ls(after=after, state=state, **wanted, limit=limit))
    if as_json:
        emit("dlq.ls", found)
    elif not found["dead_letters"]:
        say("no dead letters match")
    else:
        columns = ("id", "state", "consumer", "type", "reason", "attempts", "failed at", "error")
        table(columns, [_cells(letter) for letter in found["dead_letters"]])
        if found["next"]:
            say(f"more: --after {found['next']}")


def show(
    id: Annotated[str, typer.Argument(metavar="ID")],
    payload: Annotated[
        bool, typer.Option("--payload", help="Mask nothing: body, headers and errors as they are.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show one dead letter: message, attempts, stack and audit trail, with *** for what looks like a secret."""
    letter = at_desk(lambda desk: desk.show(id))
    if as_json:
        emit("dlq.show", {"dead_letter": letter}, whole=payload)
    else:
        say(page(letter, whole=payload))


def edit(
    id: Annotated[str, typer.Argument(metavar="ID")],
    reason: Reason,
    fields: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="In a JSON body; a.b=1 for an inner one.")
    ] = None,
    body: Annotated[
        Path | None, typer.Option("--body", metavar="FILE", help="The whole of it; - is standard input.")
    ] = None,
    service: Annotated[
        str | None, typer.Option("--service", help="MODULE:SERVICE that must be able to read it.")
    ] = None,
    version: Annotated[int | None, typer.Option("--version", help="Only if it is still this one.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Keep it even if no service could read it.")] = False,
    actor: Actor = "",
    as_json: AsJson = False,
) -> None:
    """Change the body of an open dead letter; the one it came with is kept. Shows the difference; replay it then."""

    async def act(desk: Desk) -> dict[str, Any]:
        return await desk.edit(
            id,
            actor=actor_or_user(actor),
            reason=reason,
            body=None if body is None else _read(body),
            fields=_fields(fields or []),
            version=version,
            force=force,
        )

    done = at_desk(act, service)
    if as_json:
        emit("dlq.edit", done)
    else:
        say(plain(f"{done['diff']}\n\nedited {id}: version {done['version']}, message {done['message_id']}"))


@filtered
def replay(
    wanted: dict[str, Any],
    reason: Reason,
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID...")] = None,
    everything: All = False,
    to: Annotated[
        str | None, typer.Option("--to", metavar="queue:NAME", help="Another consumer, whose it is then.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Also what an earlier replay is stuck with.")] = False,
    canary: Annotated[
        bool, typer.Option("--canary/--no-canary", help="Of many, first one, and the rest if it succeeds.")
    ] = True,
    dry_run: DryRun = False,
    detach: Detach = False,
    actor: Actor = "",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Send dead letters again, each to the consumer that gave up on it and to no other: by ID, or all that match."""
    who = {"actor": actor_or_user(actor), "reason": reason}
    if is_bulk(ids or [], wanted, everything):
        options = {"to": to, "force": force, "canary": canary}
        bulk("replay", wanted, options, who, dry_run=dry_run, detach=detach, yes=yes, as_json=as_json)
        return
    if len(ids or []) > 1:
        confirm(f"Replay {len(ids or [])} dead letters?", yes)

    async def act(store: Store, id: str) -> None:
        await verbs.replay(store, id, **who, to=to, force=force)
        record = (await verbs.find(store, id)).record
        row = (await stranded_queues(store.state, record.service)).get(record.consumer)
        if row is not None:
            complain(plain(f"warning: {row.sentence(record.consumer, record.service)}, and so will this one"))

    _report("dlq.replay", "replayed", with_store(lambda store: _each(store, ids or [], act)), as_json)


@filtered
def discard(
    wanted: dict[str, Any],
    reason: Reason,
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID...")] = None,
    everything: All = False,
    dry_run: DryRun = False,
    detach: Detach = False,
    actor: Actor = "",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Close dead letters for good, by ID or all that match. They stay readable for 30 days; nothing sends them."""
    who = {"actor": actor_or_user(actor), "reason": reason}
    if is_bulk(ids or [], wanted, everything):
        bulk("discard", wanted, {}, who, dry_run=dry_run, detach=detach, yes=yes, as_json=as_json)
        return
    confirm(f"Discard {', '.join(ids or [])} for good?", yes)

    async def act(store: Store, id: str) -> None:
        await verbs.discard(store, id, actor=who["actor"], note=reason)

    _report("dlq.discard", "discarded", with_store(lambda store: _each(store, ids or [], act)), as_json)


@filtered
def export(
    wanted: dict[str, Any],
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="[default: standard output]")] = None,
    state: Annotated[DeadLetterState | None, typer.Option("--state", help="[default: open and replaying]")] = None,
) -> None:
    """Write dead letters as lines of JSON, with bodies and history: for another store, or before a discard."""

    async def write(desk: Desk) -> int:
        count = 0
        lines = desk.export(state=state, **wanted)
        if out is None:
            async for line in lines:
                say(line)
        else:
            with out.open("x") as file:
                async for line in lines:
                    file.write(line + "\n")
                    count += 1
            say(f"{count} exported to {out}")
        return count

    try:
        at_desk(write)
    except FileExistsError:
        raise Usage(f"--out {out}: there is such a file", "name another, or remove it") from None


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE")],
    reason: Reason,
    actor: Actor = "",
    as_json: AsJson = False,
) -> None:
    """Take in what `export` wrote, as open. What is there already stays as it is, so it can be repeated."""
    lines = _read(file).splitlines()
    done = at_desk(lambda desk: desk.restore(lines, actor=actor_or_user(actor), reason=reason))
    if as_json:
        emit("dlq.import", done)
    else:
        say(f"{done['imported']} imported, {done['known']} were there already")


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


def _cells(letter: dict[str, Any]) -> tuple[object, ...]:
    state = f"{letter['state']}, stuck" if letter["is_stuck"] else letter["state"]
    return (
        *(letter["id"], state, letter["consumer"], letter["type"], letter["reason"], letter["attempts"]),
        *(letter["last_failed_at"], f"{letter['error_class']}: {letter['error']}"[:120]),
    )


def _fields(given: Sequence[str]) -> dict[str, object]:
    """Return what `--set` says: a value that is JSON as that, any other as text."""
    fields: dict[str, object] = {}
    for one in given:
        name, equals, text = one.partition("=")
        if not name or not equals:
            raise Usage(f"--set {one!r} names no field and value", "write --set total_cents=1250, or --set name=Ann")
        try:
            fields[name] = msgspec.json.decode(text)
        except msgspec.DecodeError:
            fields[name] = text
    return fields


def _read(path: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise Usage(f"{path}: {error.strerror}", "name a file that can be read, or - for standard input") from error


GROUP = Group(
    "dlq",
    {
        "groups": groups,
        "ls": ls,
        "show": show,
        "edit": edit,
        "replay": replay,
        "discard": discard,
        "bulk": bulks,
        "cancel": cancel,
        "resume": resume,
        "export": export,
        "import": import_,
    },
    "Messages given up on: see, mend, replay, discard.",
)
