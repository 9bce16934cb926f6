"""What to answer when the dependency gives no answer.

A chain: values, or functions of the error, tried in order; the first that returns wins. `Result.source` says where an
answer came from. An answer that was given (a 404, a refusal) is never replaced, nor is a bug, nor a cancellation. When
all fail, the original error is raised with theirs as notes."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spoolproof.policies.parts.breaker import leaves
from spoolproof.policies.parts.fallback import Constant, Fallback, LastGood
from spoolproof.policies.parts.limits import Retry
from spoolproof.policies.parts.part import Part
from spoolproof.policies.parts.ranges import SETTINGS
from spoolproof.policies.settings.config import RULE_OF, Resolved


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


def findings(
    parts: Sequence[Part],
    values: Mapping[str, Any],
    *,
    idempotent: bool | None,
    sync: str = "thread",
) -> list[Finding]:
    """Return what there is to say of a policy, errors first."""
    kinds = [part.kind for part in parts]
    found = [*_errors(parts, kinds, values), *_warnings(parts, kinds, values, idempotent)]
    notes = []
    if sync == "cooperative":
        notes.append('sync="cooperative" cuts no sync attempt off')
    if "breaker" in kinds and values["mode"] != "enforce":
        notes.append(f"mode={values['mode']}: the breaker rejects nothing")
    if "chaos" in kinds:
        notes.append("Chaos is present")
    if any(isinstance(part, Retry) and part.nested == "allow" for part in parts):
        notes.append('nested="allow": retries multiply')
    return found + [Finding("N1", note) for note in notes]


def _errors(parts: Sequence[Part], kinds: list[str], values: Mapping[str, Any]) -> list[Finding]:
    found = []
    timeout, deadline = values["timeout_seconds"], values["deadline_seconds"]
    if "timeout" in kinds and "deadline" in kinds and timeout >= deadline:
        found.append(
            Finding(
                "E1", f"timeout_seconds={timeout:g}: below deadline_seconds={deadline:g}, or no attempt ever times out"
            )
        )
    calls = values.get("window_calls")
    if "breaker" in kinds and calls is not None and values["calls_min"] > calls:
        found.append(Finding("E2", f"calls_min={values['calls_min']}: at most window_calls={calls}, or it never opens"))
    for kind, count in sorted(Counter(kinds).items()):
        if count > 1 and not (kind == "timeout" and count == 2 and _around_retry(kinds)):
            found.append(
                Finding("E6", f"{kind}: {count} times; one of each, but for a Timeout on either side of Retry")
            )
    return found


def _around_retry(kinds: list[str]) -> bool:
    return "retry" in kinds and kinds.index("timeout") < kinds.index("retry") < len(kinds) - 1 - kinds[::-1].index(
        "timeout"
    )


def _warnings(
    parts: Sequence[Part], kinds: list[str], values: Mapping[str, Any], idempotent: bool | None
) -> list[Finding]:
    found = []
    if "breaker" in kinds and "timeout" not in kinds and "deadline" not in kinds:
        found.append(Finding("W1", "Breaker without Timeout or Deadline: a call that hangs is never judged"))
    if "retry" in kinds:
        retry = kinds.index("retry")
        outside = [kind for kind in kinds[:retry] if kind in ("bulkhead", "rate_limit")]
        if outside:
            found.append(
                Finding("W2", f"{' and '.join(outside)} outside Retry: a slot is held during back-off; put it inside")
            )
        if "breaker" in kinds[:retry]:
            found.append(Finding("W3", "Breaker outside Retry: it judges calls, not attempts; put it inside"))
        if idempotent is None:
            found.append(
                Finding("W4", "Retry with idempotent unstated: unknown outcomes are not retried; say True or False")
            )
        if "deadline" in kinds and "timeout" in kinds:
            # back-off left out: with it the recommended defaults, 3 × 10 s in 30 s, would be found wanting
            longest = values["attempts"] * values["timeout_seconds"]
            if longest > values["deadline_seconds"]:
                limit = f"deadline_seconds={values['deadline_seconds']:g}"
                found.append(
                    Finding("W6", f"attempts × timeout_seconds is {longest:g} s, over {limit}: the last may never run")
                )
    if idempotent is False:
        for part in parts:
            if isinstance(part, Fallback) and any(_is_fake(rung) for rung in part.rungs):
                found.append(
                    Finding("W5", "a fallback value for a call that is not idempotent looks like success and is none")
                )
    if "breaker" in kinds and "timeout" in kinds and values["probe_lease_seconds"] < values["timeout_seconds"]:
        found.append(
            Finding(
                "W7",
                f"probe_lease_seconds={values['probe_lease_seconds']:g}: below timeout_seconds="
                f"{values['timeout_seconds']:g}",
            )
        )
    return found


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
        f" {setting}={_shown(resolved.values[setting])} ({resolved.origins[setting]})"
        for setting, known in SETTINGS.items()
        if "*" in known.parts and resolved.origins[setting] != "built-in"
    ]
    preset = "" if resolved.preset is None else f" (preset {resolved.preset})"
    lines = [f"policy {name}{preset}{''.join(common)}"]
    for part in parts:
        settings = [
            f"{setting}={_shown(resolved.values[setting])} ({resolved.origins[setting]})"
            for setting in getattr(part, "settings", ())
            if resolved.values.get(setting) is not None and _matters(setting, part, resolved)
        ]
        rule = f" rule={_rule_text(resolved.rule)}" if part.kind == "breaker" else ""
        lines.append(f"  {part.kind}{rule}{''.join(' ' + setting for setting in settings)}")
    lines += [f"  {one.code}: {one.message}" for one in found]
    return "\n".join(lines)


def _matters(setting: str, part: Part, resolved: Resolved) -> bool:
    if part.kind == "bulkhead":
        is_adaptive = getattr(part, "adaptive", None) is not None
        return setting.startswith("limit_") == is_adaptive or setting in ("queue_max", "wait_seconds_max")
    if setting == "window_seconds" and resolved.values["window_calls"] is not None:
        return False
    rule = RULE_OF.get(setting)
    return rule is None or rule in leaves(resolved.rule)


def _rule_text(rule: Any) -> str:
    return rule if isinstance(rule, str) else f"{rule[0]}({', '.join(map(_rule_text, rule[1:]))})"


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
