"""The health endpoint as a plain ASGI application: mount it anywhere, no framework needed.

Usable before the service starts; it then answers that it is starting. Mounted at the root of a FastAPI or Starlette
application it answers its own paths and leaves every other to that application, in whatever order they are declared.
"""

from __future__ import annotations

from collections.abc import Callable

from spoolproof.health.endpoint import Request, is_ours, respond
from spoolproof.health.host import Receive, Scope, Send, host_without
from spoolproof.health.snapshot import Snapshot


class Health:
    """`service.health`: answers /live, /ready, /health and their like from memory."""

    def __init__(self, view: Callable[[], Snapshot]) -> None:
        self._view = view

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request. Raises ValueError for other protocols, as ASGI asks of who does not speak them."""
        path = _path(scope)
        if scope["type"] != "http" or not is_ours(path):
            host = host_without(Health, scope)
            if host is not None:
                await host(scope, receive, send)
                return
        if scope["type"] != "http":
            raise ValueError(f"service.health speaks HTTP, not {scope['type']}")
        client = scope.get("client")
        request = Request(
            method=scope["method"],
            path=path,
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
    path: str = scope.get("path", "")
    root: str = scope.get("root_path", "")
    if is_ours(path) or not root or not path.startswith(root):
        return path
    return path[len(root) :].rstrip("/") or "/health"
