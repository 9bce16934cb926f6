"""What may be said of a publish beside its payload: one list for every verb that publishes.

A verb takes `**options: Unpack[PublishOptions]` and hands them on as they are: editors complete them, type checkers
check them, and `Publisher.outgoing` refuses what is not among them. `None` says the same as leaving it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from difflib import get_close_matches
from typing import Final, TypedDict

from spoolproof import limits
from spoolproof.errors import InvalidMessage, InvalidSchedule
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
    at: datetime | None
    """Not before this aware datetime, at most 366 days ahead; one that has passed means now."""
    delay: float | timedelta | None
    """Not before so many seconds, or this timedelta, from now, by the clock of the store."""


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


def due_of(at: datetime | None, delay: float | timedelta | None, now: datetime) -> datetime | timedelta | None:
    """Return when a message is due that is published now; None for at once. Raises InvalidSchedule."""
    most = timedelta(days=limits.SCHEDULE_DAYS_MAX)
    if at is not None and delay is not None:
        raise InvalidSchedule("delay", delay, f"stands beside at={at!r}; give one of the two")
    if at is not None:
        if not isinstance(at, datetime):
            raise InvalidSchedule("at", at, "must be an aware datetime; for seconds from now there is delay=")
        if at.utcoffset() is None:
            raise InvalidSchedule("at", at, "has no time zone; use datetime.now(UTC) + timedelta(...)")
        if at - now > most:
            raise InvalidSchedule("at", at, f"is more than {most.days} days ahead; keep it in a table of your own")
        return None if at <= now else as_utc(at)
    try:
        wait = delay if isinstance(delay, timedelta) else timedelta(seconds=_seconds(delay))
    except (TypeError, ValueError, OverflowError):
        raise InvalidSchedule("delay", delay, "must be seconds or a timedelta, 0 or more") from None
    if wait < timedelta(0):
        raise InvalidSchedule("delay", delay, "is negative; give the seconds from now, 0 or more")
    if wait > most:
        raise InvalidSchedule("delay", delay, f"is more than {most.days} days; keep it in a table of your own")
    return wait or None


def _seconds(delay: object) -> float:
    if isinstance(delay, bool) or not isinstance(delay, int | float):
        raise TypeError
    return delay
