"""`spoolproof review`: the questions that wait for a person, who has which, and the decision.

A decision has its effect in the same commit, so this command needs the code that has it: `--service MODULE:SERVICE`.
Parked messages (kind `message`) and sagas need none; with it an edit, or the output of a step, is read first.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

import msgspec
import typer

from spoolproof import limits
from spoolproof.cli.exits import Refused, Usage
from spoolproof.cli.group import Group
from spoolproof.cli.letters import confirm
from spoolproof.cli.options import Actor, AsJson, Reason, Yes, actor_or_user
from spoolproof.cli.output import emit, plain, say, table
from spoolproof.cli.store import with_store
from spoolproof.cli.target import load_service
from spoolproof.clock import SystemClock
from spoolproof.codec import TypeRegistry
from spoolproof.errors import InvalidMessage
from spoolproof.ids import Ids
from spoolproof.lifecycle.registrations import Registrations
from spoolproof.outbox.publish import Publisher
from spoolproof.outbox.transaction import UnitsOfWork
from spoolproof.ports.reviews import ReviewFilter, Reviews, ReviewState
from spoolproof.ports.store import Store
from spoolproof.reconciliation.part import register_actions
from spoolproof.reconciliation.runner import Runner
from spoolproof.reconciliation.runner import Tools as RunnerTools
from spoolproof.review.actions import Actions
from spoolproof.review.desk import Desk, Tools
from spoolproof.review.messages import Decode, Parked
from spoolproof.saga.decisions import Decisions
from spoolproof.saga.definition import Definitions
from spoolproof.saga.question import Asking
from spoolproof.telemetry.redaction import masked

T = TypeVar("T")
Id = Annotated[str, typer.Argument(metavar="ID")]
Kind = Annotated[str | None, typer.Option("--kind", help="Of this kind alone.")]
Target = Annotated[str | None, typer.Option("--service", help="MODULE:SERVICE whose code has the effect.")]
Token = Annotated[str | None, typer.Option("--token", help="Of your claim; without, nobody else may have it.")]
Values = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="What the action needs; a value is JSON or text."),
]


def ls(
    kind: Kind = None,
    subject: Annotated[str | None, typer.Option("--subject", help="Of this subject alone.")] = None,
    state: Annotated[ReviewState, typer.Option("--state", help="open or resolved.")] = ReviewState.OPEN,
    overdue: Annotated[bool, typer.Option("--overdue", help="Past their due time alone.")] = False,
    after: Annotated[str | None, typer.Option("--after", help="`next` of the page before.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="At most so many.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List the questions that wait for a person, soonest due first."""
    wanted = {"kind": kind, "subject": subject, "state": state, "limit": limit}
    found = _at_desk(lambda desk: desk.ls(overdue=overdue, after=after, **wanted))
    if as_json:
        emit("review.ls", found)
    elif not found["items"]:
        say("no review items match")
    else:
        columns = ("id", "kind", "subject", "priority", "due_at", "claimed_by", "proposed", "question")
        table([name.replace("_", " ") for name in columns], [[one[name] for name in columns] for one in found["items"]])
        if found["next"]:
            say(f"more: --after {found['next']}")


def show(id: Id, as_json: AsJson = False) -> None:
    """Show one question: evidence, actions, the message it carries, and what was done to it; secrets are masked."""
    item = _at_desk(lambda desk: desk.show(id))
    if as_json:
        emit("review.show", {"item": item})
        return
    lines = [
        f"{name:16} {plain(value)}" for name, value in item.items() if name not in ("evidence", "message", "trail")
    ]
    for name in ("evidence", "message"):
        if item[name] is not None:
            lines += ["", name, msgspec.json.format(msgspec.json.encode(masked(item[name])), indent=2).decode()]
    lines += ["", "trail"]
    for one in item["trail"]:
        detail = "" if one["detail"] is None else msgspec.json.encode(one["detail"]).decode()
        lines.append(f"  {plain(one['at'])} {one['actor']} {one['verb']} {detail}".rstrip())
    say(plain("\n".join(lines)))


def claim(id: Id, actor: Actor = "", as_json: AsJson = False) -> None:
    """Keep others away from a question for 15 minutes; again renews it."""
    done = _at_desk(lambda desk: desk.claim(id, actor=actor_or_user(actor)))
    _tell("claim", done, f"claimed {id} until {plain(done['claim_until'])}; token {done['token']}", as_json)


def release(id: Id, token: Token = None, actor: Actor = "", as_json: AsJson = False) -> None:
    """Give a question back."""
    done = _at_desk(lambda desk: desk.release(id, actor=actor_or_user(actor), token=token))
    _tell("release", done, f"released {id}", as_json)


