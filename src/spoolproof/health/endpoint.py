"""From a request to the bytes of its answer, for whatever server carries it.

Detail goes to callers on this machine only, and only when nothing says a proxy on this machine speaks for somebody
else, unless SPOOLPROOF_HEALTH_DETAIL says otherwise.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from dataclasses import dataclass, replace

import msgspec

from spoolproof.errors import MissingExtra
from spoolproof.health.body import Answer, document_at
from spoolproof.health.snapshot import Snapshot
from spoolproof.telemetry.prometheus import CONTENT_TYPE, exposition

FORWARDING_HEADERS = frozenset(
    {"forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "x-client-ip"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What an answer depends on. path: without query. client: the peer's address, None when there is none. headers:
    names in lower case."""

    method: str
    path: str
    client: str | None
    headers: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer; body: what GET sends, which HEAD leaves out."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


METRICS = "/metrics"


def is_ours(path: str) -> bool:
    """Tell whether a path, with or without a slash at its end, is one that is answered here."""
    path = path.rstrip("/")
    return path == METRICS or document_at(path) is not None


def respond(request: Request, snapshot: Snapshot) -> Response:
    """Answer a request from a snapshot, without I/O."""
    response = _respond(request, snapshot)
    return replace(response, body=b"") if request.method == "HEAD" else response


def _respond(request: Request, snapshot: Snapshot) -> Response:
    if request.method not in ("GET", "HEAD"):
        return encode(Answer(405, {"status": "method_not_allowed"}), ("allow", "GET, HEAD"))
    if request.path.rstrip("/") == METRICS:
        return _metrics()
    document = document_at(request.path.rstrip("/"))
    if document is None:
        return encode(Answer(404, {"status": "not_found"}))
    return encode(document(snapshot, may_see_detail(request, snapshot.detail)))


def _metrics() -> Response:
    try:
        body = exposition()
    except MissingExtra as error:
        return encode(Answer(501, {"status": "not_implemented", "reason": str(error)}))
    headers = (("content-type", CONTENT_TYPE), ("content-length", str(len(body))), ("cache-control", "no-store"))
    return Response(200, headers, body)


def may_see_detail(request: Request, policy: str) -> bool:
    """Tell whether a caller may see URLs, counts and errors. policy: loopback, always or never."""
    if policy != "loopback":
        return policy == "always"
    if request.client is None or not FORWARDING_HEADERS.isdisjoint(request.headers):
        return False
    try:
        address = ipaddress.ip_address(request.client)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def encode(answer: Answer, *headers: tuple[str, str]) -> Response:
    """Return an answer as bytes with its headers."""
    body = msgspec.json.encode(answer.body)
    always = (
        ("content-type", "application/json"),
        ("content-length", str(len(body))),
        ("cache-control", "no-store"),
    )
    return Response(answer.status, always + headers, body)
