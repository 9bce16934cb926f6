"""Requests and who may see what."""

from __future__ import annotations

from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from spoolproof import Service
from spoolproof.health.asgi import Health
from spoolproof.health.endpoint import Request, may_see_detail, respond
from spoolproof.health.snapshot import Local, Snapshot

SNAPSHOT = Snapshot(at=datetime(2026, 1, 1, tzinfo=UTC), service="shop", version="1", local=Local(is_started=True))


@pytest.mark.parametrize(
    ("client", "headers", "policy", "may"),
    [
        ("127.0.0.1", [], "loopback", True),
        ("127.8.9.1", [], "loopback", True),
        ("::1", [], "loopback", True),
        ("::ffff:127.0.0.1", [], "loopback", True),
        ("10.0.0.7", [], "loopback", False),
        ("::ffff:10.0.0.7", [], "loopback", False),
        (None, [], "loopback", False),
        ("testclient", [], "loopback", False),
        ("127.0.0.1", ["x-forwarded-for"], "loopback", False),
        ("127.0.0.1", ["forwarded"], "loopback", False),
        ("127.0.0.1", ["x-real-ip"], "loopback", False),
        ("127.0.0.1", ["via"], "loopback", False),
        ("127.0.0.1", ["accept"], "loopback", True),
        ("10.0.0.7", ["via"], "always", True),
        ("127.0.0.1", [], "never", False),
    ],
)
def test_detail_is_for_this_machine_unless_it_speaks_for_another(
    client: str | None, headers: list[str], policy: str, may: bool
) -> None:
    """A proxy on this machine makes the whole internet look local."""
    request = Request(method="GET", path="/health/dependencies", client=client, headers=headers)

    assert may is may_see_detail(request, policy)


@pytest.mark.parametrize(
    ("method", "path", "status", "has_body"),
    [
        ("GET", "/live", 200, True),
        ("HEAD", "/live", 200, False),
        ("GET", "/live/", 200, True),
        ("GET", "/liver", 404, True),
        ("HEAD", "/liver", 404, False),
        ("GET", "/", 404, True),
        ("GET", "/nothing", 404, True),
        ("POST", "/live", 405, True),
        ("DELETE", "/nowhere", 405, True),
    ],
)
def test_every_answer_is_json_that_no_cache_keeps(method: str, path: str, status: int, has_body: bool) -> None:
    """A cached probe is a lie; a HEAD says how long the body would be."""
    response = respond(Request(method=method, path=path, client="127.0.0.1"), SNAPSHOT)
    headers = dict(response.headers)

    assert (status, has_body) == (response.status, bool(response.body))
    assert ("application/json", "no-store") == (headers["content-type"], headers["cache-control"])
    assert int(headers["content-length"]) > 0
    assert ("GET, HEAD" if status == 405 else None) == headers.get("allow")


async def get(app: Health, path: str, root_path: str = "", client: object = ("127.0.0.1", 1)) -> tuple[int, Any]:
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "root_path": root_path, "headers": [], "client": client}
    await app(scope, receive, send)
    return sent[0]["status"], msgspec.json.decode(sent[1]["body"])


@pytest.mark.parametrize(
    ("root_path", "path", "status"),
    [
        ("", "/live", 200),
        ("/health", "/health/live", 200),
        ("/health", "/health/livez", 200),
        ("/health", "/health/dependencies", 503),
        ("/health", "/health/", 503),
        ("/ops/health", "/ops/health/ready", 503),
        ("/ops/health", "/ops/health", 503),
        ("/health", "/health/nothing", 404),
        ("", "/", 404),
    ],
)
async def test_the_endpoint_answers_wherever_it_is_mounted(root_path: str, path: str, status: int) -> None:
    """README: `app.mount("/health", service.health)`; others mount it at the root."""
    assert status == (await get(Service("shop").health, path, root_path))[0]


async def test_a_service_that_has_not_started_says_so() -> None:
    """The application serves before its lifespan has run; a probe must not be told that work is welcome."""
    health = Service("shop").health

    assert (503, {"status": "unavailable", "reason": "starting", "accepting": False}) == await get(health, "/ready")
    assert (503, {"status": "unavailable", "reason": "starting"}) == await get(health, "/startupz")
    assert (200, {"status": "ok"}) == await get(health, "/live")


async def test_other_protocols_are_refused_as_asgi_asks() -> None:
    """A server that offers lifespan or websocket must learn that nobody listens."""
    with pytest.raises(ValueError, match="speaks HTTP, not lifespan"):
        await Service("shop").health({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
