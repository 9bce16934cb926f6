"""What is given outside the code: environment, file and presets, read and checked, faults returned instead of raised.

Among it the three CB_* variables that other breakers are configured with, read as defaults for every policy.

CB_FAILURE_THRESHOLD: a whole number (`consecutive`), `40%` or a fraction below 1 (`failure_rate`); the only rule where
neither code nor a preset names one. CB_RESET_TIMEOUT, whole milliseconds: `open_seconds`, exact (`open_factor` 1,
`open_jitter` 0). CB_MONITOR_PERIOD, whole milliseconds: `window_seconds` of the rate and `within_seconds` of
consecutive, whichever the rule has.

An alias that contradicts its SPOOLPROOF_POLICY_DEFAULT_… twin is a fault: neither of them is clearly meant.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from spoolproof.policies.parts.breaker import Shape
from spoolproof.policies.parts.ranges import SETTINGS, number_of

PREFIX = "SPOOLPROOF_POLICY_"
DEFAULT_PREFIX = f"{PREFIX}DEFAULT_"
PRESET = "preset"
DEFAULT_PRESET = f"{DEFAULT_PREFIX}PRESET"
WINDOW = {"window_seconds": "window_calls", "window_calls": "window_seconds"}  #: of two, one may be given
THRESHOLD = "CB_FAILURE_THRESHOLD"
RESET = "CB_RESET_TIMEOUT"
PERIOD = "CB_MONITOR_PERIOD"
_RULE_OF = {"consecutive": "consecutive", "failure_rate": "rate"}
_CONSECUTIVE_DOUBTFUL = 20  #: whoever writes 50 most likely means 50 %


@dataclass(frozen=True, slots=True)
class Sources:
    """What was given outside the code. defaults: setting to (value, origin). named: variables by name, still text."""

    defaults: Mapping[str, tuple[Any, str]] = field(default_factory=dict)
    default_shape: Shape | None = None
    default_preset: str | None = None
    named: Mapping[str, str] = field(default_factory=dict)
    policies: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def of(self, name: str) -> tuple[dict[str, tuple[Any, str]], list[str]]:
        """Return what the environment says of one policy, and the faults in it."""
        found: dict[str, tuple[Any, str]] = {}
        faults: list[str] = []
        prefix = f"{PREFIX}{mangled(name)}_"
        for variable, text in self.named.items():
            setting = variable.removeprefix(prefix).lower() if variable.startswith(prefix) else ""
            if setting == PRESET:
                found[PRESET] = (text.strip(), variable)
            elif setting in SETTINGS:
                value, fault = parse(setting, text, variable)
                if fault is None:
                    found[setting] = (value, variable)
                else:
                    faults.append(fault)
        faults += both_windows(found, f"{prefix}…")
        return found, faults

    def unused(self, names: Iterable[str]) -> list[str]:
        """Return the faults that only the names of all policies show: misspelt settings, names that share a variable.

        A variable or table of a policy that is not here is no fault: services share environments and files.
        """
        by_prefix: dict[str, list[str]] = {}
        for name in names:
            by_prefix.setdefault(f"{PREFIX}{mangled(name)}_", []).append(name)
        faults = [
            f"{prefix}…: names both {' and '.join(map(repr, sorted(same)))}; rename one of them"
            for prefix, same in sorted(by_prefix.items())
            if len(same) > 1 and any(variable.startswith(prefix) for variable in self.named)
        ]
        if DEFAULT_PREFIX in by_prefix and any(
            origin.startswith(DEFAULT_PREFIX) for _, origin in self.defaults.values()
        ):
            faults.append(f"{DEFAULT_PREFIX}…: names both every policy and 'default'; rename that one")
        known = SETTINGS.keys() | {PRESET}
        for variable, text in sorted(self.named.items()):
            settings = {variable.removeprefix(prefix).lower() for prefix in by_prefix if variable.startswith(prefix)}
            if len(settings & known) > 1:
                meant = " and ".join(sorted(settings & known))
                faults.append(f"{variable}={text!r}: means {meant}, of two policies; rename one of them")
            if settings and not settings & known:
                faults.append(f"{variable}={text!r}: no such setting {min(settings, key=len)!r}")
        return faults


def mangled(name: str) -> str:
    """Return a policy's name as it stands in environment variables."""
    return re.sub(r"[^A-Z0-9]", "_", name.upper())


