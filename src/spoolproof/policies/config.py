"""Where the settings of policies come from, weakest first:

built-in → `CB_*` and `SPOOLPROOF_POLICY_DEFAULT_<SETTING>` → preset → code → the TOML file named by
`SPOOLPROOF_POLICIES_FILE` (`[policies.<name>]`) → `SPOOLPROOF_POLICY_<NAME>_<SETTING>` (upper case, other characters
`_`).

`load` reads and checks what was given outside the code; `resolve` lays it around one policy's parts. Both return faults
instead of raising them, so that a start-up report can list them all.

Aliases: CB_FAILURE_THRESHOLD, a whole number (`consecutive`), `40%` or a fraction below 1 (`failure_rate`), is the only
rule where code names none. CB_RESET_TIMEOUT, whole milliseconds: `open_seconds`, exact (`open_factor` 1, `open_jitter`
0). CB_MONITOR_PERIOD, whole milliseconds: `window_seconds`, and `within_seconds` of consecutive.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from spoolproof.policies.breaker import DEFAULT_SHAPE, Shape, leaves
from spoolproof.policies.part import Part
from spoolproof.policies.ranges import SETTINGS

PREFIX = "SPOOLPROOF_POLICY_"
DEFAULT_PREFIX = f"{PREFIX}DEFAULT_"
PRESET = "preset"

RULE_OF = {
    "failure_rate": "rate",
    "window_seconds": "rate",
    "window_calls": "rate",
    "calls_min": "rate",
    "consecutive": "consecutive",
    "within_seconds": "consecutive",
    "slow_rate": "slow",
    "slow_seconds": "slow",
    "slow_window_seconds": "slow",
    "slow_calls_min": "slow",
}
_NAMES_RULE = {"failure_rate": "rate", "consecutive": "consecutive", "slow_rate": "slow"}
_BUILT_IN = "built-in"


@dataclass(frozen=True, slots=True)
class Shadowed:
    """A setting that a stronger source hides."""

    setting: str
    hidden: str
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """The settings of one policy. values: by name, defaults applied. origins: where each comes from. rule: the
    breaker's."""

    values: Mapping[str, Any]
    origins: Mapping[str, str]
    rule: Shape
    preset: str | None
    faults: tuple[str, ...]
    shadowed: tuple[Shadowed, ...]


@dataclass(frozen=True, slots=True)
class Sources:
    """What was given outside the code. defaults: setting to (value, origin). named: variables by name, still text."""

    defaults: Mapping[str, tuple[Any, str]] = field(default_factory=dict)
    default_shape: Shape | None = None
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
                found[PRESET] = (text, variable)
            elif setting in SETTINGS:
                value, fault = parse(setting, text, variable)
                if fault is None:
                    found[setting] = (value, variable)
                else:
                    faults.append(fault)
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
        known = SETTINGS.keys() | {PRESET}
        for variable, text in sorted(self.named.items()):
            settings = {variable.removeprefix(prefix).lower() for prefix in by_prefix if variable.startswith(prefix)}
            if settings and not settings & known:
                faults.append(f"{variable}={text!r}: no such setting {min(settings, key=len)!r}")
        return faults


def mangled(name: str) -> str:
    """Return a policy's name as it stands in environment variables."""
    return re.sub(r"[^A-Z0-9]", "_", name.upper())


# --- read ------------------------------------------------------------------------------------------------------------


def load(environ: Mapping[str, str], toml: Path | None) -> tuple[Sources, list[str]]:
    """Read environment and file; returns what they give and every fault in them."""
    faults: list[str] = []
    presets = _tables(
        tomllib.loads(files(__package__).joinpath("presets.toml").read_text()), "presets", "presets.toml", faults
    )
    policies: dict[str, dict[str, Any]] = {}
    if toml is not None:
        data = _read(toml, faults)
        presets |= _tables(data, "presets", str(toml), faults)
        policies = _tables(data, "policies", str(toml), faults)
        faults += [
            f"{toml}: [{name}]: only [policies.<name>] and [presets.<name>]"
            for name in sorted(data.keys() - {"policies", "presets"})
        ]
    defaults: dict[str, tuple[Any, str]] = {}
    for variable, text in sorted(environ.items()):
        if variable.startswith(DEFAULT_PREFIX):
            setting = variable.removeprefix(DEFAULT_PREFIX).lower()
            value, fault = parse(setting, text, variable)
            if fault is None:
                defaults[setting] = (value, variable)
            else:
                faults.append(fault)
    warnings: list[str] = []
    shape = _aliases(environ, defaults, faults, warnings)
    named = {
        variable: text
        for variable, text in environ.items()
        if variable.startswith(PREFIX) and not variable.startswith(DEFAULT_PREFIX)
    }
    return Sources(defaults, shape, named, policies, presets, tuple(warnings)), faults


