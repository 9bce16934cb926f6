"""What exceptions and responses of other libraries mean: HTTP statuses, SQLSTATEs, class names.

Nothing is imported: classes are matched by qualified names in their MRO, statuses by the attributes that hold them. So
a library that is not installed costs nothing, and one that is needs no adapter. Sources: RFC 9110 (HTTP), RFC 6585
(429), PEP 249 (Python's database drivers), PostgreSQL's table of error codes (appendix A of its manual), gRPC's "Status
codes and their use in gRPC", botocore's `retries/standard.py` (the codes AWS throttles with).

A client that tries again by itself hides what became of its first try: "refused" at the last one does not say that
nothing was sent. Redis clients do so unless told otherwise, so their ConnectionError stays unknown whatever it says;
urllib3's tries are counted.

Never here: "not unknown" for something that may have been sent."""

from __future__ import annotations

import errno
import socket
import ssl
import traceback
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any
from weakref import WeakKeyDictionary

from spoolproof.policies.judging.foreign_table import (
    AWS_CODES,
    CARRIERS,
    CLASSES,
    GRPC,
    GRPC_NOT_SENT,
    LOCAL,
    LOST,
    NOT_SENT,
    OVERLOADED,
    REFUSED,
    REFUSED_BY_DATABASE,
    TEXTS,
    TIMED_OUT,
    Meaning,
)
from spoolproof.policies.judging.verdict import Kind, Verdict, verdict_of

_SECONDS_MAX = 10**12  #: as many digits as a text may have; a larger whole number may be no float
_CARRIED_MAX = 5  #: how deep to look; requests carries urllib3's error, which carries ssl's
_names: WeakKeyDictionary[type[BaseException], str] = WeakKeyDictionary()


def name_in_table(kind: type[BaseException]) -> str:
    """Return the first qualified name in the class's MRO that the table has; empty when it has none."""
    found = _names.get(kind)
    if found is None:
        # httpx names its classes after the package, others after the module that defines them
        names = (f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__)
        found = _names[kind] = next((name for name in names if name in CLASSES), "")
    return found


def verdict_of_foreign(error: BaseException, wall: datetime) -> Verdict | None:
    """Return what an exception says by its status, SQLSTATE or class; None when it says nothing we know."""
    response = ask(error, "response")
    asked = retry_after_seconds(response, wall)
    if asked is None:
        asked = retry_after_seconds(error, wall)
    meaning = _meaning_of_aws(response)
    if meaning is None:
        status = http_status(error)
        said = verdict_of_status(http_status(response) if status is None else status, asked)
        if said is not None:
            return said
        state = _sqlstate(error)
        meaning = (state and _meaning_of_sqlstate(state)) or _meaning(error)
    if meaning is None:
        return None
    return verdict_of(
        meaning[0], is_unknown=meaning[1], retry_after_seconds=None if meaning[0] is Kind.PERMANENT else asked
    )


def ask(holder: object, name: str) -> Any:
    """Return an attribute; None if there is none, or another library's property raises: it must not hide the error."""
    try:
        return getattr(holder, name, None)
    except Exception:
        return None


def _meaning(error: BaseException, depth: int = 0) -> Meaning | None:
    """Return what the class says, or the error that it carries."""
    found = _grpc(error) or _of_os_error(error)
    if found is not None:
        return found
    name = name_in_table(type(error))
    if not name:
        return _of_database(type(error))
    if name not in CARRIERS or depth == _CARRIED_MAX:
        return _of_text(name, error) or CLASSES[name]
    carried = _carried(error)
    found = None if carried is None else _meaning(carried, depth + 1)
    if found is None:
        return CLASSES[name]
    if name == "urllib3.exceptions.MaxRetryError" and _tries(error) != 1:
        return found[0], True
    return found


def _carried(error: BaseException) -> BaseException | None:
    parameters = ask(error, "kwargs")  # botocore
    candidates = (
        ask(error, "reason"),
        *error.args[:1],
        parameters.get("error") if isinstance(parameters, Mapping) else None,
    )
    return next((one for one in candidates if isinstance(one, BaseException) and one is not error), None)


def _tries(error: BaseException) -> int:
    """Return how often urllib3 tried: it calls itself once more for each try, and tells nobody."""
    frames = traceback.walk_tb(error.__traceback__)
    return sum(
        frame.f_code.co_name == "urlopen" and frame.f_globals.get("__name__", "").endswith("urllib3.connectionpool")
        for frame, _ in frames
    )


def _of_text(name: str, error: BaseException) -> Meaning | None:
    message = _message(error)
    return next((meaning for owner, text, meaning in TEXTS if owner == name and text in message), None)


def _message(error: BaseException) -> str:
    """The message without `__str__`, which is another library's code and may raise."""
    return error.args[0] if error.args and isinstance(error.args[0], str) else ""


# --- HTTP ------------------------------------------------------------------------------------------------------------


