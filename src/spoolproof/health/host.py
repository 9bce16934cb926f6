"""What the application around the health endpoint would have answered if the endpoint were not mounted in it.

A mount at "/" matches every path, so its host finds nothing partly right any more: a path that lacks or has a slash too
much is not redirected, a method that is not allowed is not refused with 405, and the host's own 404 is never asked for.
What is not ours goes to the host's router once more, with everything in it but such mounts.
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


def host_without(kind: type, scope: Scope) -> Application | None:
    """Return the host as it is without applications of this kind mounted at its root; None if it has none, or is not
    made of Starlette's routers, as FastAPI's are."""
    router = getattr(scope.get("app"), "router", None)
    routes = getattr(router, "routes", None)
    if router is None or not isinstance(routes, list):
        return None
    others = [route for route in routes if not _is_root_mount_of(kind, route)]
    if len(others) == len(routes):
        return None
    twin = copy.copy(router)
    twin.routes = others
    handle: Application = getattr(twin, "app", twin)  # its routing, without the middleware that has run already
    return handle


def _is_root_mount_of(kind: type, route: object) -> bool:
    mounted = getattr(route, "_base_app", None) or getattr(route, "app", None)
    return isinstance(mounted, kind) and getattr(route, "path", None) == ""