def parse(setting: str, text: str, variable: str) -> tuple[Any, str | None]:
    """Return the value of a text, or what is wrong with it."""
    known = SETTINGS.get(setting)
    if known is None:
        return None, f"{variable}={text!r}: no such setting {setting!r}"
    value: Any = text.strip()
    if known.kind is not str:
        try:
            value = int(value) if known.kind is int else float(value)
        except ValueError:
            return None, f"{variable}={text!r}: {known.legal}, without a unit"
    fault = known.fault(value)
    return value, None if fault is None else f"{variable}={text!r}: {known.legal}"


def _read(path: Path, faults: list[str]) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        faults.append(f"SPOOLPROOF_POLICIES_FILE={str(path)!r}: {error}")
        return {}


def _tables(data: Mapping[str, Any], kind: str, where: str, faults: list[str]) -> dict[str, dict[str, Any]]:
    tables: dict[str, dict[str, Any]] = {}
    given = data.get(kind, {})
    for name, table in given.items() if isinstance(given, dict) else ():
        if not isinstance(table, dict):
            faults.append(f"{where}: {kind}.{name}={table!r}: a table of settings")
            continue
        kept = tables.setdefault(name, {})
        for setting, value in table.items():
            known = SETTINGS.get(setting)
            if setting == PRESET and kind == "policies" and isinstance(value, str):
                kept[setting] = value
                continue
            fault = f"{setting}={value!r}: no such setting" if known is None else known.fault(value)
            if fault is None:
                kept[setting] = value
            else:
                faults.append(f"{where}: [{kind}.{name}] {fault}")
    return tables


def _aliases(
    environ: Mapping[str, str], defaults: dict[str, tuple[Any, str]], faults: list[str], warnings: list[str]
) -> Shape | None:
    """Lay the CB_* aliases on the defaults; returns the rule they name."""
    shape: Shape | None = None
    threshold = environ.get("CB_FAILURE_THRESHOLD")
    if threshold is not None:
        setting, value = _threshold(threshold)
        fault = "a whole number from 1 to 1,000, a percentage such as 40%, or a fraction below 1"
        if setting and SETTINGS[setting].fault(value) is None:
            shape = _NAMES_RULE[setting]
            _lay(defaults, {setting: value}, "CB_FAILURE_THRESHOLD", threshold, faults)
            if setting == "consecutive" and value > 20:
                warnings.append(
                    f"CB_FAILURE_THRESHOLD={threshold!r} means {value} failures in a row; for a rate write {value}%"
                )
        else:
            faults.append(f"CB_FAILURE_THRESHOLD={threshold!r}: {fault}")
    reset = _milliseconds(environ, "CB_RESET_TIMEOUT", "open_seconds", faults)
    if reset is not None:
        given = {"open_seconds": reset, "open_factor": 1.0, "open_jitter": 0.0}
        _lay(defaults, given, "CB_RESET_TIMEOUT", environ["CB_RESET_TIMEOUT"], faults)
        if reset < 1:
            warnings.append(
                f"CB_RESET_TIMEOUT={environ['CB_RESET_TIMEOUT']!r} is {reset:g} s; the unit is milliseconds"
            )
    period = _milliseconds(environ, "CB_MONITOR_PERIOD", "window_seconds", faults)
    if period is not None:
        given = {"window_seconds": period, "within_seconds": period}
        _lay(defaults, given, "CB_MONITOR_PERIOD", environ["CB_MONITOR_PERIOD"], faults)
    return shape


def _threshold(text: str) -> tuple[str, Any]:
    stripped = text.strip()
    try:
        if stripped.endswith("%"):
            return "failure_rate", float(stripped[:-1]) / 100
        if stripped.isascii() and stripped.isdigit():
            return "consecutive", int(stripped)
        number = float(stripped)
    except ValueError:
        return "", None
    return ("failure_rate", number) if number < 1 else ("", None)


def _milliseconds(environ: Mapping[str, str], variable: str, setting: str, faults: list[str]) -> float | None:
    text = environ.get(variable)
    if text is None:
        return None
    stripped = text.strip()
    known = SETTINGS[setting]
    if stripped.isascii() and stripped.isdigit() and known.fault(int(stripped) / 1000) is None:
        return int(stripped) / 1000
    faults.append(
        f"{variable}={text!r}: whole milliseconds from {known.low * 1000:,g} to {known.high * 1000:,g}, without a unit"
    )
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


# --- resolve ---------------------------------------------------------------------------------------------------------


