"""The fallback as it is declared: a chain of values, or functions of the error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from spoolproof.policies.functions import OnDiscard
from spoolproof.policies.parts.part import Part


@dataclass(frozen=True, slots=True)
class LastGood:
    """The last answer for the same key, if it is younger than `age_seconds_max`."""

    key: Callable[..., Any] | None
    age_seconds_max: float


@dataclass(frozen=True, slots=True)
class Constant:
    """A value, whatever it is, callable or not."""

    value: Any


class Fallback(Part):
    """Answers from `rungs` when the call fails: values, or functions (sync or async) of the error.

    Each rung has `rung_seconds` (default 1, 0.001 to 60) if it is async. A callable that is itself the value is given
    as `Fallback.constant(value)`. on_discard: called with a judged result once a rung has answered in its place; unless
    given, what has `aclose` or `close` is closed."""

    kind: ClassVar[str] = "fallback"
    settings: ClassVar[tuple[str, ...]] = ("rung_seconds",)

    def __init__(self, *rungs: Any, rung_seconds: float | None = None, on_discard: OnDiscard | None = None) -> None:
        self.rungs = rungs
        self.on_discard = on_discard
        faults = [] if rungs else ["rungs=(): give at least one value or function of the error"]
        for rung in rungs:
            if isinstance(rung, LastGood):
                age: Any = rung.age_seconds_max
                if isinstance(age, bool) or not isinstance(age, int | float) or not 0 < age < float("inf"):
                    faults.append(f"age_seconds_max={age!r}: a finite number of seconds above 0")
        super().__init__({"rung_seconds": rung_seconds}, faults)

    @classmethod
    def last_good(cls, *, age_seconds_max: float, key: Callable[..., Any] | None = None) -> Fallback:
        """Answer with the last good answer to the same question, at most `age_seconds_max` old (`source` is stale).

        key: takes the call's arguments and returns something hashable that names the question; only a function without
        arguments needs none. Keeps the 1,024 answers used last.
        """
        return cls(LastGood(key, age_seconds_max))

    @classmethod
    def constant(cls, value: Any) -> Fallback:
        """Answer with `value`, even if it is callable."""
        return cls(Constant(value))

    def then(self, *rungs: Any) -> Fallback:
        """Return a chain that goes on with `rungs` where this one has no answer."""
        seconds: Any = self.given.get("rung_seconds")
        return Fallback(*self.rungs, *rungs, rung_seconds=seconds, on_discard=self.on_discard)