def load(environ: Mapping[str, str], toml: Path | str | None) -> tuple[Sources, list[str]]:
    """Read environment and file; returns what they give and every fault in them.

    What is legal but doubtful is in `Sources.warnings`; the registry logs it.
    """
    faults: list[str] = []
    presets = _tables(
        tomllib.loads(files(__package__).joinpath("presets.toml").read_text(encoding="utf-8")),
        "presets",
        "presets.toml",
        faults,
    )
    policies: dict[str, dict[str, Any]] = {}
    if toml is not None:
        data = _read(Path(toml), faults)
        presets |= _tables(data, "presets", str(toml), faults)
        policies = _tables(data, "policies", str(toml), faults)
        faults += [
            f"{toml}: [{name}]: only [policies.<name>] and [presets.<name>]"
            for name in sorted(data.keys() - {"policies", "presets"})
        ]
    defaults = _defaults(environ, faults)
    warnings: list[str] = []
    shape = lay_aliases(environ, defaults, faults, warnings)
    faults += both_windows(defaults, "defaults")
    named = {
        variable: text
        for variable, text in environ.items()
        if variable.startswith(PREFIX) and not variable.startswith(DEFAULT_PREFIX)
    }
    preset = environ.get(DEFAULT_PRESET, "").strip() or None
    if DEFAULT_PRESET in environ and preset not in presets:
        faults.append(f"{DEFAULT_PRESET}={environ[DEFAULT_PRESET]!r}: one of {', '.join(sorted(presets))}")
        preset = None
    return Sources(defaults, shape, preset, named, policies, presets, tuple(warnings)), faults


def _defaults(environ: Mapping[str, str], faults: list[str]) -> dict[str, tuple[Any, str]]:
    defaults: dict[str, tuple[Any, str]] = {}
    for variable, text in sorted(environ.items()):
        if variable.startswith(DEFAULT_PREFIX) and variable != DEFAULT_PRESET:
            setting = variable.removeprefix(DEFAULT_PREFIX).lower()
            value, fault = parse(setting, text, variable)
            if fault is None:
                defaults[setting] = (value, variable)
            else:
                faults.append(fault)
    return defaults


def parse(setting: str, text: str, variable: str) -> tuple[Any, str | None]:
    """Return the value of a text, or what is wrong with it."""
    known = SETTINGS.get(setting)
    if known is None:
        return None, f"{variable}={text!r}: no such setting {setting!r}"
    value: Any = text.strip()
    if known.kind is not str:
        try:
            value = number_of(value, int if known.kind is int else float)
        except ValueError:
            return None, f"{variable}={text!r}: {known.legal}, without a unit"
    fault = known.fault(value)
    return value, None if fault is None else f"{variable}={text!r}: {known.legal}"


def _read(path: Path, faults: list[str]) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # also a number too long, or arrays too deep
        faults.append(f"SPOOLPROOF_POLICIES_FILE={str(path)!r}: {error}")
        return {}


def _tables(data: Mapping[str, Any], kind: str, where: str, faults: list[str]) -> dict[str, dict[str, Any]]:
    tables: dict[str, dict[str, Any]] = {}
    given = data.get(kind, {})
    if not isinstance(given, dict):
        faults.append(f"{where}: {kind}={given!r}: tables, [{kind}.<name>]")
        return {}
    for name, table in given.items():
        if not isinstance(table, dict):
            faults.append(f"{where}: {kind}.{name}={table!r}: a table of settings")
            continue
        kept = tables.setdefault(name, {})
        for setting, value in table.items():
            known = SETTINGS.get(setting)
            if setting == PRESET and kind == "policies":
                if isinstance(value, str):
                    kept[setting] = value
                else:
                    faults.append(f"{where}: [{kind}.{name}] {setting}={value!r}: the name of a preset")
                continue
            fault = f"{setting}={value!r}: no such setting" if known is None else known.fault(value)
            if fault is None:
                kept[setting] = value
            else:
                faults.append(f"{where}: [{kind}.{name}] {fault}")
        faults += both_windows(kept, f"{where}: [{kind}.{name}]")
    return tables


def both_windows(given: Iterable[str], where: str) -> list[str]:
    """Refuse two windows in one place: neither is the stronger."""
    both = WINDOW.keys() <= set(given)
    return [f"{where}: window_calls: not together with window_seconds; keep one of them"] if both else []


# --- the variables of other breakers ---------------------------------------------------------------------------------


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
