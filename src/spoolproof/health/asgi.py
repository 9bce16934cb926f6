"""The health endpoint as a plain ASGI application: mount it anywhere, no framework needed.

Usable before the service starts; it then answers that it is starting.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from spoolproof.health.body import document_at
from spoolproof.health.endpoint import Request, respond
from spoolproof.health.snapshot import Snapshot

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Health:
    """`service.health`: answers /live, /ready, /health and their like from memory."""

    def __init__(self, view: Callable[[], Snapshot]) -> None:
        self._view = view

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request. Raises ValueError for other protocols, as ASGI asks of who does not speak them."""
        if scope["type"] != "http":
            raise ValueError(f"service.health speaks HTTP, not {scope['type']}")
        client = scope.get("client")
        request = Request(
            method=scope["method"],
            path=_path(scope),
            client=client[0] if client else None,
            headers=[name.decode("latin-1").lower() for name, _ in scope["headers"]],
        )
        response = respond(request, self._view())
        headers = [(name.encode(), value.encode()) for name, value in response.headers]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})


def _path(scope: Scope) -> str:
    """Return the path as we name it: as requested, or below the place we are mounted at.

    `mount("/health", …)` makes `/health/live` of `/live`, which is a name of its own; `mount("/ops", …)` does not.
    """
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if document_at(path.rstrip("/")) is not None or not root or not path.startswith(root):
        return path
    return path[len(root) :].rstrip("/") or "/health"