def resolve(
    id: Id,
    action: Annotated[str, typer.Argument(metavar="ACTION")],
    reason: Reason,
    values: Values = None,
    token: Token = None,
    service: Target = None,
    actor: Actor = "",
    as_json: AsJson = False,
) -> None:
    """Decide a question; the effect is in the same commit."""
    given, who = _values(values or []), actor_or_user(actor)

    async def work(desk: Desk) -> dict[str, Any]:
        return await desk.resolve(id, action, actor=who, reason=reason, token=token, values=given)

    done = _at_desk(work, service, id=id)
    is_done = done["state"] == ReviewState.RESOLVED
    text = f"resolved {id}: {action}" if is_done else f"proposed {action} for {id}; another person must agree to it"
    _tell("resolve", done, text, as_json)


def bulk(
    kind: Annotated[str, typer.Argument(metavar="KIND")],
    action: Annotated[str, typer.Argument(metavar="ACTION")],
    reason: Reason,
    values: Values = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=limits.REVIEW_BULK_MAX, help="At most so many.")] = 1000,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count them; change nothing.")] = False,
    service: Target = None,
    actor: Actor = "",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Decide every open question of a kind alike, each in a commit of its own."""
    given, who = _values(values or []), actor_or_user(actor)

    async def work(desk: Desk, dry: bool = dry_run) -> dict[str, Any]:
        return await desk.bulk(kind, action, actor=who, reason=reason, values=given, dry_run=dry, limit=limit)

    if not dry_run:
        matched = _at_desk(lambda desk: work(desk, True), service, kind=kind)["matched"]
        confirm(f"{action} {matched} items of kind {kind}?", yes)
    done = _at_desk(work, service, kind=kind)
    refused = "".join(f"\n  {one['id']}: {one['why']}" for one in done["refused"])
    text = f"{done['matched']} match, {done['resolved']} resolved, {done['proposed']} proposed, "
    _tell("bulk", done, plain(f"{text}{len(done['refused'])} refused{refused}"), as_json, whole=True)


def verify(as_json: AsJson = False) -> None:
    """Walk every trail and tell what was changed or taken away by other hands; exit 4 if anything was."""
    found = _at_desk(lambda desk: desk.verify())
    if found["faults"]:
        lines = "\n".join(f"  {one['id']}: {one['fault']}" for one in found["faults"])
        hint = "somebody changed the tables; compare with a backup"
        raise Refused(f"{len(found['faults'])} of {found['checked']} trails do not fit:\n{lines}", hint)
    _tell("verify", found, f"{found['checked']} trails checked, nothing was changed", as_json, whole=True)


def _at_desk(
    work: Callable[[Desk], Awaitable[T]], target: str | None = None, *, id: str | None = None, kind: str | None = None
) -> T:
    """Run `work` on the items of the settings' store. target: whose effects there are; id, kind: of what is resolved,
    so that what that publishes is its service's."""
    service = None if target is None else load_service(target)
    clock = SystemClock()
    ids = Ids(clock)

    async def run(store: Store) -> T:
        registrations = Registrations() if service is None else service.reviews.host.registrations
        registry, actions = registrations.of(TypeRegistry), registrations.of(Actions)
        decode: Decode | None = None if service is None else (lambda message: registry.decode(message, message.type))
        name = await _service_of(store, id, kind, None if service is None else service.name) or "spoolproof"
        if name != "spoolproof":
            await store.services.claim(name)
        units = UnitsOfWork(store, Publisher(store, source=name, clock=clock, ids=ids))
        Parked(store, ids, decode).register(actions)
        runner = Runner(RunnerTools(service=name, store=store, units=units, clock=clock, ids=ids))
        register_actions(registrations, runner)
        asking = Asking(store.port(Reviews), clock=clock, ids=ids)
        Decisions(store, asking, registrations.of(Definitions)).register(actions)
        return await work(Desk(Tools(store=store, units=units, actions=actions, clock=clock)))

    return with_store(run)


async def _service_of(store: Store, id: str | None, kind: str | None, given: str | None) -> str | None:
    reviews = store.port(Reviews)
    if id is not None:
        details = await reviews.get(id)
        found = {details.item.service} if details is not None and details.item is not None else set()
    elif kind is not None:
        found = {item.service for item in await reviews.search(ReviewFilter(kind=kind, limit=limits.REVIEW_BULK_MAX))}
    else:
        return None
    if given is not None and found - {given}:
        raise InvalidMessage("service", given, f"these items are of {', '.join(sorted(found))}")
    if len(found) > 1:
        raise InvalidMessage(
            "kind", kind, f"several services have it: {', '.join(sorted(found))}; name one (--service)"
        )
    return next(iter(found), given)


def _values(texts: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise Usage(f"--set {text!r} sets nothing", "write NAME=VALUE")
        try:
            values[name] = msgspec.json.decode(value)
        except msgspec.DecodeError:
            values[name] = value
    return values


def _tell(verb: str, document: dict[str, Any], text: str, as_json: bool, *, whole: bool = False) -> None:
    if as_json:
        emit(f"review.{verb}", document if whole else {"item": document}, reveal={"token"})
    else:
        say(text)


GROUP = Group(
    "review",
    {
        "ls": ls,
        "show": show,
        "claim": claim,
        "release": release,
        "resolve": resolve,
        "bulk": bulk,
        "verify": verify,
    },
    "Questions that wait for a person's decision.",
)
