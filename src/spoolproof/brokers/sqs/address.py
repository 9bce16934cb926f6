"""`sqs://REGION` URLs: checked once, at construction. Keys and query never leave this module but into the client."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from spoolproof import limits
from spoolproof.errors import SettingsError
from spoolproof.urls import redact_url

QUERY = ("endpoint", "prefix", "wait")
_WAIT_SECONDS_MAX = 20  #: what SQS allows


@dataclass(frozen=True, slots=True)
class Address:
    """Where SQS and SNS are. shown: the URL without secret and query. endpoint: None for that of the region.
    key_id, secret: None for what the machine has: variables, files, its role. prefix: before every name."""

    shown: str
    region: str
    endpoint: str | None
    key_id: str | None
    secret: str | None = field(repr=False)
    prefix: str
    wait_seconds: int


def parse_url(url: str) -> Address:
    """Return the address a URL names. Raises SettingsError."""
    try:
        return _parse(url)
    except ValueError as error:
        raise SettingsError([f"SPOOLPROOF_BROKER: {redact_url(url)}: {error}"]) from error


def _parse(url: str) -> Address:
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = [name for name in query if name not in QUERY]
    endpoint, prefix, wait = query.get("endpoint"), query.get("prefix", ""), query.get("wait", "")
    if not parts.hostname or parts.port is not None or parts.path not in ("", "/"):
        raise ValueError("names a region and nothing else before the query, as in sqs://eu-west-1?prefix=shop-")
    if unknown:
        raise ValueError(f"unknown query {', '.join(unknown)}; accepted: {', '.join(QUERY)}")
    if (parts.username is None) != (parts.password is None):
        raise ValueError("has half of a key; write sqs://KEY_ID:SECRET@REGION, or neither for the machine's own")
    if endpoint is not None and not re.fullmatch(r"https?://[^/?#]+/?", endpoint):
        raise ValueError(f"endpoint={endpoint!r} is not http(s)://HOST:PORT")
    if not re.fullmatch("[A-Za-z0-9_-]{0,40}", prefix):
        raise ValueError(f"prefix={prefix!r} must be at most 40 letters, digits, - and _")
    if wait and not (wait.isdigit() and 1 <= int(wait) <= _WAIT_SECONDS_MAX):
        raise ValueError(f"wait={wait!r} must be whole seconds from 1 to {_WAIT_SECONDS_MAX}")
    return Address(
        shown=redact_url(url),
        region=parts.hostname,
        endpoint=endpoint,
        key_id=parts.username and unquote(parts.username),
        secret=parts.password and unquote(parts.password),
        prefix=prefix,
        wait_seconds=int(wait or limits.SQS_WAIT_SECONDS),
    )
