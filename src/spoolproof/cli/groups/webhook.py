"""`spoolproof webhook`: the endpoints events are sent to, what waits for each, and why one gets nothing.

Endpoints belong to the store: what is changed here is heard by every process within 5 s. A secret that is kept in the
store is shown once, by the command that made it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from spoolproof.cli.exits import Refused
from spoolproof.cli.group import Group
from spoolproof.cli.options import AsJson
from spoolproof.cli.output import emit, plain, say, table
from spoolproof.cli.store import with_store
from spoolproof.clock import SystemClock
from spoolproof.ids import Ids
from spoolproof.message import Message
from spoolproof.ports.store import Store
from spoolproof.ports.webhooks import Endpoint, Webhooks
from spoolproof.settings import load_settings
from spoolproof.webhooks import endpoints
from spoolproof.webhooks.directory import secret_of
from spoolproof.webhooks.part import rules_of
from spoolproof.webhooks.request import body_of, headers_of
from spoolproof.webhooks.settings import WebhookSettings
from spoolproof.webhooks.signature import key_of
from spoolproof.webhooks.transport import Answer, Unanswered, post

TEST_TYPE = "spoolproof.webhook.test"

Name = Annotated[str, typer.Argument(metavar="NAME")]
Secret = Annotated[
    str | None, typer.Option("--secret", help="env:NAME, file:PATH or whsec_…  [default: a new one, shown once]")
]


def ls(as_json: AsJson = False) -> None:
    """List endpoints, their state, and how many events wait for each."""

    async def read(store: Store) -> tuple[list[Endpoint], Mapping[str, int]]:
        webhooks = store.port(Webhooks)
        return list(await webhooks.all()), await webhooks.waiting()

    found, waiting = with_store(read)
    documents = [_document(endpoint, waiting.get(endpoint.name, 0)) for endpoint in found]
    if as_json:
        emit("webhook.ls", {"endpoints": documents}, reveal={"secrets"})
    elif not documents:
        say("no endpoints; spoolproof webhook add NAME URL --type EVENT")
    else:
        columns = ("name", "state", "waiting", "url", "types", "secrets", "failing_since", "note")
        cells = [[one[name] for name in columns] for one in documents]
        table(
            [name.replace("_", " ") for name in columns],
            [[", ".join(cell) if isinstance(cell, list) else cell for cell in row] for row in cells],
        )


def add(
    name: Name,
    url: Annotated[str, typer.Argument(metavar="URL")],
    types: Annotated[list[str], typer.Option("--type", help="An event's wire name, or '*'; may be repeated.")],
    secret: Secret = None,
    as_json: AsJson = False,
) -> None:
    """Send the events of these types that commit from now on to a URL."""
    rules = rules_of(load_settings().of(WebhookSettings))
    added = with_store(lambda store: endpoints.add(store.port(Webhooks), name, url, types, secret, rules))
    made = added.secrets[0] if secret is None else None
    _tell("webhook.add", f"added {name}", {"endpoint": _document(added)}, made, as_json)


def pause(
    name: Name,
    reason: Annotated[str, typer.Option("--reason", help="Why; shown by ls.")] = "",
    as_json: AsJson = False,
) -> None:
    """Send an endpoint nothing; its events wait."""
    with_store(lambda store: endpoints.pause(store.port(Webhooks), name, reason))
    _done("webhook.pause", "paused", name, as_json)


def resume(name: Name, as_json: AsJson = False) -> None:
    """Send what waits and what comes, whether it was paused or disabled."""
    with_store(lambda store: endpoints.resume(store.port(Webhooks), name))
    _done("webhook.resume", "resumed", name, as_json)


def rotate(
    name: Name,
    secret: Secret = None,
    ends: Annotated[bool, typer.Option("--end", help="The receiver has the new one: sign with no other.")] = False,
    as_json: AsJson = False,
) -> None:
    """Sign with a new secret, and with the one before it until --end."""
    if ends and secret is not None:
        raise Refused("--end takes no new secret", "leave --secret out")
    newest = with_store(lambda store: endpoints.rotate(store.port(Webhooks), name, secret, ends=ends))
    made = newest if secret is None and not ends else None
    _tell("webhook.rotate", f"rotated {name}", {"rotated": name}, made, as_json)


def rm(name: Name, as_json: AsJson = False) -> None:
    """Forget an endpoint; what waits for it becomes dead letters."""
    with_store(lambda store: endpoints.remove(store.port(Webhooks), name))
    _done("webhook.rm", "removed", name, as_json)


def send_test(name: Name, as_json: AsJson = False) -> None:
    """Send one event of type spoolproof.webhook.test now, signed as all are, and tell what came back."""
    endpoint = with_store(lambda store: endpoints.find(store.port(Webhooks), name))
    answer = asyncio.run(_sent(endpoint))
    is_taken = isinstance(answer, Answer) and 200 <= answer.status < 300
    detail = f"answered {answer.status} {answer.text}".strip() if isinstance(answer, Answer) else answer.detail
    if not is_taken:
        raise Refused(f"endpoint {name}: {detail}", "nothing was changed; events go on by their schedule")
    if as_json:
        emit("webhook.test", {"delivered": name, "answer": detail})
    else:
        say(plain(f"delivered to {name}: {detail}"))


async def _sent(endpoint: Endpoint) -> Answer | Unanswered:
    clock = SystemClock()
    now = clock.now()
    message = Message(id=Ids(clock).message_id(), type=TEST_TYPE, source="spoolproof", time=now, body=b"{}")
    body = body_of(message)
    keys = [key_of(secret_of(secret)) for secret in endpoint.secrets]
    return await post(
        endpoint.url, headers_of(message, body, keys, now), body, rules_of(load_settings().of(WebhookSettings))
    )


def _document(endpoint: Endpoint, waiting: int = 0) -> dict[str, Any]:
    return {
        "name": endpoint.name,
        "state": endpoint.state,
        "url": endpoint.url,
        "types": list(endpoint.types),
        "secrets": [endpoints.shown(secret) for secret in endpoint.secrets],
        "waiting": waiting,
        "failing_since": endpoint.failing_since,
        "note": endpoint.note or None,
    }


def _tell(command: str, text: str, fields: dict[str, Any], made: str | None, as_json: bool) -> None:
    """Say what was done, with the secret that was made, for the only time."""
    if as_json:
        emit(command, {**fields, "secret": made}, reveal={"secret"})
        return
    say(text)
    if made is not None:
        say(f"secret, shown this once: {made}")


def _done(command: str, verb: str, name: str, as_json: bool) -> None:
    if as_json:
        emit(command, {verb: name})
    else:
        say(f"{verb} {name}")


GROUP = Group(
    "webhook",
    {"ls": ls, "add": add, "pause": pause, "resume": resume, "rotate": rotate, "test": send_test, "rm": rm},
    "Endpoints that get events as signed HTTP requests.",
)
