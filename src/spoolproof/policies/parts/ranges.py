"""Every setting of every part: its default, its legal range, and which part it belongs to.

The constructor keyword, the key in a TOML file and the suffix of the environment variable are all the name in this
table. A number that is not one (a bool, NaN, infinity, a negative where none is legal) is refused where it is given.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_TEXT_MAX = 200  #: of a wrong value in a fault
_DIGITS_MAX = 40  #: Python itself refuses texts of over 4,300 digits, with an error that names no setting


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting. default: None means off, or derived from others. low, high: legal, both included.

    choices: for texts. parts: the kinds of part that read it, `*` for every policy. why: the reason for the default.
    """

    name: str
    kind: type[int] | type[float] | type[str]
    default: int | float | str | None
    low: float
    high: float
    parts: tuple[str, ...]
    why: str
    choices: tuple[str, ...] = ()

    def fault(self, value: object) -> str | None:
        """Return what is wrong with a value, with the legal range; None if nothing is."""
        if self.kind is str:
            return None if value in self.choices else f"{self.name}={_text(value)}: {self.legal}"
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if self.kind is int and not isinstance(value, int):
            is_number = False
        if not is_number or not self.low <= value <= self.high:  # type: ignore[operator]  # a number by now; NaN fails
            return f"{self.name}={_text(value)}: {self.legal}"
        return None

    @property
    def legal(self) -> str:
        """The legal range in words."""
        if self.kind is str:
            return f"one of {', '.join(self.choices)}"
        what = "a whole number" if self.kind is int else "a number"
        return f"{what} from {_shown(self.low)} to {_shown(self.high)}"


def _text(value: object) -> str:
    try:
        text = repr(value)
    except Exception:  # another's code; Python's own refuses whole numbers of over 4,300 digits
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _TEXT_MAX else f"{text[:_TEXT_MAX]}…"


def _shown(number: float) -> str:
    return f"{number:,.6f}".rstrip("0").rstrip(".")


def _whole(name: str, default: int | None, low: int, high: int, *parts: str, why: str) -> Setting:
    return Setting(name, int, default, low, high, parts, why)


def _real(name: str, default: float | None, low: float, high: float, *parts: str, why: str) -> Setting:
    return Setting(name, float, default, low, high, parts, why)


