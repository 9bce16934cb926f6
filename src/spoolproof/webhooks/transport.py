"""One POST to a URL: looked up once, checked, and sent to the very addresses that were checked.

A second answer of the DNS is never used: the client is given a resolver that knows the checked addresses and nothing
else, so that TLS and the Host header have the name and the socket has the address. Each request has a connection of its
own: nothing that was checked for one is used for another. Redirects are not followed, proxies of the environment and
cookies not used, and what the receiver says is read as far as people read it.

aiohttp's errors are mapped here and nowhere else.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from spoolproof import limits
from spoolproof.caught import error_text
from spoolproof.clock import AMBIENT
from spoolproof.errors import BlockedAddress, MissingExtra
from spoolproof.webhooks.guard import Rules, Target, target_of, vet

if TYPE_CHECKING:
    import aiohttp

_SHOWN_CHARACTERS = 200

LookUp = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the addresses of a host. Raises OSError."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receiver answered. text: the beginning of its body. retry_after_seconds: as it asked for, at most an hour;
    0 if it did not."""

    status: int
    text: str = ""
    retry_after_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Unanswered:
    """No answer. outcome: failed (nothing was sent), unknown (it may have arrived), or blocked (it must not be)."""

    detail: str
    outcome: str


async def look_up(host: str, port: int) -> Sequence[str]:
    """Return every address of a host, as the system knows it."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def check_installed() -> None:
    """Raise MissingExtra unless webhooks can be sent."""
    try:
        import aiohttp  # noqa: F401
    except ImportError:
        raise MissingExtra("aiohttp", "webhooks") from None


async def vetted(url: str, rules: Rules, look_up: LookUp = look_up) -> tuple[Target, tuple[str, ...]]:
    """Return where a URL leads and the addresses to connect to. Raises BlockedAddress; OSError for an unknown name."""
    target = target_of(url, rules)
    return target, vet(target, await look_up(target.host, target.port), rules)


async def post(
    url: str, headers: Mapping[str, str], body: bytes, rules: Rules, look_up: LookUp = look_up
) -> Answer | Unanswered:
    """Send one request and return how it ended, within 15 s. Raises MissingExtra."""
    check_installed()
    import aiohttp

    try:
        async with asyncio.timeout(limits.WEBHOOK_SECONDS):
            target, addresses = await vetted(url, rules, look_up)
            return await _send(target, addresses, headers, body)
    except BlockedAddress as error:
        return Unanswered(str(error), "blocked")
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, socket.gaierror, UnicodeError) as error:
        return Unanswered(f"no connection: {error_text(error)}", "failed")
    except TimeoutError:
        return Unanswered(f"no answer within {limits.WEBHOOK_SECONDS:g} s; it may have arrived", "unknown")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return Unanswered(f"{error_text(error)}; it may have arrived", "unknown")


async def _send(target: Target, addresses: Sequence[str], headers: Mapping[str, str], body: bytes) -> Answer:
    import aiohttp
    from yarl import URL

    connector = aiohttp.TCPConnector(resolver=_pinned(addresses), use_dns_cache=False, force_close=True)
    async with (
        aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=limits.WEBHOOK_CONNECT_SECONDS),
            skip_auto_headers=("Accept-Encoding",),
            auto_decompress=False,
            trust_env=False,
        ) as session,
        session.post(URL(target.url, encoded=True), data=body, headers=headers, allow_redirects=False) as response,
    ):
        text = await _beginning(response)
        return Answer(response.status, text, _retry_after_seconds(response.headers.get("Retry-After", "")))


async def _beginning(response: aiohttp.ClientResponse) -> str:
    """Return how the body begins. The status has said what matters: a body that breaks off changes nothing."""
    import aiohttp

    read = b""
    try:
        async with asyncio.timeout(limits.WEBHOOK_CONNECT_SECONDS):
            while len(read) < limits.WEBHOOK_ANSWER_BYTES_MAX:
                piece = await response.content.read(limits.WEBHOOK_ANSWER_BYTES_MAX - len(read))
                if not piece:
                    break
                read += piece
    except (TimeoutError, aiohttp.ClientError, OSError):
        pass
    finally:
        response.close()  # what is left of it is not waited for
    return read.decode("utf-8", "replace")[:_SHOWN_CHARACTERS]


def _retry_after_seconds(text: str) -> float:
    seconds = 0.0
    if text.isascii() and text.isdigit():
        seconds = float(text[:10])
    elif text:
        try:
            at = parsedate_to_datetime(text)
        except ValueError:
            return 0.0
        seconds = ((at if at.tzinfo else at.replace(tzinfo=UTC)) - AMBIENT.now()).total_seconds()
    return min(max(0.0, seconds), limits.WEBHOOK_RETRY_AFTER_SECONDS_MAX)


def _pinned(addresses: Sequence[str]) -> aiohttp.abc.AbstractResolver:
    from aiohttp.abc import AbstractResolver, ResolveResult

    class Pinned(AbstractResolver):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            return [
                ResolveResult(
                    hostname=host,
                    host=address,
                    port=port,
                    family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                    proto=socket.IPPROTO_TCP,
                    flags=socket.AI_NUMERICHOST,
                )
                for address in addresses
            ]

        async def close(self) -> None:
            return

    return Pinned()
