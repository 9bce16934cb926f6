"""Verbs on many dead letters: started, watched, ended and taken up again.

A command only asks and watches. The work is done by the services' process that leads, so Ctrl-C ends the watching and
nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from spoolproof.cli.exits import FAILED, Usage
from spoolproof.cli.letters import at_desk, confirm
from spoolproof.cli.options import Actor, AsJson, Reason, actor_or_user
from spoolproof.cli.output import complain, emit, plain, say, table
from spoolproof.clock import SystemClock
from spoolproof.dead_letters.desk import Desk
from spoolproof.ports.bulk import ENDED_EARLY, BulkState

All = Annotated[bool, typer.Option("--all", help="Every one there is, where no option says which.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say how many it would be.")]
Detach = Annotated[bool, typer.Option("--detach", help="Of many: do not wait for the end; `dlq bulk ID` shows it.")]

_LOOK_SECONDS = 0.5
_BAR = 30


def is_bulk(ids: Sequence[str], wanted: Mapping[str, Any], everything: bool) -> bool:
    """Tell whether the options, and not ids, say which are meant. Raises Usage if neither or both do."""
    by_options = bool(wanted) or everything
    if by_options == bool(ids):
        raise Usage(
            "which ones? " + ("give IDs or options, not both" if ids else "nothing says it"),
            "name IDs, or what they have in common (--group, --consumer, --type, …), or --all",
        )
    return by_options


def bulk(
    verb: str,
    wanted: Mapping[str, Any],
    options: Mapping[str, Any],
    who: Mapping[str, str],
    *,
    dry_run: bool,
    detach: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Start a bulk and watch it. Ends with exit code 1 if it ends early."""
    force = bool(options.get("force"))
    if dry_run or not yes:
        count = at_desk(lambda desk: desk.matching(verb, force=force, **wanted))
        if dry_run:
            emit(f"dlq.{verb}", {"matching": count}) if as_json else say(f"{count} match; nothing was done")
            return
        confirm(f"{verb.capitalize()} {count} dead letters?", yes)

    async def run(desk: Desk) -> dict[str, Any]:
        started = await desk.start_bulk(verb, **{**who, **options, **wanted})
        return started if detach else await _watch(desk, started)

    _end(f"dlq.{verb}", at_desk(run), as_json)


def bulks(
    id: Annotated[str | None, typer.Argument(metavar="[ID]")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Wait for its end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what was done to many at once, the newest first; with an ID that one, and how those it moved fare."""
    if id is None:
        found = at_desk(lambda desk: desk.bulks())
        if as_json:
            emit("dlq.bulk", found)
        else:
            columns = ("id", "verb", "state", "moved", "of", "skipped", "by", "started", "reason")
            table(columns, [_cells(one) for one in found["bulks"]])
        return

    async def look(desk: Desk) -> dict[str, Any]:
        one = await desk.bulk(id)
        return await _watch(desk, one) if watch else one

    _end("dlq.bulk", at_desk(look), as_json, fails=watch)


def cancel(
    id: Annotated[str, typer.Argument(metavar="ID")], reason: Reason, actor: Actor = "", as_json: AsJson = False
) -> None:
    """End a bulk early. What it has moved is moved; the others stay as they are."""
    done = at_desk(lambda desk: desk.cancel(id, actor=actor_or_user(actor), reason=reason))
    _end("dlq.cancel", done, as_json, fails=False)


def resume(
    id: Annotated[str, typer.Argument(metavar="ID")],
    reason: Reason,
    canary: Annotated[bool, typer.Option("--canary/--no-canary", help="First one, the rest if it succeeds.")] = True,
    actor: Actor = "",
    as_json: AsJson = False,
) -> None:
    """Go on with a bulk that was cancelled, or stopped because its canary did not succeed."""
    who = actor_or_user(actor)
    done = at_desk(lambda desk: desk.resume(id, actor=who, reason=reason, canary=canary))
    _end("dlq.resume", done, as_json, fails=False)


async def _watch(desk: Desk, document: dict[str, Any]) -> dict[str, Any]:
    """Wait for the end of a bulk, with a bar for people; not for one that nobody works off."""
    clock, shown = SystemClock(), sys.stderr.isatty()
    while document["ended_at"] is None and document["is_worked"]:
        if shown:
            sys.stderr.write("\r" + _bar(document))
            sys.stderr.flush()
        await clock.sleep(_LOOK_SECONDS)
        document = await desk.bulk(document["id"])
    if shown:
        sys.stderr.write("\r" + _bar(document) + "\n")
    return document


def _bar(document: Mapping[str, Any]) -> str:
    taken, total = document["moved"] + document["skipped"], document["total"]
    full = _BAR * taken // max(1, total)
    return f"[{'#' * full}{'.' * (_BAR - full)}] {taken} of {total}, {document['state']}   "


def _end(command: str, document: dict[str, Any], as_json: bool, *, fails: bool = True) -> None:
    if as_json:
        emit(command, document)
    else:
        say(_sentence(document))
        if document["ended_at"] is None and not document["is_worked"]:
            complain("warning: no process with the role maintenance runs; it goes on as soon as one does")
    if fails and document["state"] in ENDED_EARLY:
        raise typer.Exit(FAILED)


def _sentence(one: Mapping[str, Any]) -> str:
    lines = [
        f"bulk {one['id']}: {one['verb']} is {one['state']}; {one['moved']} of {one['total']} moved, "
        f"{one['skipped']} skipped (somebody else moved them), {one['left']} left"
    ]
    if one["outcomes"]:
        lines.append("now: " + ", ".join(f"{count} {state}" for state, count in sorted(one["outcomes"].items())))
    lines += [f"{plain(step.at)} {step.actor} {step.verb}: {step.detail}" for step in one["history"]]
    if one["state"] == BulkState.STOPPED:
        lines.append(f"the others were left alone; mend the cause, then: spoolproof dlq resume {one['id']} --reason …")
    return plain("\n".join(lines))


def _cells(one: Mapping[str, Any]) -> tuple[object, ...]:
    return (
        *(one["id"], one["verb"], one["state"], one["moved"], one["total"], one["skipped"]),
        *(one["actor"], one["started_at"], one["reason"]),
    )
