"""What really arrives at the other end: HTTP servers of this machine, apprise as it is."""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from spoolproof.alerts.engine import Alert, AlertState
from spoolproof.alerts.notify import Notification, NotTaken
from spoolproof.alerts.rule import Severity
from spoolproof.alerts.rules import BY_NAME
from spoolproof.alerts.settings import AlertSettings
from spoolproof.alerts.sinks import AlertmanagerSink, AppriseSink, make_sinks, request
from spoolproof.clock import SystemClock
from spoolproof.errors import SettingsError
from spoolproof.settings import Settings

CLOCK = SystemClock()


@pytest.fixture(autouse=True)
def no_threads_left() -> Iterator[None]:
    """apprise keeps a pool for ever."""
    yield
    library = importlib.import_module("apprise.apprise")
    library.get_shared_executor().shutdown()
    library._shared_executor = None


@asynccontextmanager
async def receiver(status: int = 200) -> AsyncIterator[tuple[int, list[tuple[str, Any]]]]:
    """An HTTP server that keeps what it is sent."""
    got: list[tuple[str, Any]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        fields = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head.split("\r\n"))
        }
        body = await reader.readexactly(int(fields.get("content-length", 0)))
        got.append((head.split("\r\n")[0], json.loads(body) if body else None))
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], got


def note(state: AlertState = AlertState.FIRING) -> Notification:
    rule = BY_NAME["BreakerOpen"]
    alert = Alert(
        rule=rule.name,
        labels={"policy": "pay"},
        state=state,
        severity=rule.severity,
        since=CLOCK.now(),
        fired_at=CLOCK.now() - timedelta(minutes=3),
        value=1.0,
    )
    return Notification(service="shop", rule=rule, alerts=(alert,))


async def test_apprise_sends_what_is_wrong_what_is_safe_and_what_helps() -> None:
    async with receiver() as (port, got):
        await AppriseSink(f"json://ops:planted@127.0.0.1:{port}/hook", frozenset({Severity.WARN})).send([note()])
    ((line, body),) = got
    assert "POST /hook HTTP/1.1" == line
    assert ("[warn] shop: BreakerOpen firing", "warning") == (body["title"], body["type"])
    for words in ("The breaker of policy pay refuses calls.", "held back", "spoolproof doctor"):
        assert words in body["message"]


async def test_alertmanager_gets_each_alert_with_its_labels_and_its_end() -> None:
    async with receiver() as (port, got):
        sink = AlertmanagerSink(f"http://127.0.0.1:{port}/", CLOCK)
        await sink.send([note(), note(AlertState.RESOLVED)])
    ((line, (firing, resolved)),) = got
    assert "POST /api/v2/alerts HTTP/1.1" == line
    wanted = {"alertname": "BreakerOpen", "severity": "warn", "service": "shop", "policy": "pay"}
    assert wanted == firing["labels"] == resolved["labels"]
    assert "refuses calls" in firing["annotations"]["summary"]
    assert resolved["endsAt"] < firing["endsAt"]


async def test_a_no_is_a_no_without_its_url() -> None:
    async with receiver(500) as (port, _):
        with pytest.raises(NotTaken, match=r"^it answered 500$"):
            await request("GET", f"http://127.0.0.1:{port}/planted")
        with pytest.raises(NotTaken) as raised:
            await AppriseSink(f"json://x:planted@127.0.0.1:{port}", frozenset(Severity)).send([note()])
    assert "planted" not in str(raised.value)


def test_a_wrong_url_is_a_fault_of_the_start_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPOOLPROOF_ALERT_URLS_PAGE", "json://127.0.0.1:1, planted-nonsense://x:planted@y")
    with pytest.raises(SettingsError, match="SPOOLPROOF_ALERT_URLS_PAGE: URL 2 is no URL that apprise knows") as raised:
        make_sinks(Settings().of(AlertSettings), CLOCK)
    monkeypatch.setenv("SPOOLPROOF_ALERT_HEARTBEAT_URL", "planted")
    with pytest.raises(SettingsError, match="SPOOLPROOF_ALERT_HEARTBEAT_URL: is no http") as other:
        Settings()
    assert "planted" not in f"{raised.value}{other.value}".replace("planted-nonsense", "")


def test_several_urls_are_several_sinks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A comma may belong to a URL."""
    monkeypatch.setenv("SPOOLPROOF_ALERT_URLS_WARN", "json://a.test/x,y json://b.test, json://c.test")
    settings = Settings().of(AlertSettings)
    assert ["json://a.test/x,y", "json://b.test", "json://c.test"] == settings.warn
    assert 3 == len({sink.id for sink in make_sinks(settings, CLOCK)})
