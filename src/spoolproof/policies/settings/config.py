"""Where the settings of policies come from, weakest first:

built-in → `CB_*` and `SPOOLPROOF_POLICY_DEFAULT_<SETTING>` → preset → code → the TOML file named by
`SPOOLPROOF_POLICIES_FILE` (`[policies.<name>]`) → `SPOOLPROOF_POLICY_<NAME>_<SETTING>` (upper case, other characters
`_`).

`sources` reads and checks what was given outside the code, `resolve` lays it around the parts of one policy. Both
return faults instead of raising them, so that a start-up report can list them all. `preset` is a key like any other in
the file and the environment; `SPOOLPROOF_POLICY_DEFAULT_PRESET` is for policies that name none.

A setting that has no effect is never passed over in silence. From code, file or a policy's own variable it is a fault;
from what is meant for many policies (defaults, presets) it is recorded as shadowed where a stronger rule hides it, and
is no matter where the policy lacks the part. Of `window_seconds` and `window_calls` the one from the stronger source
counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spoolproof.errors import InvariantViolated
from spoolproof.policies.parts.breaker import DEFAULT_SHAPE, Shape, leaves
from spoolproof.policies.parts.part import Part
from spoolproof.policies.parts.ranges import SETTINGS, Settings
from spoolproof.policies.settings.sources import PERIOD, PRESET, THRESHOLD, WINDOW, Sources, both_windows, load

_NAMES_RULE = {"failure_rate": "rate", "consecutive": "consecutive", "slow_rate": "slow"}
_PERIOD = {"window_seconds": "within_seconds", "within_seconds": "window_seconds"}
_BUILT_IN = "built-in"
_CODE = "code"
_FILE = "file"
_KINDS = {kind for setting in SETTINGS.values() for kind in setting.parts} - {"*"} | {"chaos"}


@dataclass(frozen=True, slots=True)
class Shadowed:
    """A setting that a stronger source hides."""

    setting: str
    hidden: str
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """The settings of one policy. origins: where each comes from. rule: the breaker's."""

    values: Settings
    origins: Mapping[str, str]
    rule: Shape
    preset: str | None
    faults: tuple[str, ...]
    shadowed: tuple[Shadowed, ...]


def resolve(name: str, parts: Sequence[Part], sources: Sources, *, preset: str | None = None) -> Resolved:
    """Return the settings of a policy: every setting of every part it has, and those of every policy.

    preset: as named in code; file and environment may name another. One result serves every keyed child.
    """
    environment, faults = sources.of(name)
    in_file = sources.policies.get(name, {})
    preset = environment.get(PRESET, (in_file.get(PRESET, preset or sources.default_preset), ""))[0]
    row = sources.presets.get(preset, {}) if preset is not None else {}
    if preset is not None and preset not in sources.presets:
        faults.append(f"preset={preset!r}: one of {', '.join(sorted(sources.presets))}")
    in_code = _in_code(parts, faults)
    shape, chosen_by = _shape(parts, row, f"preset {preset}", sources)
    layers = [
        *(_Layer({setting: value}, origin, False) for setting, (value, origin) in sources.defaults.items()),
        _Layer(row, f"preset {preset}", False),
        _Layer(in_code, _CODE, True),
        _Layer({setting: value for setting, value in in_file.items() if setting != PRESET}, _FILE, True),
        *(_Layer({key: value}, origin, True) for key, (value, origin) in environment.items() if key != PRESET),
    ]
    laying = _Laying(name, parts, shape, chosen_by, faults)
    for layer in layers:
        laying.lay(layer)
    _derive(laying.values, laying.kinds, laying.rules, faults)
    return Resolved(
        values=Settings(**laying.values),
        origins=laying.origins,
        rule=shape,
        preset=preset,
        faults=tuple(faults),
        shadowed=tuple(laying.shadowed),
    )


@dataclass(frozen=True, slots=True)
class _Layer:
    """What one source says. is_own: it means this policy, so that a setting without effect is a mistake."""

    settings: Mapping[str, Any]
    origin: str
    is_own: bool


