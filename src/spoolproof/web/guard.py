"""What holds for every request, whoever sends it: the headers of every answer, where a form may come from, how large
it may be, and by which names the dashboard may be asked for.

The rules are pure functions with a table of cases as their test. Safe methods never change anything, so only the
others are asked where they come from.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from starlette.requests import Request

BODY_BYTES_MAX = 1024 * 1024
SAFE = ("GET", "HEAD", "OPTIONS")
LOOPBACK = ("127.0.0.1", "::1", "localhost", "testclient")
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class TooLarge(Exception):
    """A body of more than BODY_BYTES_MAX."""


def csrf_fault(method: str, headers: Mapping[str, str]) -> str | None:
    """Return why a request is taken for another site's, else None.

    Browsers say where a request comes from; what says nothing is no browser, and needs a credential that no browser
    adds by itself.
    """
    if method in SAFE:
        return None
    site = headers.get("sec-fetch-site")
    if site is not None:
        return None if site in ("same-origin", "none") else f"Sec-Fetch-Site is {site}"
    origin = headers.get("origin")
    if origin is not None:
        same = urlsplit(origin).netloc.lower() == headers.get("host", "").lower() != ""
        return None if same else f"Origin {origin!r} is not this host"
    if "authorization" in headers and "cookie" not in headers:
        return None
    return "neither Sec-Fetch-Site nor Origin says where it comes from"


def host_fault(headers: Mapping[str, str], allowed: Collection[str]) -> str | None:
    """Return why a Host header is refused, else None: a name of another site that was led to loopback."""
    name = (urlsplit(f"//{headers.get('host', '')}").hostname or "").lower()
    return None if name in allowed else f"this dashboard is not asked for as {name!r}"


def loopback_fault(request: Request) -> str | None:
    """Return why a request is not taken for one of this machine, else None."""
    if request.client is None or request.client.host not in LOOPBACK:
        return "it is open to this machine alone"
    if any(name in request.headers for name in ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")):
        return "it came through a proxy, so who asks is not known"
    return None


async def body_of(request: Request) -> bytes:
    """Return the body. Raises TooLarge as soon as it is."""
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > BODY_BYTES_MAX:
        raise TooLarge
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_BYTES_MAX:
            raise TooLarge
    return body
