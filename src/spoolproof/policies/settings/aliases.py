"""The three CB_* variables that other breakers are configured with, read as defaults for every policy.

CB_FAILURE_THRESHOLD: a whole number (`consecutive`), `40%` or a fraction below 1 (`failure_rate`); the only rule where
neither code nor a preset names one. CB_RESET_TIMEOUT, whole milliseconds: `open_seconds`, exact (`open_factor` 1,
`open_jitter` 0). CB_MONITOR_PERIOD, whole milliseconds: `window_seconds` of the rate and `within_seconds` of
consecutive, whichever the rule has.

An alias that contradicts its SPOOLPROOF_POLICY_DEFAULT_… twin is a fault: neither of them is clearly meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spoolproof.policies.parts.ranges import SETTINGS, number_of

THRESHOLD = "CB_FAILURE_THRESHOLD"
RESET = "CB_RESET_TIMEOUT"
PERIOD = "CB_MONITOR_PERIOD"
_RULE_OF = {"consecutive": "consecutive", "failure_rate": "rate"}
_CONSECUTIVE_DOUBTFUL = 20  #: whoever writes 50 most likely means 50 %


def lay_aliases(
    environ: Mapping[str, str], defaults: dict[str, tuple[Any, str]], faults: list[str], warnings: list[str]
) -> str | None:
    """Lay the aliases on `defaults` (setting to value and origin); returns the kind of rule they name, if any."""
    rule = _lay_threshold(environ, defaults, faults, warnings)
    reset = _seconds(environ, RESET, "open_seconds", faults)
    if reset is not None:
        given = {"open_seconds": reset, "open_factor": 1.0, "open_jitter": 0.0}
        _lay(defaults, given, RESET, environ[RESET], faults)
        if reset < 1:
            warnings.append(f"{RESET}={environ[RESET]!r} is {reset:g} s; the unit is milliseconds")
    period = _seconds(environ, PERIOD, "window_seconds", faults)
    if period is not None:
        given = {"window_seconds": period, "within_seconds": period}
        _lay(defaults, given, PERIOD, environ[PERIOD], faults)
    return rule


def _lay_threshold(
    environ: Mapping[str, str], defaults: dict[str, tuple[Any, str]], faults: list[str], warnings: list[str]
) -> str | None:
    text = environ.get(THRESHOLD)
    if text is None:
        return None
    setting, value = _threshold(text)
    if not setting or SETTINGS[setting].fault(value) is not None:
        legal = "a whole number from 1 to 1,000, a percentage from 1% to 100%, or a fraction from 0.01 to below 1"
        faults.append(f"{THRESHOLD}={text!r}: {legal}")
        return None
    _lay(defaults, {setting: value}, THRESHOLD, text, faults)
    if setting == "consecutive" and value > _CONSECUTIVE_DOUBTFUL:
        warnings.append(f"{THRESHOLD}={text!r} means {value} failures in a row; for a rate write {value}%")
    return _RULE_OF[setting]


def _threshold(text: str) -> tuple[str, Any]:
    stripped = text.strip()
    try:
        if stripped.endswith("%"):
            return "failure_rate", number_of(stripped[:-1], float) / 100
        if stripped.isdigit():
            return "consecutive", number_of(stripped, int)
        number = number_of(stripped, float)
    except ValueError:
        return "", None
    return ("failure_rate", number) if number < 1 else ("", None)


def _seconds(environ: Mapping[str, str], variable: str, setting: str, faults: list[str]) -> float | None:
    text = environ.get(variable)
    if text is None:
        return None
    known = SETTINGS[setting]
    try:
        seconds: float = number_of(text, int) / 1000
    except ValueError:
        seconds = -1
    if known.fault(seconds) is None:
        return seconds
    low, high = known.low * 1000, known.high * 1000
    faults.append(f"{variable}={text!r}: whole milliseconds from {low:,.0f} to {high:,.0f}, without a unit")
    return None


def _lay(
    defaults: dict[str, tuple[Any, str]], given: Mapping[str, Any], alias: str, text: str, faults: list[str]
) -> None:
    for setting, value in given.items():
        twin = defaults.get(setting)
        if twin is not None and twin[0] != value:
            faults.append(f"{alias}={text!r}: contradicts {twin[1]}={twin[0]}; set one of them")
        else:
            defaults[setting] = (value, alias)
