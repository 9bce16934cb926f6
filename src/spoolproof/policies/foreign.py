"""What exceptions and responses of other libraries mean: HTTP statuses, SQLSTATEs, class names.

Nothing is imported: classes are matched by qualified names in their MRO, statuses by the attributes that hold them. So
a library that is not installed costs nothing, and one that is needs no adapter. Sources: RFC 9110 (HTTP), RFC 6585
(429), PostgreSQL's table of error codes (appendix A of its manual)."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any
from weakref import WeakKeyDictionary

from spoolproof.policies.verdict import Kind, Verdict, verdict_of

Meaning = tuple[Kind, bool]  #: what it is, and whether the effect may have happened

_NOT_SENT: Meaning = (Kind.TRANSIENT, False)
_LOST: Meaning = (Kind.TRANSIENT, True)
_TIMED_OUT: Meaning = (Kind.TIMEOUT, True)
_LOCAL: Meaning = (Kind.LOCAL, False)
_REFUSED: Meaning = (Kind.PERMANENT, False)
_OVERLOADED: Meaning = (Kind.OVERLOADED, False)
_BUG: Meaning = (Kind.BUG, False)

#: Qualified names, most derived first is what the MRO gives. A pool that was empty never sent anything.
_CLASSES: Mapping[str, Meaning] = {
    "httpx.PoolTimeout": _LOCAL,
    "httpx.ConnectTimeout": _NOT_SENT,
    "httpx.ConnectError": _NOT_SENT,
    "httpx.TimeoutException": _TIMED_OUT,
    "httpx.NetworkError": _LOST,
    "httpx.LocalProtocolError": _BUG,
    "httpx.ProtocolError": _LOST,
    "httpx.ProxyError": _NOT_SENT,
    "httpx.UnsupportedProtocol": _BUG,
    "httpx.InvalidURL": _BUG,
    "aiohttp.client_exceptions.ConnectionTimeoutError": _NOT_SENT,
    "aiohttp.client_exceptions.ServerTimeoutError": _TIMED_OUT,
    "aiohttp.client_exceptions.ClientConnectorError": _NOT_SENT,
    "aiohttp.client_exceptions.ServerDisconnectedError": _LOST,
    "aiohttp.client_exceptions.ClientOSError": _LOST,
    "aiohttp.client_exceptions.ClientPayloadError": _LOST,
    "aiohttp.client_exceptions.ClientConnectionError": _LOST,
    "aiohttp.client_exceptions.InvalidURL": _BUG,
    "requests.exceptions.ConnectTimeout": _NOT_SENT,
    "requests.exceptions.Timeout": _TIMED_OUT,
    "requests.exceptions.SSLError": _NOT_SENT,
    "requests.exceptions.ProxyError": _NOT_SENT,
    "requests.exceptions.ConnectionError": _LOST,
    "requests.exceptions.ChunkedEncodingError": _LOST,
    "urllib3.exceptions.EmptyPoolError": _LOCAL,
    "urllib3.exceptions.ConnectTimeoutError": _NOT_SENT,
    "urllib3.exceptions.NewConnectionError": _NOT_SENT,
    "urllib3.exceptions.ReadTimeoutError": _TIMED_OUT,
    "urllib3.exceptions.ProtocolError": _LOST,
    "redis.exceptions.MaxConnectionsError": _LOCAL,
    "redis.exceptions.BusyLoadingError": _NOT_SENT,
    "redis.exceptions.AuthenticationError": _NOT_SENT,
    "redis.exceptions.ReadOnlyError": _NOT_SENT,
    "redis.exceptions.TimeoutError": _TIMED_OUT,
    "redis.exceptions.ConnectionError": _LOST,
    "redis.exceptions.ResponseError": _REFUSED,
    "asyncpg.exceptions._base.InterfaceError": _NOT_SENT,
    "pika.exceptions.StreamLostError": _LOST,
    "pika.exceptions.AMQPConnectionError": _NOT_SENT,
    "pika.exceptions.AMQPChannelError": _LOST,
    "pika.exceptions.AMQPError": _LOST,
    "botocore.exceptions.ConnectTimeoutError": _NOT_SENT,
    "botocore.exceptions.EndpointConnectionError": _NOT_SENT,
    "botocore.exceptions.ReadTimeoutError": _TIMED_OUT,
    "botocore.exceptions.ConnectionClosedError": _LOST,
    "botocore.exceptions.HTTPClientError": _LOST,
    "sqlalchemy.exc.TimeoutError": _LOCAL,
}

_GRPC: Mapping[str, Meaning] = {
    "UNAVAILABLE": _LOST,
    "DEADLINE_EXCEEDED": _TIMED_OUT,
    "RESOURCE_EXHAUSTED": (Kind.RATE_LIMITED, False),
    "ABORTED": _NOT_SENT,
    "INTERNAL": _LOST,
    "UNKNOWN": _LOST,
    "UNAUTHENTICATED": _NOT_SENT,
}

_known: WeakKeyDictionary[type[BaseException], tuple[Meaning | None]] = WeakKeyDictionary()


def meaning_of_class(kind: type[BaseException]) -> Meaning | None:
    """Return what a library's exception class means, by the names in its MRO; None for one that is not in the table."""
    found = _known.get(kind)
    if found is None:
        names = (f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__)
        # httpx and grpc name their classes after the package, others after the module that defines them
        short = (name if name in _CLASSES else f"{name.split('.')[0]}.{name.rsplit('.', 1)[-1]}" for name in names)
        found = _known[kind] = (next((_CLASSES[name] for name in short if name in _CLASSES), None),)
    return found[0]


