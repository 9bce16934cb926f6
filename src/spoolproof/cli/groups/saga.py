"""`spoolproof saga`: what runs, what waits for a person and why, and what a person may do about it.

Every acting verb is one transaction; the processes of the service see it within a second.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import msgspec
import typer

from spoolproof.cli.exits import REFUSED, Usage
from spoolproof.cli.group import Group
from spoolproof.cli.options import Actor, AsJson, Reason, actor_or_user
from spoolproof.cli.output import emit, plain, say, table
from spoolproof.cli.store import with_store
from spoolproof.cli.target import load_service
from spoolproof.clock import SystemClock
from spoolproof.ids import Ids
from spoolproof.ports.sagas import Journal, SagaFilter, SagaRow, Sagas, SagaState, StepRow
from spoolproof.ports.store import Store
from spoolproof.saga import desk
from spoolproof.saga.census import Stranded, stranded
from spoolproof.saga.definition import Definitions
from spoolproof.saga.question import read

LIST_MAX = 10_000
"""Rows one listing may ask for: it is held in memory and read by people."""
Id = Annotated[str, typer.Argument(metavar="ID", help="Of the saga, as ls shows it.")]


def ls(
    service: Annotated[str | None, typer.Option("--service", help="Of this service alone.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Of this definition alone.")] = None,
    state: Annotated[SagaState | None, typer.Option("--state", help="In this state alone.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=LIST_MAX, help="At most so many.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List sagas, newest first."""
    wanted = SagaFilter(service=service, name=name, state=state, limit=limit)
    documents = [_document(saga) for saga in with_store(lambda store: store.port(Sagas).search(wanted))]
    if as_json:
        emit("saga.ls", {"sagas": documents})
    elif not documents:
        say("no sagas")
    else:
        columns = ("id", "name", "version", "key", "state", "waiting_for", "wake_at", "cause")
        table(
            [column.replace("_", " ") for column in columns], [[one[column] for column in columns] for one in documents]
        )


def show(id: Id, as_json: AsJson = False) -> None:
    """Show one saga: where it stands, what it asks, and every step."""
    found: Journal = with_store(lambda store: desk.find(store.port(Sagas), id))
    document, steps = _document(found.saga), [_step(step) for step in found.steps]
    signals = [{"id": one.message_id, "type": one.type} for one in found.signals]
    if as_json:
        emit("saga.show", {"saga": document, "steps": steps, "signals": signals})
        return
    question = document.pop("question")
    for field, value in document.items():
        if value is not None:
            say(f"{field.replace('_', ' ')}: {plain(str(value))}")
    if question is not None:
        say(f"asks ({question['kind']}): {plain(question['text'])}")
        say(f"spoolproof review show {question['review']}")
    columns = ("seq", "phase", "name", "item", "state", "attempts", "error", "output")
    table(columns, [[step[column] for column in columns] for step in steps])


def retry(id: Id, reason: Reason, actor: Actor = "", as_json: AsJson = False) -> None:
    """Have what waits try again now; what asks is answered by `spoolproof review resolve`."""
    who = actor_or_user(actor)
    state = with_store(lambda store: desk.retry(store, id, actor=who, reason=reason))
    _done("saga.retry", id, "tried again", state, as_json)


def cancel(id: Id, reason: Reason, actor: Actor = "", as_json: AsJson = False) -> None:
    """Have a running saga undone; refused past its point of no return."""
    who = actor_or_user(actor)
    with_store(lambda store: desk.cancel(store, id, actor=who, reason=reason))
    _done("saga.cancel", id, "to be undone", SagaState.RUNNING, as_json)


def signal(
    id: Id,
    type: Annotated[str, typer.Argument(metavar="SIGNAL", help="Its name, as the flow waits for it.")],
    body: Annotated[str, typer.Option("--body", help="JSON.")] = "null",
    message_id: Annotated[str, typer.Option("--id", help="A second one with it is none. [default: a new one]")] = "",
    as_json: AsJson = False,
) -> None:
    """Send a saga a signal."""
    _json("--body", body)
    key = message_id or Ids(SystemClock()).message_id()
    is_new = with_store(lambda store: desk.signal(store, id, type, body.encode(), key))
    if as_json:
        emit("saga.signal", {"id": id, "message_id": key, "is_new": is_new})
    else:
        say(f"signalled {plain(id)}" if is_new else f"{plain(id)} had that signal")


def check_deploy(
    target: Annotated[str, typer.Argument(metavar="MODULE:SERVICE", help="The code that is to be deployed.")],
    as_json: AsJson = False,
) -> None:
    """Compare sagas that are not over with the code, before a deploy; exit 4 if it would strand any."""
    service = load_service(target)
    definitions = service.saga.host.registrations.of(Definitions)

    async def work(store: Store) -> tuple[int, list[Stranded]]:
        sagas = store.port(Sagas)
        counts = await sagas.counts(service.name)
        live = sum(count.sagas for count in counts)
        return live, stranded(counts, await sagas.begun(service.name), definitions)

    live, found = with_store(work)
    faults = definitions.check()
    if as_json:
        emit("saga.check-deploy", {"sagas": live, "stranded": [asdict(one) for one in found], "faults": list(faults)})
    else:
        for line in [*map(str, found), *faults]:
            say(plain(line))
        if not found and not faults:
            say(f"{live} sagas of {plain(service.name)} are not over, and this code can go on with all of them")
    if found or faults:
        raise typer.Exit(REFUSED)


def _json(option: str, text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise Usage(f"{option}={plain(text[:80])}: no JSON: {error}", "write JSON, as in '{\"n\": 1}'") from None


def _document(saga: SagaRow) -> dict[str, Any]:
    question = None if saga.question is None else read(saga.question)
    return {
        "id": saga.saga_id,
        "service": saga.service,
        "name": saga.name,
        "version": saga.version,
        "key": saga.key,
        "state": saga.state,
        "cause": saga.cause,
        "waiting_for": saga.waiting_for,
        "wake_at": saga.wake_at,
        "deadline_at": saga.deadline_at,
        "is_owned": saga.owner is not None,
        "crashes": saga.crashes,
        "created_at": saga.created_at,
        "finished_at": saga.finished_at,
        "question": None
        if question is None
        else {
            "kind": question.kind,
            "text": question.text,
            "step": question.step or None,
            "item": question.item or None,
            "review": question.review,
        },
    }


def _step(step: StepRow) -> dict[str, Any]:
    return {
        "seq": step.seq,
        "phase": step.phase,
        "name": step.name,
        "item": step.item,
        "state": step.state,
        "attempts": step.attempts,
        "is_maybe_landed": step.is_maybe_landed,
        "error": step.error or None,
        "output": None if step.output is None else step.output.decode(errors="replace"),
        "started_at": step.started_at,
        "finished_at": step.finished_at,
    }


def _done(command: str, id: str, text: str, state: SagaState, as_json: bool) -> None:
    if as_json:
        emit(command, {"id": id, "state": state})
    else:
        say(f"{plain(id)}: {text}; it is {state}")


GROUP = Group(
    "saga",
    {"ls": ls, "show": show, "retry": retry, "cancel": cancel, "signal": signal, "check-deploy": check_deploy},
    "Work in several steps: where it stands, and what it asks.",
)
