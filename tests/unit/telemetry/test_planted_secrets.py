"""A secret that a user's code lets slip, planted everywhere it could come from, is in nothing that is shown."""

from __future__ import annotations

import asyncio
import io
import logging
from pathlib import Path

import msgspec
import pytest

from spoolproof import Service
from spoolproof.cli.app import invoke
from spoolproof.cli.output import say, visible
from spoolproof.dead_letters.edit import edited
from spoolproof.errors import InvalidMessage
from spoolproof.health.body import dependencies, summary
from spoolproof.health.snapshot import Local, Snapshot
from spoolproof.settings import Settings
from spoolproof.telemetry.logging import Lines
from spoolproof.telemetry.settings import LogSettings
from spoolproof.testing.conformance._messages import CLOCK, make_dead_letter, make_message

PLANTED = "pl4nted-secret"
BODY = msgspec.json.encode({"order_id": 42, "login": {"password": PLANTED}, "card": "4111111111111111"})
ERROR = f"connecting to amqp://shop:{PLANTED}@rabbit/ with token={PLANTED} failed"


@pytest.mark.parametrize("form", ["json", "text"])
async def test_no_log_line_has_it(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the line, nor its fields, nor the traceback, nor what a user's own line carries."""
    stream = io.StringIO()
    lines, root = Lines(stream), logging.getLogger()
    lines.use(LogSettings(log=form))  # type: ignore[arg-type]
    monkeypatch.setattr(root, "handlers", [lines])
    service = Service("shop")

    @service.on("order.placed", attempts=1)
    async def book(order: dict) -> None:  # type: ignore[type-arg]
        logging.getLogger("mine").warning("calling", extra={"api_key": PLANTED, "sent": {"cookie": PLANTED}})
        raise ValueError(ERROR)

    async with service.test() as app:
        await app.publish(msgspec.json.decode(BODY), type="order.placed")
        await app.settled()
        await app.advance(600)
        assert app.dead_letters

    assert "dead_letter" in stream.getvalue() or "given_up" in stream.getvalue()
    assert "amqp://shop:***@rabbit/" in stream.getvalue()
    assert PLANTED not in stream.getvalue()


def test_no_health_body_has_it() -> None:
    """The reason of a breaker is the text of somebody's error."""
    local = Local(is_started=True, issues=(f"breaker pay: open since now: {ERROR}",))
    snapshot = Snapshot(at=CLOCK.now(), service="shop", version="1", local=local)
    for document in (summary, dependencies):
        shown = str(document(snapshot, True).body)
        assert "breaker pay" in shown
        assert PLANTED not in shown


def test_no_command_shows_it_but_the_one_that_is_asked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    message = make_message(body=BODY, headers={"X-Api-Key": PLANTED, "h": "\x1b[2J"})
    letter = make_dead_letter(message, error=ERROR, stack=f"Traceback\nValueError: {ERROR}")

    async def prepare() -> str:
        service = Service("shop", settings=Settings(store=url, broker="memory://"))

        @service.reviews.action("refund", "approve")
        async def approve(decision: object, tx: object) -> None: ...

        await service.start(only=())
        await service.runtime.store.dead_letters.add(letter)
        opened = await service.reviews.open("refund", "42", "Refund?", evidence={"login": {"password": PLANTED}})
        await service.stop()
        return opened.id

    item = asyncio.run(prepare())
    monkeypatch.setenv("SPOOLPROOF_STORE", url)
    for command in ("dlq ls", "dlq groups", f"dlq show {letter.id}", "review ls", f"review show {item}"):
        for more in ([], ["--json"]):
            assert 0 == invoke([*command.split(), *more])
            shown = capsys.readouterr().out
            assert not [one for one in (PLANTED, "4111111111111111", "\x1b") if one in shown], command
    assert 0 == invoke(["dlq", "show", letter.id, "--payload"])
    shown = capsys.readouterr().out
    assert f'"password":"{PLANTED}"' in shown
    assert "\x1b" not in shown
    assert 0 == invoke(["dlq", "show", letter.id, "--payload", "--json"])
    assert BODY.decode() == msgspec.json.decode(capsys.readouterr().out)["dead_letter"]["message"]["body"]


def test_a_masked_body_never_becomes_the_body() -> None:
    """Who edits what a masked view showed would send `***` in the place of the password."""
    message = make_message(body=BODY)
    with pytest.raises(InvalidMessage, match="--payload"):
        edited(message, BODY.replace(PLANTED.encode(), b"***"), "new", decode=None, force=True)


def test_a_terminal_obeys_nothing_of_a_stranger(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\x1b]0;title\x07b\u202ec\x9bd\n\te")
    assert "a\\x1b]0;title\\x07b\\u202ec\\x9bd\n\te\n" == capsys.readouterr().out
    assert "ö 漢" == visible("ö 漢")
