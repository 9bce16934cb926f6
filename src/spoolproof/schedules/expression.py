"""`every 5m` and `cron 0 3 * * * Europe/Berlin`: what is written in a row, and when it is due next.

What was missed becomes one run: the next time is the first one after now. Times are counted on from the one before and
never from now alone, so that an hour the clock has twice is not counted twice. Cron in a zone is what Debian's cron
does (`cronsim`): a time that an hour put forward skips comes right after it, one that an hour put back repeats comes
once.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from spoolproof import limits
from spoolproof.errors import RegistrationError

_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_PERIOD = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_COUNTED = timedelta(days=1)  #: how far back times are counted on; further back none is looked for


def every(period: object) -> str:
    """Return the expression of a period: `30s`, `5m`, `2h`, `1d`, seconds, or a timedelta. Raises RegistrationError."""
    seconds = _seconds(period)
    most = limits.SCHEDULE_DAYS_MAX
    if seconds is None or not 1 <= seconds <= most * 86400:
        raise RegistrationError(
            f"@service.every({period!r}): '30s', '5m', '2h', '1d', seconds or a timedelta, from 1 s to {most} days"
        )
    unit, size = next((unit, size) for unit, size in _UNITS.items() if seconds % size == 0 or unit == "s")
    return f"every {seconds / size:g}{unit}"


def cron(fields: object, zone: object) -> str:
    """Return the expression of five cron fields in a time zone. Raises RegistrationError."""
    where = f"@service.cron({fields!r}, zone={zone!r})"
    if not isinstance(fields, str) or len(fields.split()) != 5:
        raise RegistrationError(f"{where}: five fields, minute hour day month weekday, such as '0 3 * * *'")
    if not isinstance(zone, str) or not zone or " " in zone:
        raise RegistrationError(f"{where}: the zone is an IANA name, such as 'Europe/Berlin'")
    text = f"cron {' '.join(fields.split())} {zone}"
    try:
        next_time(text, None, datetime(2026, 1, 1, tzinfo=UTC))
    except ZoneInfoNotFoundError as error:
        raise RegistrationError(
            f"{where}: no such time zone here; use an IANA name, or pip install tzdata where the system has none"
        ) from error
    except (CronSimError, ValueError) as error:
        raise RegistrationError(f"{where}: {error}; five fields as in '*/15 8-18 * * MON-FRI'") from error
    return text


def next_time(expression: str, before: datetime | None, now: datetime) -> datetime:
    """Return the first time after now. before: the time that is or was due; None: there is none yet.

    Raises ValueError for what this release cannot read, and what cronsim and zoneinfo raise for a wrong cron.
    """
    kind, _, rest = expression.partition(" ")
    if kind == "every" and (seconds := _seconds(rest)):
        period = timedelta(seconds=seconds)
        if before is None:
            return now + period
        return before + period * max(1, math.floor((now - before) / period) + 1)
    if kind != "cron":
        raise ValueError(f"{expression!r} is neither every nor cron")
    fields, _, zone = rest.rpartition(" ")
    since = now - _COUNTED
    start = since if before is None or before < since else before
    for found in CronSim(fields, start.astimezone(ZoneInfo(zone))):
        at = found.astimezone(UTC)
        if at > now:
            return at
    raise ValueError("it never comes")


def _seconds(period: object) -> float | None:
    if isinstance(period, timedelta):
        return period.total_seconds()
    if isinstance(period, str):
        match = _PERIOD.fullmatch(period)
        return float(match[1]) * _UNITS[match[2]] if match else None
    return float(period) if isinstance(period, int | float) and not isinstance(period, bool) else None