def http_status(holder: object) -> int | None:
    """Return the HTTP status an exception or response carries (`status`, `status_code` or `http_status`, 100
    to 599)."""
    if isinstance(holder, Mapping):  # botocore
        metadata = holder.get("ResponseMetadata")
        status = metadata.get("HTTPStatusCode") if isinstance(metadata, Mapping) else None
        return status if isinstance(status, int) and 100 <= status <= 599 else None
    for name in ("status", "status_code", "http_status"):
        status = ask(holder, name)
        if isinstance(status, int) and not isinstance(status, bool) and 100 <= status <= 599:
            return int(status)
    return None


def verdict_of_status(status: int | None, asked_seconds: float | None) -> Verdict | None:
    """Return what an HTTP status means; None without one and below 400."""
    if status is None or status < 400:
        return None
    reason = f"HTTP {status}"
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
    value: Any = ask(holder, "retry_after_seconds")
    if value is None:
        metadata = holder.get("ResponseMetadata") if isinstance(holder, Mapping) else None  # botocore
        headers = metadata.get("HTTPHeaders") if isinstance(metadata, Mapping) else ask(holder, "headers")
        get = ask(headers, "get")
        if get is None:
            return None
        try:
            value = get("retry-after") or get("Retry-After")
        except Exception:  # not the mapping that it looks like
            return None
    return seconds_of(value, wall)


def seconds_of(value: object, wall: datetime) -> float | None:
    """Return a number of seconds above 0, given as such, as text or as HTTP date; None for anything else."""
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    seconds: float | None = None
    if isinstance(value, str):
        text = value.strip()
        is_number = text.isascii() and text.isdigit() and len(text) <= 12
        seconds = float(text) if is_number else _seconds_until(text, wall)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(min(value, _SECONDS_MAX)) if value != float("inf") else None
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
    for holder in (error, ask(error, "orig"), error.__cause__):
        for name in ("sqlstate", "pgcode"):
            state = ask(holder, name)
            if isinstance(state, str) and len(state) == 5:
                return state
    return None


def _of_database(kind: type[BaseException]) -> Meaning | None:
    """Drivers have the class names of PEP 249, SQLSTATEs only some of them."""
    names = {base.__name__ for base in kind.__mro__}
    return REFUSED if "DatabaseError" in names and names & REFUSED_BY_DATABASE else None


def _meaning_of_sqlstate(state: str) -> Meaning | None:
    if state in ("40001", "40P01", "55P03", "25006", "08001", "08004"):
        return NOT_SENT
    if state.startswith("08") or state in ("57P01", "57P02", "57P03"):
        return LOST
    if state.startswith("53"):
        return OVERLOADED
    return REFUSED if state[:2] in ("22", "23", "42") else None


def _meaning_of_aws(response: object) -> Meaning | None:
    """AWS answers 400 to what it throttles; only the code says so."""
    error = response.get("Error") if isinstance(response, Mapping) else None
    code = error.get("Code") if isinstance(error, Mapping) else None
    return AWS_CODES.get(code) if isinstance(code, str) else None


def _grpc(error: BaseException) -> Meaning | None:
    code = ask(error, "code")
    if not callable(code) or not any(base.__module__.split(".")[0] == "grpc" for base in type(error).__mro__):
        return None
    try:
        name = getattr(code(), "name", None)
        details = error.details() if hasattr(error, "details") else None
    except Exception:  # another library's method; without a status the class has to do
        return None
    if name == "UNAVAILABLE" and isinstance(details, str) and details.startswith(GRPC_NOT_SENT):
        return NOT_SENT
    return GRPC.get(name, REFUSED) if isinstance(name, str) and name != "OK" else None


_UNREACHABLE = frozenset({errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH})
_ALL_ADDRESSES_FAILED = "Multiple exceptions: "  #: asyncio, when a name has several addresses and none can be reached
_HANDSHAKE_WORDS = ("HANDSHAKE", "CERTIFICATE", "UNKNOWN_CA", "VERSION", "UNSUPPORTED_PROTOCOL", "UNRECOGNIZED_NAME")


def _of_os_error(error: BaseException) -> Meaning | None:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE):
        return LOCAL
    if name_in_table(type(error)):
        return None  # the library knows better than the builtin class it derives from
    if isinstance(error, TimeoutError):
        return TIMED_OUT
    if isinstance(error, ssl.SSLCertVerificationError | ConnectionRefusedError | socket.gaierror):
        return NOT_SENT
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "reason", None) or ""
        return NOT_SENT if any(word in reason for word in _HANDSHAKE_WORDS) else LOST
    if isinstance(error, ConnectionError):
        return LOST
    if isinstance(error, OSError) and (
        error.errno in _UNREACHABLE or _message(error).startswith(_ALL_ADDRESSES_FAILED)
    ):
        return NOT_SENT
    return None