def resolve(name: str, parts: Sequence[Part], sources: Sources, *, preset: str | None = None) -> Resolved:
    """Return the settings of a policy: every setting of every part it has, and those of every policy."""
    faults: list[str] = []
    kinds = {part.kind for part in parts}
    environment, found = sources.of(name)
    faults += found
    in_file = sources.policies.get(name, {})
    preset = environment.get(PRESET, (in_file.get(PRESET, preset), ""))[0]
    row = sources.presets.get(preset, {}) if preset is not None else {}
    if preset is not None and preset not in sources.presets:
        faults.append(f"preset={preset!r}: one of {', '.join(sorted(sources.presets))}")
    in_code = {setting: value for part in parts for setting, value in part.given.items()}
    shape = _shape(parts, row, sources)
    layers: list[tuple[dict[str, Any], str]] = [
        ({setting: setting_.default for setting, setting_ in SETTINGS.items()}, _BUILT_IN),
        *(({setting: value}, origin) for setting, (value, origin) in sources.defaults.items()),
        (dict(row), f"preset {preset}"),
        (in_code, "code"),
        ({setting: value for setting, value in in_file.items() if setting != PRESET}, "file"),
        *(({setting: value}, origin) for setting, (value, origin) in environment.items() if setting != PRESET),
    ]
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    shadowed: list[Shadowed] = []
    for number, (layer, origin) in enumerate(layers):
        for setting, value in layer.items():
            reason = _does_not_apply(setting, kinds, leaves(shape))
            if (
                reason
                and origin not in (_BUILT_IN, f"preset {preset}")
                and setting not in in_code
                and origin not in _origins(sources)
            ):
                faults.append(f"{setting}={value!r} ({origin}): policy {name!r} has no {reason}")
            elif not reason or origin == _BUILT_IN:
                if number and origins.get(setting, _BUILT_IN) != _BUILT_IN and values.get(setting) != value:
                    shadowed.append(Shadowed(setting, origins[setting], origin))
                values[setting] = value
                origins[setting] = origin
    _derive(values, kinds, faults)
    return Resolved(
        values=values,
        origins=origins,
        rule=shape,
        preset=preset,
        faults=tuple(faults),
        shadowed=tuple(shadowed),
    )


def _origins(sources: Sources) -> set[str]:
    """Where defaults for every policy come from: there a setting that one policy has no use for is no mistake."""
    return {origin for _, origin in sources.defaults.values()}


def _shape(parts: Sequence[Part], row: Mapping[str, Any], sources: Sources) -> Shape:
    breaker = next((part for part in parts if part.kind == "breaker"), None)
    declared: Shape | None = getattr(breaker, "shape", None)
    if declared is not None:
        return declared
    in_row = [kind for setting, kind in _NAMES_RULE.items() if setting in row]
    in_code = [kind for setting, kind in _NAMES_RULE.items() if breaker is not None and setting in breaker.given]
    for kinds in (in_code, in_row):
        if kinds:
            return kinds[0] if len(kinds) == 1 else ("any", *kinds)
    return sources.default_shape or DEFAULT_SHAPE


def _does_not_apply(setting: str, kinds: set[str], rules: list[str]) -> str:
    known = SETTINGS[setting]
    if "*" not in known.parts and not kinds & set(known.parts):
        return " or ".join(known.parts)
    rule = RULE_OF.get(setting)
    return f"{rule} rule" if rule is not None and rule not in rules else ""


def _derive(values: dict[str, Any], kinds: set[str], faults: list[str]) -> None:
    if values["open_seconds_max"] is None:
        values["open_seconds_max"] = max(60.0, values["open_seconds"])
    elif values["open_seconds_max"] < values["open_seconds"]:
        faults.append(
            f"open_seconds_max={values['open_seconds_max']!r}: at least open_seconds={values['open_seconds']!r}"
        )
    if values["probe_lease_seconds"] is None:
        values["probe_lease_seconds"] = max(30.0, values["timeout_seconds"] if "timeout" in kinds else 0.0)
    if values["queue_max"] is None:
        values["queue_max"] = 2 * values["running_max"]
    if "rate_limit" in kinds and values["rate"] is None:
        faults.append("rate=None: RateLimit needs a rate; no number fits without the dependency's contract")
    if values["burst"] is None:
        values["burst"] = max(1.0, values["rate"] or 1.0)
    if values["limit_min"] > values["limit_max"]:
        faults.append(f"limit_min={values['limit_min']!r}: at most limit_max={values['limit_max']!r}")


def _built_in_only() -> Sources:
    sources, faults = load({}, None)
    if faults:
        raise ValueError("; ".join(faults))  # presets.toml itself is wrong, which a test would have found
    return sources


NOTHING = _built_in_only()
