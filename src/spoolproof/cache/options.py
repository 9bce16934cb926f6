"""What can be said of one cache, with its default, its range and the reason."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from typing import Any

from spoolproof.errors import CacheConfigError, CacheKeyInvalid, NotFound

NAME = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
KEY_CHARACTERS_MAX = 1024
KEYS_MAX = 10_000
LOAD_SECONDS = 30.0
"""A loader is cancelled then and its key is free again."""
DAY = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheOptions:
    """ttl_seconds: how long a value is fresh, up to a tenth longer so that many do not end at once. stale_seconds:
    how long it may be served when nothing better can be had, counted from its load; a day outlasts an outage.
    negative_ttl_seconds: of None; 0: not stored. soft_timeout_seconds: with a stale value at hand nobody waits
    longer; hard_timeout_seconds: nor without one. retry_throttle_seconds: how often a failing loader is asked for a
    key that has a stale value, ± 20 %. eager_ratio: of the ttl, from when one background load renews it. loads_max:
    running at once, background ones included. entries_max, bytes_max: in memory. value_bytes_max: of one value.
    coherence_seconds: how long memory is called fresh while what other processes do is not heard. no_fallback: errors
    that are answers: they are raised, and the value is removed."""

    ttl_seconds: float = 60.0
    stale_seconds: float = DAY
    negative_ttl_seconds: float = 5.0
    soft_timeout_seconds: float = 1.0
    hard_timeout_seconds: float = 10.0
    retry_throttle_seconds: float = 30.0
    eager_ratio: float = 0.8
    loads_max: int = 64
    entries_max: int = 10_000
    bytes_max: int = 64 * 1024**2
    value_bytes_max: int = 1024**2
    coherence_seconds: float = 5.0
    no_fallback: tuple[type[Exception], ...] = (NotFound, PermissionError)


def checked(name: str, given: dict[str, Any]) -> CacheOptions:
    """Return the options of a cache. Raises CacheConfigError with every fault."""
    faults = [] if isinstance(name, str) and NAME.fullmatch(name) else [_NAME_FAULT.format(name)]
    known = {one.name for one in fields(CacheOptions)}
    faults += [f"{one}=: no option has this name; there are {', '.join(sorted(known))}" for one in given.keys() - known]
    options = CacheOptions(**{key: value for key, value in given.items() if key in known})
    for one in known - {"no_fallback"}:
        value = getattr(options, one)
        least = 0 if one == "negative_ttl_seconds" else None
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not is_number or (value < least if least is not None else value <= 0):
            faults.append(f"{one}={value!r}: must be a number above 0")
    if not faults:
        faults += [sentence for is_wrong, sentence in _relations(options) if is_wrong]
    if faults:
        raise CacheConfigError(str(name), faults)
    return options


_NAME_FAULT = "the name {!r} must be a letter and up to 63 of a-z, 0-9, '_', '.', '-'"


def _relations(of: CacheOptions) -> list[tuple[bool, str]]:
    soft, hard = of.soft_timeout_seconds, of.hard_timeout_seconds
    return [
        (of.ttl_seconds > 30 * DAY, f"ttl_seconds={of.ttl_seconds:g}: at most 30 days"),
        (
            of.stale_seconds < of.ttl_seconds,
            f"stale_seconds={of.stale_seconds:g}: is counted from the load, so at least ttl_seconds={of.ttl_seconds:g}",
        ),
        (soft >= hard, f"soft_timeout_seconds={soft:g}: must be below hard_timeout_seconds={hard:g}"),
        (hard > LOAD_SECONDS, f"hard_timeout_seconds={hard:g}: at most {LOAD_SECONDS:g}, when the loader is cancelled"),
        (of.eager_ratio > 1, f"eager_ratio={of.eager_ratio:g}: at most 1"),
        (of.value_bytes_max > of.bytes_max, "value_bytes_max: above bytes_max, nothing of that size would be kept"),
    ]


def check_key(key: object) -> None:
    """Raise CacheKeyInvalid for what is no key."""
    if isinstance(key, str) and 0 < len(key) <= KEY_CHARACTERS_MAX and key.isprintable():
        return
    shown = f"{key[:40]!r}… of {len(key)} characters" if isinstance(key, str) and len(key) > 40 else repr(key)
    raise CacheKeyInvalid(f"key {shown}: use 1 to {KEY_CHARACTERS_MAX} printable characters")
