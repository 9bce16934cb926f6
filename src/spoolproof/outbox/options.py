"""What may be said of a publish beside its payload: one list for every verb that publishes.

A verb takes `**options: Unpack[PublishOptions]` and hands them on as they are: editors complete them, type checkers
check them, and `Publisher.outgoing` refuses what is not among them. `None` says the same as leaving it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from difflib import get_close_matches
from typing import Final, TypedDict

from spoolproof.errors import InvalidMessage
from spoolproof.message import HeaderValue, as_utc


class PublishOptions(TypedDict, total=False):
    """The keyword arguments of every publish; wrap one with `**options: Unpack[PublishOptions]`."""

    key: str | None
    """Ordering key, not empty: messages with the same key and destination arrive in publish order."""
    id: str | None
    """Makes a repeated publish idempotent for receivers. Default: a new version 7 UUID."""
    type: str | None
    """The wire name of a dict; a class marked by @event has its own."""
    expires: float | timedelta | datetime | None
    """Seconds, timedelta or aware datetime after which consumers drop it into the dead letters."""
    headers: Mapping[str, HeaderValue] | None
    """At most 64 names of yours with str, int or bool."""
    destination: str | None
    """`events` (the default), `exchange:NAME` or `queue:NAME`."""
    routing_key: str | None
    """What exchanges route by. Default: the type."""
    correlation_id: str | None
    """What a whole conversation shares. Default, in a handler: that of its message."""
    subject: str | None
    """What the event is about, within its source; CloudEvents' attribute of that name."""


_NAMES: Final = frozenset(PublishOptions.__optional_keys__)


def check_names(options: PublishOptions) -> None:
    """Raises TypeError for what is no option, as a function does for a keyword it does not have."""
    if not _NAMES.issuperset(options):
        name = next(one for one in options if one not in _NAMES)
        near = get_close_matches(name, sorted(_NAMES), 1, cutoff=0)[0]
        raise TypeError(f"publish() got an unexpected keyword argument {name!r}; the nearest is {near!r}")


def expires_at(expires: float | timedelta | datetime, now: datetime) -> datetime:
    """Return when a message expires that is published now. Raises InvalidMessage."""
    if isinstance(expires, datetime):
        if expires.utcoffset() is None:
            raise InvalidMessage("expires", expires, "has no time zone; use datetime.now(UTC) + timedelta(...)")
        try:
            return as_utc(expires)
        except OverflowError:
            raise InvalidMessage("expires", expires, "is beyond the last day UTC can tell") from None
    seconds = expires.total_seconds() if isinstance(expires, timedelta) else expires
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < 10 * 366 * 86400:
        raise InvalidMessage(
            "expires", expires, "must be seconds above 0 (at most ten years), a timedelta or a datetime"
        )
    return now + timedelta(seconds=seconds)