class _Laying:
    """The settings of one policy while sources are laid on each other, the weakest first."""

    def __init__(self, name: str, parts: Sequence[Part], shape: Shape, chosen_by: str, faults: list[str]) -> None:
        self.values: dict[str, Any] = {setting: known.default for setting, known in SETTINGS.items()}
        self.origins: dict[str, str] = dict.fromkeys(SETTINGS, _BUILT_IN)
        self.shadowed: list[Shadowed] = []
        self.kinds = {part.kind for part in parts}
        self.rules = leaves(shape)
        self._name = name
        self._chosen_by = chosen_by
        self._is_adaptive = any(getattr(part, "adaptive", None) is not None for part in parts)
        self._faults = faults

    def lay(self, layer: _Layer) -> None:
        """Lay one source on the weaker ones."""
        for setting, value in layer.settings.items():
            lacking = self._lacking(setting)
            if lacking:
                if layer.is_own:
                    where = "" if layer.origin == _CODE else f" ({layer.origin})"
                    self._faults.append(f"{setting}={value!r}{where}: policy {self._name!r} has no {lacking}")
            elif self._is_hidden(setting):
                self._hide(setting, value, layer)
            else:
                self._replace(setting, value, layer.origin)

    def _lacking(self, setting: str) -> str:
        known = SETTINGS[setting]
        if "*" not in known.parts and not self.kinds & set(known.parts):
            return " or ".join(known.parts)
        if setting == "running_max" and self._is_adaptive:
            return "fixed limit; limit_min and limit_max bound the one it has"
        if setting.startswith("limit_") and not self._is_adaptive:
            return "Adaptive limit"
        return ""

    def _is_hidden(self, setting: str) -> bool:
        rule = SETTINGS[setting].rule
        return rule != "" and rule not in self.rules

    def _hide(self, setting: str, value: Any, layer: _Layer) -> None:
        """Note a setting of a rule that the breaker does not have."""
        origin, rule = layer.origin, SETTINGS[setting].rule
        if origin == self._chosen_by or (layer.is_own and origin != _CODE):
            self._faults.append(f"{setting}={value!r} ({origin}): policy {self._name!r} has no {rule} rule")
        elif origin != PERIOD or self._is_hidden(_PERIOD[setting]):
            self.shadowed.append(Shadowed(setting, origin, self._chosen_by))

    def _replace(self, setting: str, value: Any, origin: str) -> None:
        weaker = self.origins[setting]
        if weaker != _BUILT_IN and self.values[setting] != value:
            self.shadowed.append(Shadowed(setting, weaker, origin))
        self.values[setting] = value
        self.origins[setting] = origin
        other = WINDOW.get(setting)
        if other is not None and self.origins[other] not in (_BUILT_IN, origin):
            self.shadowed.append(Shadowed(other, self.origins[other], origin))
            self.values[other] = SETTINGS[other].default
            self.origins[other] = _BUILT_IN


def _in_code(parts: Sequence[Part], faults: list[str]) -> dict[str, Any]:
    """Return what the parts were given; a setting that two of them share has one value."""
    given: dict[str, Any] = {}
    first: dict[str, str] = {}
    for part in parts:
        if part.kind not in _KINDS:
            faults.append(f"{part!r}: no part by itself; an Adaptive goes into a Bulkhead")
        for setting, value in part.given.items():
            if part.kind == "timeout":
                given[setting] = value  # the innermost bounds attempts; one around Retry keeps what it was given
                continue
            is_twice = part.kind == first.setdefault(setting, part.kind)  # that is for lint, E6
            if given.setdefault(setting, value) != value and not is_twice:
                faults.append(f"{setting}={value!r}: another part says {given[setting]!r}; they share it, say it once")
    faults += both_windows(given, "Breaker")
    return given


def _shape(parts: Sequence[Part], row: Mapping[str, Any], row_origin: str, sources: Sources) -> tuple[Shape, str]:
    """Return the rule, and which source chose it."""
    breaker = next((part for part in parts if part.kind == "breaker"), None)
    declared: Shape | None = getattr(breaker, "shape", None)
    if declared is not None:
        return declared, _CODE
    given = {} if breaker is None else breaker.given
    for settings, origin in ((given, _CODE), (row, row_origin)):
        kinds = [kind for setting, kind in _NAMES_RULE.items() if setting in settings]
        if kinds:
            return (kinds[0] if len(kinds) == 1 else ("any", *kinds)), origin
    if sources.default_shape is not None:
        return sources.default_shape, THRESHOLD
    return DEFAULT_SHAPE, _BUILT_IN


def _derive(values: dict[str, Any], kinds: set[str], rules: list[str], faults: list[str]) -> None:
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
    if "slow" in rules:
        missing = [name for name in ("slow_rate", "slow_seconds") if values[name] is None]
        faults += [f"{name}=None: a slow rule needs it, or it never opens" for name in missing]
    if values["burst"] is None:
        values["burst"] = max(1.0, values["rate"] or 1.0)
    if values["limit_min"] > values["limit_max"]:
        faults.append(f"limit_min={values['limit_min']!r}: at most limit_max={values['limit_max']!r}")


def _built_in_only() -> Sources:
    sources, faults = load({}, None)
    if faults:
        raise InvariantViolated(f"presets.toml is wrong: {'; '.join(faults)}")
    return sources


NOTHING = _built_in_only()
