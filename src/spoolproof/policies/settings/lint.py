"""What there is to say of a policy before it has made a call: errors, warnings and notes, and the policy as text."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from spoolproof.policies.parts.breaker import leaves
from spoolproof.policies.parts.limits import Constant, Fallback, LastGood, Retry
from spoolproof.policies.parts.part import Part
from spoolproof.policies.parts.ranges import SETTINGS, Settings
from spoolproof.policies.settings.config import Resolved


def takes_arguments(function: Callable[..., Any]) -> bool:
    """Whether a function has parameters, as far as that can be seen."""
    try:
        return bool(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return True


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know. code: E, W or N with a number."""

    code: str
    message: str


_Found = Iterator[tuple[str, str]]


def findings(
    parts: Sequence[Part], settings: Settings, *, idempotent: bool | None, sync: str = "thread"
) -> list[Finding]:
    """Return what there is to say of a policy, errors first."""
    kinds = [part.kind for part in parts]
    found = (
        *_errors(kinds, settings),
        *_warnings(kinds, settings),
        *_warnings_of_retry(kinds, settings, idempotent),
        *_notes(parts, kinds, settings, sync),
    )
    if idempotent is False and any(
        _is_fake(rung) for part in parts if isinstance(part, Fallback) for rung in part.rungs
    ):
        found = (*found, ("W5", "a fallback value for a call that is not idempotent looks like success and is none"))
    return [Finding(*one) for one in sorted(found, key=lambda one: ("EWN".index(one[0][0]), one[0]))]


def _errors(kinds: list[str], settings: Settings) -> _Found:
    timeout, deadline, calls = settings.timeout_seconds, settings.deadline_seconds, settings.window_calls
    if "timeout" in kinds and "deadline" in kinds and timeout >= deadline:
        yield "E1", f"timeout_seconds={timeout:g}: below deadline_seconds={deadline:g}, or no attempt ever times out"
    if "breaker" in kinds and calls is not None and settings.calls_min > calls:
        yield "E2", f"calls_min={settings.calls_min}: at most window_calls={calls}, or it never opens"
    for kind, count in sorted(Counter(kinds).items()):
        if count > 1 and not (kind == "timeout" and count == 2 and _around_retry(kinds)):
            yield "E6", f"{kind}: {count} times; one of each, but for a Timeout on either side of Retry"


def _around_retry(kinds: list[str]) -> bool:
    outer, inner = (index for index, kind in enumerate(kinds) if kind == "timeout")
    return "retry" in kinds[outer:inner]


def _warnings(kinds: list[str], settings: Settings) -> _Found:
    timeout, lease = settings.timeout_seconds, settings.probe_lease_seconds
    if "breaker" in kinds and "timeout" not in kinds and "deadline" not in kinds:
        yield "W1", "Breaker without Timeout or Deadline: a call that hangs is never judged"
    if "breaker" in kinds and "timeout" in kinds and lease < timeout:
        yield "W7", f"probe_lease_seconds={lease:g}: below timeout_seconds={timeout:g}"


def _warnings_of_retry(kinds: list[str], settings: Settings, idempotent: bool | None) -> _Found:
    if "retry" not in kinds:
        return
    around = kinds[: kinds.index("retry")]
    if outside := [kind for kind in around if kind in ("bulkhead", "rate_limit")]:
        yield "W2", f"{' and '.join(outside)} outside Retry: a slot is held during back-off; put it inside"
    if "breaker" in around:
        yield "W3", "Breaker outside Retry: it judges calls, not attempts; put it inside"
    if idempotent is None:
        yield "W4", "Retry with idempotent unstated: unknown outcomes are not retried; say True or False"
    # back-off left out: with it the recommended defaults, 3 × 10 s in 30 s, would be found wanting
    longest, deadline = settings.attempts * settings.timeout_seconds, settings.deadline_seconds
    if "deadline" in kinds and "timeout" in kinds and longest > deadline:
        yield (
            "W6",
            f"attempts × timeout_seconds is {longest:g} s, over deadline_seconds={deadline:g}: the last may never run",
        )


def _notes(parts: Sequence[Part], kinds: list[str], settings: Settings, sync: str) -> _Found:
    if sync == "cooperative":
        yield "N1", 'sync="cooperative" cuts no sync attempt off'
    if "breaker" in kinds and settings.mode != "enforce":
        yield "N1", f"mode={settings.mode}: the breaker rejects nothing"
    if "chaos" in kinds:
        yield "N1", "Chaos is present"
    if any(isinstance(part, Retry) and part.nested == "allow" for part in parts):
        yield "N1", 'nested="allow": retries multiply'


def _is_fake(rung: Any) -> bool:
    return isinstance(rung, LastGood | Constant) or not callable(rung)


def function_findings(parts: Sequence[Part], function: Callable[..., Any], *, is_async: bool) -> list[Finding]:
    """Return what makes a policy impossible for one function."""
    found = []
    shown = getattr(function, "__qualname__", type(function).__qualname__)  # the repr of a partial shows its arguments
    for part in parts:
        if part.kind == "hedge" and not is_async:
            found.append(Finding("E3", f"Hedge on {shown!r}, which is not async: a thread cannot be cancelled"))
        lacks_key = isinstance(part, Fallback) and any(
            isinstance(rung, LastGood) and rung.key is None for rung in part.rungs
        )
        if lacks_key and takes_arguments(function):
            found.append(Finding("E4", f"last_good without key on {shown!r}, which takes arguments: say key="))
    return found


def explain(name: str, parts: Sequence[Part], resolved: Resolved, found: Sequence[Finding]) -> str:
    """Return a policy as stable text: a line a part, outermost first, each setting with its source, then findings.

    The first line names the preset and the settings of no part (`keys_max`) that were given.
    """
    common = [
        f" {_with_origin(setting, resolved)}"
        for setting, known in SETTINGS.items()
        if "*" in known.parts and resolved.origins[setting] != "built-in"
    ]
    preset = "" if resolved.preset is None else f" (preset {resolved.preset})"
    lines = [f"policy {name}{preset}{''.join(common)}"]
    for part in parts:
        settings = [
            _with_origin(setting, resolved)
            for setting in part.settings
            if getattr(resolved.values, setting) is not None and _matters(setting, part, resolved)
        ]
        rule = f" rule={_rule_text(resolved.rule)}" if part.kind == "breaker" else ""
        lines.append(f"  {part.kind}{rule}{''.join(' ' + setting for setting in settings)}")
    lines += [f"  {one.code}: {one.message}" for one in found]
    return "\n".join(lines)


def _with_origin(setting: str, resolved: Resolved) -> str:
    return f"{setting}={_shown(getattr(resolved.values, setting))} ({resolved.origins[setting]})"


def _matters(setting: str, part: Part, resolved: Resolved) -> bool:
    if part.kind == "bulkhead":
        is_adaptive = getattr(part, "adaptive", None) is not None
        return setting.startswith("limit_") == is_adaptive or setting in ("queue_max", "wait_seconds_max")
    if setting == "window_seconds" and resolved.values.window_calls is not None:
        return False
    rule = SETTINGS[setting].rule
    return not rule or rule in leaves(resolved.rule)


def _rule_text(rule: Any) -> str:
    return rule if isinstance(rule, str) else f"{rule[0]}({', '.join(map(_rule_text, rule[1:]))})"


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
