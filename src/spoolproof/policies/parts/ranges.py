"""Every setting of every part: its default, its legal range, and which part it belongs to.

The constructor keyword, the key in a TOML file and the suffix of the environment variable are all the name of a field
of `Settings`. A number that is not one (a bool, NaN, infinity, a negative where none is legal) is refused where it is
given.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypedDict

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_TEXT_MAX = 200  #: of a wrong value in a fault
_DIGITS_MAX = 40  #: Python itself refuses texts of over 4,300 digits, with an error that names no setting


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting. default: None means off, or derived from others. low, high: legal, both included.

    choices: for texts. parts: the kinds of part that read it, `*` for every policy. why: the reason for the default.
    rule: the breaker's rule that it is a number of, if it is one.
    """

    name: str
    kind: type[int] | type[float] | type[str]
    default: int | float | str | None
    low: float
    high: float
    parts: tuple[str, ...]
    why: str
    rule: str = ""
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


def _setting(kind: type, default: object, low: float, high: float, *parts: str, **more: Any) -> Any:
    facts = {"kind": kind, "default": default, "low": low, "high": high, "parts": parts}
    return field(default=default, metadata=facts | more)


def _whole(default: int | None, low: int, high: int, *parts: str, why: str, rule: str = "") -> Any:
    return _setting(int, default, low, high, *parts, why=why, rule=rule)


def _real(default: float | None, low: float, high: float, *parts: str, why: str, rule: str = "") -> Any:
    return _setting(float, default, low, high, *parts, why=why, rule=rule)


def _one_of(*choices: str, part: str, why: str) -> Any:
    return _setting(str, choices[0], 0, 0, part, why=why, choices=choices)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one policy. Those whose default is derived from others are numbers once it is resolved."""

    attempts: int = _whole(3, 1, 10, "retry", why="retries 1, 2 and 3 succeed 26, 3 and 2 % of the time")
    delay_seconds: float = _real(0.1, 0, 60, "retry", why="most blips end in a fraction of a second")
    delay_factor: float = _real(2.0, 1, 10, "retry", why="each failure makes a longer outage likelier")
    delay_seconds_max: float = _real(20.0, 0, 300, "retry", why="longer belongs to the queue")
    retry_after_seconds_max: float = _real(60.0, 0, 300, "retry", why="longer belongs to the queue")
    inline_seconds_max: float = _real(2.0, 0, 60, "retry", why="a waiting message must not hold a worker")
    budget_ratio: float = _real(0.2, 0, 1, "retry", "hedge", why="the worst day adds a fifth to the load")
    budget_per_second_min: float = _real(1.0, 0, 100, "retry", "hedge", why="keeps small services retrying")
    timeout_seconds: float = _real(10.0, 0.001, 3600, "timeout", why="several slow HTTP calls")
    deadline_seconds: float = _real(30.0, 0.001, 3600, "deadline", why="room for three attempts")

    # the numbers of the breaker's rules
    failure_rate: float = _real(0.5, 0.01, 1, "breaker", rule="rate", why="a low rate: an outage of partial trouble")
    window_seconds: float = _real(30.0, 1, 3600, "breaker", rule="rate", why="long enough for a rate, and follows")
    window_calls: int | None = _whole(None, 1, 10_000, "breaker", rule="rate", why="for traffic that is steady")
    calls_min: int = _whole(20, 1, 10_000, "breaker", rule="rate", why="fewer say little; few services see 100")
    consecutive: int = _whole(10, 1, 1000, "breaker", rule="consecutive", why="covers traffic below calls_min")
    within_seconds: float | None = _real(None, 1, 3600, "breaker", rule="consecutive", why="one outage may last")
    slow_rate: float | None = _real(None, 0.01, 1, "breaker", rule="slow", why="only the owner knows what slow is")
    slow_seconds: float | None = _real(None, 0.001, 3600, "breaker", rule="slow", why="only the owner knows it")
    slow_window_seconds: float = _real(30.0, 1, 3600, "breaker", rule="slow", why="as for failures")
    slow_calls_min: int = _whole(10, 1, 10_000, "breaker", rule="slow", why="fewer say little")

    open_seconds: float = _real(5.0, 0.1, 3600, "breaker", why="most outages are short")
    open_factor: float = _real(2.0, 1, 10, "breaker", why="long outages are probed less and less")
    open_seconds_max: float = _real(None, 0.1, 3600, "breaker", why="60, or open_seconds if longer: a probe a minute")
    open_jitter: float = _real(0.2, 0, 0.5, "breaker", why="processes do not probe in step")
    probes_max: int = _whole(1, 1, 100, "breaker", why="a probe may hurt what is recovering")
    probe_successes: int = _whole(3, 1, 100, "breaker", why="one success is a coin flip")
    probe_lease_seconds: float = _real(None, 1, 3600, "breaker", why="30, or the timeout: a hung probe must not block")
    ramp_seconds: float = _real(0.0, 0, 600, "breaker", why="10 when it drives a consumer: full load would kill")
    isolate_seconds: float = _real(3600.0, 1, 86_400, "breaker", why="a forgotten isolation is an outage")
    mode: str = _one_of("enforce", "observe", "off", part="breaker", why="observe tries a rule out")

    running_max: int = _whole(32, 1, 10_000, "bulkhead", why="below most connection pools of a service")
    queue_max: int = _whole(None, 0, 100_000, "bulkhead", "rate_limit", why="2 × running_max: more wait in vain")
    wait_seconds_max: float = _real(1.0, 0, 60, "bulkhead", "rate_limit", why="longer serves callers who left")
    limit_initial: int = _whole(20, 1, 10_000, "bulkhead", why="starts below most pools")
    limit_min: int = _whole(1, 1, 10_000, "bulkhead", why="one call at a time still measures")
    limit_max: int = _whole(200, 1, 10_000, "bulkhead", why="a bound on what a mistaken measurement can do")
    rate: float | None = _real(None, 0.000001, 1_000_000, "rate_limit", why="the dependency's contract says it")
    per_seconds: float = _real(1.0, 0.001, 86_400, "rate_limit", why="rates are usually said per second")
    burst: float = _real(None, 1, 1_000_000, "rate_limit", why="= rate")
    hedge_extra_max: int = _whole(1, 1, 3, "hedge", why="the first copy takes most of the gain")
    rung_seconds: float = _real(1.0, 0.001, 60, "fallback", why="a fallback is nearer than what it replaces")

    # of every policy
    cooldown_seconds: float = _real(1.0, 0, 60, "*", why="what a 429 without Retry-After asks for")
    cooldown_seconds_max: float = _real(300.0, 0, 3600, "*", why="one wrong Retry-After must not stop a day")
    threads_abandoned_max: int = _whole(64, 1, 1000, "*", why="each keeps its stack")
    keys_max: int = _whole(1024, 1, 100_000, "*", why="bounded memory")
    key_idle_seconds: float = _real(900.0, 1, 100_000, "*", why="bounded memory")


SETTINGS: Mapping[str, Setting] = {one.name: Setting(one.name, **one.metadata) for one in fields(Settings)}


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
