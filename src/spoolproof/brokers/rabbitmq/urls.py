"""`amqp://` and `amqps://` URLs: checked once, at construction, all faults together.

Passwords and the whole query never leave this module but inside pika's parameters.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import pika

from spoolproof import limits
from spoolproof.errors import SettingsError
from spoolproof.urls import redact_url

QUERY = ("heartbeat", "cafile", "certfile", "keyfile", "server_hostname")
_PORTS = {"amqp": 5672, "amqps": 5671}
_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
# TCP_USER_TIMEOUT stays unset: Linux would cut a connection whose broker stopped reading during an alarm.


@dataclass(frozen=True, slots=True)
class Address:
    """One broker node. shown: its URL without password and query."""

    shown: str
    host: str
    port: int
    vhost: str
    user: str
    password: str = field(repr=False)
    heartbeat_seconds: int
    tls: ssl.SSLContext | None
    server_hostname: str

    def parameters(self, connection_name: str) -> Any:
        """Return pika's parameters. Time limits are off: the caller limits the whole attempt."""
        return pika.ConnectionParameters(
            host=self.host,
            port=self.port,
            virtual_host=self.vhost,
            credentials=pika.PlainCredentials(self.user, self.password),
            heartbeat=self.heartbeat_seconds,
            ssl_options=pika.SSLOptions(self.tls, self.server_hostname) if self.tls else None,
            connection_attempts=1,
            socket_timeout=None,
            stack_timeout=None,
            blocked_connection_timeout=None,
            client_properties={"connection_name": connection_name, "product": "spoolproof"},
            tcp_options=dict(_KEEPALIVE),
        )


def parse_urls(urls: Sequence[str]) -> list[Address]:
    """Return the addresses in the given order. Raises SettingsError with every fault of every URL."""
    faults: list[str] = [] if urls else ["SPOOLPROOF_BROKER: give at least one amqp:// or amqps:// URL"]
    addresses = []
    for url in urls:
        try:
            addresses.append(_parse(url))
        except ValueError as error:
            faults.append(f"SPOOLPROOF_BROKER: {redact_url(url)}: {error}")
    if faults:
        raise SettingsError(faults)
    return addresses


def _parse(url: str) -> Address:
    parts = urlsplit(url)
    if parts.scheme not in _PORTS:
        raise ValueError("the scheme must be amqp:// or amqps://")
    if not parts.hostname:
        raise ValueError("names no host")
    query = _query(parts)
    heartbeat = query.get("heartbeat", str(limits.HEARTBEAT_SECONDS))
    if not heartbeat.isdigit() or not 1 <= int(heartbeat) <= 600:
        raise ValueError(
            f"heartbeat={heartbeat!r} must be whole seconds from 1 to 600; without one a dead peer is kept"
        )
    return Address(
        shown=redact_url(url),
        host=parts.hostname,
        port=parts.port or _PORTS[parts.scheme],
        vhost=unquote(parts.path[1:]) or "/",
        user=unquote(parts.username or "guest"),
        password=unquote(parts.password or "guest"),
        heartbeat_seconds=int(heartbeat),
        tls=_tls(query) if parts.scheme == "amqps" else None,
        server_hostname=query.get("server_hostname", parts.hostname),
    )


def _query(parts: SplitResult) -> dict[str, str]:
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = [name for name in query if name not in QUERY]
    if unknown:
        raise ValueError(f"unknown query {', '.join(unknown)}; accepted: {', '.join(QUERY)}")
    if parts.scheme == "amqp" and (useless := [name for name in query if name != "heartbeat"]):
        raise ValueError(f"{', '.join(useless)} needs amqps://")
    return query


def _tls(query: dict[str, str]) -> ssl.SSLContext:
    if "keyfile" in query and "certfile" not in query:
        raise ValueError("keyfile needs certfile")
    try:
        context = ssl.create_default_context(cafile=query.get("cafile"))
        if "certfile" in query:
            context.load_cert_chain(query["certfile"], query.get("keyfile"))
    except OSError as error:  # a missing file, or ssl.SSLError for a wrong one
        named = ", ".join(f"{name}={query[name]}" for name in ("cafile", "certfile", "keyfile") if name in query)
        raise ValueError(f"{named or 'system certificates'}: {error}") from error
    return context
