"""What the commands of dead letters share: which ones are meant, who asks for them, and how one looks on a terminal."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Annotated, Any, TypeVar

import typer

from spoolproof.cli.exits import Refused, Usage
from spoolproof.cli.output import cell, plain
from spoolproof.cli.store import with_store
from spoolproof.cli.target import load_service
from spoolproof.clock import SystemClock
from spoolproof.dead_letters.desk import Desk, Tools
from spoolproof.ids import Ids
from spoolproof.ports.store import Store
from spoolproof.telemetry.redaction import masked, masked_text

T = TypeVar("T")

_OPTIONS: Mapping[str, tuple[str, str]] = {
    "consumer": ("--consumer", "The queue that gave up, or relay:DESTINATION."),
    "because": ("--reason", "Why it was given up: handler, decode, unroutable, …"),
    "type": ("--type", "The event's wire name."),
    "fingerprint": ("--group", "The fingerprint of what failed; `dlq groups` shows it."),
    "key": ("--key", "The ordering key."),
    "message_id": ("--message", "The id of the message."),
    "text": ("--text", "Words of the error, in any case."),
    "since": ("--since", "Last failed from then on: 2026-11-22T01:30 (UTC), or 15m, 2h, 3d ago."),
    "until": ("--until", "Last failed before then."),
}
_AGO = re.compile(r"(\d+)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def filtered(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say which dead letters; it gets them as `wanted`, without those not given."""

    @wraps(command)
    def filled(**given: Any) -> None:
        wanted = {name: value for name in _OPTIONS if (value := given.pop(name, None)) is not None}
        if "because" in wanted:
            wanted["reason"] = wanted.pop("because")
        for name in ("since", "until"):
            if name in wanted:
                wanted[name] = _instant(name, wanted[name])
        command(wanted=wanted, **given)

    own = [one for one in inspect.signature(command, eval_str=True).parameters.values() if one.name != "wanted"]
    words = dict(_OPTIONS)
    if any(one.name == "reason" for one in own):  # there it says why one acts
        words["because"] = ("--because", words["because"][1])
    options = {name: Annotated[str | None, typer.Option(word, help=text)] for name, (word, text) in words.items()}
    by_name = inspect.Parameter.KEYWORD_ONLY
    parameters = [one.replace(kind=by_name) for one in own]
    parameters += [inspect.Parameter(name, by_name, default=None, annotation=kind) for name, kind in options.items()]
    filled.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    filled.__annotations__ = {one.name: one.annotation for one in parameters}
    return filled


def _instant(name: str, text: str) -> datetime:
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return SystemClock().now() - timedelta(seconds=int(ago[1]) * _SECONDS[ago[2]])
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Usage(
            f"--{name} {text!r} is no time", "write 2026-11-22T01:30, or 15m, 2h, 3d for that long ago"
        ) from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def at_desk(work: Callable[[Desk], Awaitable[T]], service: str | None = None) -> T:
    """Run `work` on the dead letters of the settings' store. service: MODULE:SERVICE that can read the messages."""
    decode = None if service is None else load_service(service).dead_letters.decode
    clock = SystemClock()

    async def run(store: Store) -> T:
        return await work(Desk(Tools(store=store, clock=clock, ids=Ids(clock), decode=decode)))

    return with_store(run)


def confirm(question: str, yes: bool) -> None:
    """Ask, unless the answer was given beforehand. Raises Refused."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise Refused(f"{plain(question)} nobody is there to answer", "add --yes")
    if not typer.confirm(plain(question), err=True):
        raise Refused("not confirmed; nothing was done", "answer y, or add --yes")


def page(letter: Mapping[str, Any], *, whole: bool) -> str:
    """Return one dead letter for a terminal, from its document. whole: without masking what looks like a secret."""
    if not whole:
        hidden = ("message", "original_body", "stack", "error", "note")
        letter = {**letter, **{name: masked(letter[name]) for name in hidden}}
    told = ("message", "audit", "history", "stack", "original_body", "attempts")
    lines = [f"{name:16} {cell(value)}" for name, value in letter.items() if name not in told]
    lines += ["", "attempts"]
    lines += [f"  {cell(one.at)} {one.host} {one.error_class}: {one.error}" for one in letter["history"]]
    lines += ["", "audit"]
    lines += [f"  {cell(one.at)} {one.actor} {one.verb} {one.detail}".rstrip() for one in letter["audit"]]
    message = letter["message"]
    lines += ["", "headers", *(f"  {name}: {value}" for name, value in message["headers"].items())]
    lines += ["", "body", _text_of(message)]
    if letter["original_body"] is not None:
        lines += ["", "body before the first edit", _text_of(letter["original_body"])]
    if letter["stack"]:
        lines += ["", "stack", letter["stack"].rstrip()]
    text = "\n".join(lines)
    return text if whole else masked_text(text)


def _text_of(document: Mapping[str, Any]) -> str:
    return str(document.get("body", "not text; --json shows it in base64"))