def verdict_of_foreign(error: BaseException, wall: datetime) -> Verdict | None:
    """Return what an exception says by its status, SQLSTATE or class; None when it says nothing we know."""
    response = getattr(error, "response", None)
    status = http_status(error)
    if status is None and response is not None:
        status = http_status(response)
    if status is not None:
        asked = retry_after_seconds(response if response is not None else error, wall)
        return verdict_of_status(status, asked)
    state = _sqlstate(error)
    meaning = None if state is None else _meaning_of_sqlstate(state)
    if meaning is None:
        meaning = _grpc(error) or _of_os_error(error) or meaning_of_class(type(error))
    if meaning is None:
        return None
    asked = retry_after_seconds(error, wall) if meaning[0] is not Kind.PERMANENT else None
    return verdict_of(meaning[0], is_unknown=meaning[1], retry_after_seconds=asked)


# --- HTTP ------------------------------------------------------------------------------------------------------------


def http_status(holder: object) -> int | None:
    """Return the HTTP status an exception or response carries (`status` or `status_code`, 100 to 599)."""
    if isinstance(holder, Mapping):  # botocore
        metadata = holder.get("ResponseMetadata")
        status = metadata.get("HTTPStatusCode") if isinstance(metadata, Mapping) else None
        return status if isinstance(status, int) and 100 <= status <= 599 else None
    for name in ("status", "status_code"):
        status = getattr(holder, name, None)
        if isinstance(status, int) and not isinstance(status, bool) and 100 <= status <= 599:
            return int(status)
    return None


def verdict_of_status(status: int, asked_seconds: float | None) -> Verdict | None:
    """Return what an HTTP status means; None below 400."""
    reason = f"HTTP {status}"
    if status < 400:
        return None
    if status == 429:
        return verdict_of(Kind.RATE_LIMITED, retry_after_seconds=asked_seconds, reason=reason)
    if status == 503:
        # without Retry-After it may be a proxy's answer after a reset, and the request may have been worked on
        return verdict_of(
            Kind.OVERLOADED, is_unknown=asked_seconds is None, retry_after_seconds=asked_seconds, reason=reason
        )
    if status in (401, 407, 408, 425):
        return verdict_of(Kind.TRANSIENT, retry_after_seconds=asked_seconds, reason=reason)
    if status in (501, 505) or status < 500:
        return verdict_of(Kind.PERMANENT, reason=reason)
    return verdict_of(Kind.TRANSIENT, is_unknown=True, retry_after_seconds=asked_seconds, reason=reason)


def retry_after_seconds(holder: object, wall: datetime) -> float | None:
    """Return what Retry-After asks for, seconds or HTTP date, above 0; None for garbage and for what is past."""
    value: Any = getattr(holder, "retry_after_seconds", None)
    if value is None:
        headers = getattr(holder, "headers", None)
        get = getattr(headers, "get", None)
        if get is None:
            return None
        value = get("retry-after") or get("Retry-After")
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    seconds: float | None = None
    if isinstance(value, str):
        text = value.strip()
        is_number = text.isascii() and text.isdigit() and len(text) <= 12
        seconds = float(text) if is_number else _seconds_until(text, wall)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    return seconds if seconds is not None and 0 < seconds < float("inf") else None


def _seconds_until(text: str, wall: datetime) -> float | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=wall.tzinfo)
    return (moment - wall).total_seconds()


# --- databases, gRPC, the operating system ---------------------------------------------------------------------------


def _sqlstate(error: BaseException) -> str | None:
    for holder in (error, getattr(error, "orig", None), error.__cause__):
        for name in ("sqlstate", "pgcode"):
            state = getattr(holder, name, None)
            if isinstance(state, str) and len(state) == 5:
                return state
    return None


def _meaning_of_sqlstate(state: str) -> Meaning | None:
    if state in ("40001", "40P01", "55P03", "25006", "08001", "08004"):
        return _NOT_SENT
    if state.startswith("08") or state in ("57P01", "57P02", "57P03"):
        return _LOST
    if state.startswith("53"):
        return _OVERLOADED
    return _REFUSED if state[:2] in ("22", "23", "42") else None


def _grpc(error: BaseException) -> Meaning | None:
    code = getattr(error, "code", None)
    if not callable(code) or not any(base.__module__.split(".")[0] == "grpc" for base in type(error).__mro__):
        return None
    try:
        name = getattr(code(), "name", None)
    except Exception:  # another library's method; without a status the class has to do
        return None
    return _GRPC.get(name, _REFUSED) if isinstance(name, str) and name != "OK" else None


def _of_os_error(error: BaseException) -> Meaning | None:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE):
        return _LOCAL
    if meaning_of_class(type(error)) is not None:
        return None  # the library knows better than the builtin class it derives from
    if isinstance(error, TimeoutError):
        return _TIMED_OUT
    if isinstance(error, ssl.SSLCertVerificationError | ConnectionRefusedError | socket.gaierror):
        return _NOT_SENT
    if isinstance(error, ssl.SSLError):
        return _NOT_SENT if "HANDSHAKE" in (getattr(error, "reason", None) or "") else _LOST
    if isinstance(error, ConnectionError):
        return _LOST
    if isinstance(error, OSError) and error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN):
        return _NOT_SENT
    return None