_TABLE = (
    _whole(
        "attempts",
        3,
        1,
        10,
        "retry",
        why="retries 1, 2 and 3 succeed 26, 3 and 2 % of the time; longer waits belong to the queue",
    ),
    _real("delay_seconds", 0.1, 0, 60, "retry", why="most blips end in a fraction of a second"),
    _real("delay_factor", 2.0, 1, 10, "retry", why="each failure makes a longer outage likelier"),
    _real("delay_seconds_max", 20.0, 0, 300, "retry", why="longer belongs to the queue"),
    _real("retry_after_seconds_max", 60.0, 0, 300, "retry", why="longer belongs to the queue"),
    _real("inline_seconds_max", 2.0, 0, 60, "retry", why="a waiting message must not hold a worker"),
    _real(
        "budget_ratio", 0.2, 0, 1, "retry", "hedge", why="the worst day adds a fifth to the load, it does not treble it"
    ),
    _real("budget_per_second_min", 1.0, 0, 100, "retry", "hedge", why="keeps small services retrying"),
    _real("timeout_seconds", 10.0, 0.001, 3600, "timeout", why="several slow HTTP calls"),
    _real("deadline_seconds", 30.0, 0.001, 3600, "deadline", why="room for three attempts"),
    _real("failure_rate", 0.5, 0.01, 1, "breaker", why="a low rate makes an outage of partial trouble"),
    _real("window_seconds", 30.0, 1, 3600, "breaker", why="long enough for a rate, short enough to follow"),
    _whole(
        "window_calls", None, 1, 10_000, "breaker", why="a window of calls instead of seconds, where traffic is steady"
    ),
    _whole("calls_min", 20, 1, 10_000, "breaker", why="fewer say little; small services never see 100"),
    _whole("consecutive", 10, 1, 1000, "breaker", why="covers traffic below calls_min"),
    _real("within_seconds", None, 1, 3600, "breaker", why="failures far apart are not one outage"),
    _real("slow_rate", None, 0.01, 1, "breaker", why="off: only the owner knows what slow is"),
    _real("slow_seconds", None, 0.001, 3600, "breaker", why="off: only the owner knows what slow is"),
    _real("slow_window_seconds", 30.0, 1, 3600, "breaker", why="as for failures"),
    _whole("slow_calls_min", 10, 1, 10_000, "breaker", why="fewer say little"),
    _real("open_seconds", 5.0, 0.1, 3600, "breaker", why="most outages are short"),
    _real("open_factor", 2.0, 1, 10, "breaker", why="long outages are probed less and less"),
    _real(
        "open_seconds_max",
        None,
        0.1,
        3600,
        "breaker",
        why="60, or open_seconds if longer: a long outage is probed once a minute",
    ),
    _real("open_jitter", 0.2, 0, 0.5, "breaker", why="processes do not probe in step"),
    _whole("probes_max", 1, 1, 100, "breaker", why="a probe may hurt what is recovering"),
    _whole("probe_successes", 3, 1, 100, "breaker", why="one success is a coin flip"),
    _real(
        "probe_lease_seconds",
        None,
        1,
        3600,
        "breaker",
        why="30, or the timeout if longer: a hung probe must not block the breaker",
    ),
    _real(
        "ramp_seconds",
        0.0,
        0,
        600,
        "breaker",
        why="10 when it drives a consumer: a recovering backend dies under full load",
    ),
    _real("isolate_seconds", 3600.0, 1, 86_400, "breaker", why="a forgotten isolation is an outage"),
    Setting(
        "mode",
        str,
        "enforce",
        0,
        0,
        ("breaker",),
        "observe tries a rule out, off takes it out",
        ("enforce", "observe", "off"),
    ),
    _whole("running_max", 32, 1, 10_000, "bulkhead", why="below most connection pools of a service"),
    _whole(
        "queue_max",
        None,
        0,
        100_000,
        "bulkhead",
        "rate_limit",
        why="twice running_max: a longer queue serves callers who left",
    ),
    _real("wait_seconds_max", 1.0, 0, 60, "bulkhead", "rate_limit", why="a longer wait serves callers who left"),
    _whole("limit_initial", 20, 1, 10_000, "bulkhead", why="starts below most pools"),
    _whole("limit_min", 1, 1, 10_000, "bulkhead", why="one call at a time still measures"),
    _whole("limit_max", 200, 1, 10_000, "bulkhead", why="a bound on what a mistaken measurement can do"),
    _real("rate", None, 0.000001, 1_000_000, "rate_limit", why="no number fits without the dependency's contract"),
    _real("per_seconds", 1.0, 0.001, 86_400, "rate_limit", why="rates are usually said per second"),
    _real("burst", None, 1, 1_000_000, "rate_limit", why="= rate"),
    _whole("hedge_extra_max", 1, 1, 3, "hedge", why="the first copy takes most of the gain"),
    _real("rung_seconds", 1.0, 0.001, 60, "fallback", why="a fallback is nearer than what it replaces"),
    _real("cooldown_seconds", 1.0, 0, 60, "*", why="what a 429 without Retry-After asks for"),
    _real("cooldown_seconds_max", 300.0, 0, 3600, "*", why="one wrong Retry-After must not stop a day"),
    _whole("threads_abandoned_max", 64, 1, 1000, "*", why="each keeps its stack"),
    _whole("keys_max", 1024, 1, 100_000, "*", why="bounded memory"),
    _real("key_idle_seconds", 900.0, 1, 100_000, "*", why="bounded memory"),
)
SETTINGS: Mapping[str, Setting] = {setting.name: setting for setting in _TABLE}


def number_of(text: str, kind: type[int] | type[float]) -> Any:
    """Return the number a text from outside the code stands for.

    Raises ValueError for what Python reads as a number and people do not: `1_000`, digits of other scripts, too many.
    """
    stripped = text.strip()
    if "_" in stripped or not stripped.isascii() or len(stripped) > _DIGITS_MAX:
        raise ValueError(f"not a plain number: {text[:_DIGITS_MAX]!r}")
    return kind(stripped)


def faults_of(given: Mapping[str, object]) -> list[str]:
    """Return every fault of these settings, each as field, value and legal range; empty if there is none."""
    faults = []
    for name, value in given.items():
        setting = SETTINGS.get(name)
        fault = f"{name}={_text(value)}: no such setting" if setting is None else setting.fault(value)
        if fault is not None:
            faults.append(fault)
    return faults


def name_faults(name: object) -> list[str]:
    """Return what is wrong with the name of a policy."""
    if isinstance(name, str) and _NAME.fullmatch(name):
        return []
    return [f"name={name!r}: 1 to 63 of a-z, 0-9, '.', '_' and '-', the first a letter or digit"]


class BreakerSettings(TypedDict, total=False):
    """What `Breaker(…)` takes, for editors and type checkers."""

    failure_rate: float
    window_seconds: float
    window_calls: int
    calls_min: int
    consecutive: int
    within_seconds: float
    slow_rate: float
    slow_seconds: float
    slow_window_seconds: float
    slow_calls_min: int
    open_seconds: float
    open_factor: float
    open_seconds_max: float
    open_jitter: float
    probes_max: int
    probe_successes: int
    probe_lease_seconds: float
    ramp_seconds: float
    isolate_seconds: float
    mode: Literal["enforce", "observe", "off"]
