"""What an application declares: reconcilers of two sides, and checks of marked keys."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from inspect import isasyncgenfunction, iscoroutinefunction
from typing import Any, TypeVar

from spoolproof.errors import InvalidMessage, RegistrationError
from spoolproof.ports.reconciliations import Difference, State
from spoolproof.reconciliation.compare import Rules

Candidates = Callable[[str | None], AsyncIterator[str]]
Read = Callable[[Sequence[str]], AsyncIterator[tuple[str, Any]]]
Repair = Callable[[Difference, Any], Awaitable[object]]
Check = Callable[[str], Awaitable[object]]
F = TypeVar("F", bound=Callable[..., Any])

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,99}")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds_of(name: str, period: str | float | timedelta) -> float:
    """Return a period in seconds: `30s`, `5m`, `2h`, `1d`, seconds, or a timedelta. Raises RegistrationError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", period) if isinstance(period, str) else None
    if found is not None:
        seconds = float(found[1]) * _UNITS[found[2]]
    elif isinstance(period, timedelta):
        seconds = period.total_seconds()
    else:
        seconds = float(period) if isinstance(period, int | float) else -1.0
    if not 1 <= seconds <= 366 * 86400:
        raise RegistrationError(
            f"{name}={period!r}: '30s', '5m', '2h', '1d', seconds or a timedelta, from 1 s to 366 d"
        )
    return seconds


def state_of(value: object) -> State:
    """Return a state as it is compared and kept. Raises InvalidMessage."""
    value = value.value if isinstance(value, Enum) else value
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InvalidMessage("state", value, "a text, a whole number, or an Enum of those")
    return value


class Reconciler:
    """Two sides of the same things. The application gives it its readers and its repair, as decorators."""

    def __init__(
        self,
        name: str,
        *,
        every: str | float | timedelta | None,
        mapping: Mapping[Any, Any] | None,
        transitions: Mapping[Any, Any],
        changes_max: int,
        share_max: float,
    ) -> None:
        if not 1 <= changes_max <= 10_000 or not 0 < share_max <= 1:
            raise RegistrationError(f"reconciler {name!r}: changes_max is from 1 to 10000, share_max above 0 to 1")
        self.name = name
        self.every_seconds = None if every is None else seconds_of("every", every)
        self.rules = Rules(
            mapping=None if mapping is None else {state_of(one): state_of(to) for one, to in mapping.items()},
            transitions={state_of(one): frozenset(map(state_of, to)) for one, to in transitions.items()},
            changes_max=changes_max,
            share_max=share_max,
        )
        self.functions: dict[str, Callable[..., Any]] = {}

    def candidates(self, function: F) -> F:
        """Register `async def f(after)`: it yields the keys to compare that are above `after` (None: all), ascending by
        code point (`order by id collate "C"` on PostgreSQL)."""
        return self._generator("candidates", function)

    def ours(self, function: F) -> F:
        """Register `async def f(keys)`: it yields (key, state) of each of these keys that we have. It is read first."""
        return self._generator("ours", function)

    def theirs(self, function: F) -> F:
        """Register `async def f(keys)`: it yields (key, state) of each of these keys that they have."""
        return self._generator("theirs", function)

    def repair(self, function: F) -> F:
        """Register `async def f(difference, tx)`: it sets a state of ours to `difference.to` if and only if it still is
        `difference.ours`, and returns whether it was: `update … where id = … and state = …` returns that from
        `tx.execute`. It commits with the count of the run, and with what it publishes through `tx`."""
        if not iscoroutinefunction(function):
            raise RegistrationError(f"reconciler {self.name!r}: write `async def repair(difference, tx)`")
        self.functions["repair"] = function
        return function

    def check(self) -> list[str]:
        """Return what is missing."""
        missing = [name for name in ("candidates", "ours", "theirs", "repair") if name not in self.functions]
        return [f"reconciler {self.name!r} has no {name}; write @….{name} above a function" for name in missing]

    def _generator(self, name: str, function: F) -> F:
        if not isasyncgenfunction(function):
            raise RegistrationError(f"reconciler {self.name!r}: write {name} as an `async def` that yields")
        self.functions[name] = function
        return function


@dataclass(frozen=True, slots=True)
class Checked:
    """A check of marked keys. waits_for: a policy whose breaker, when it closes, has them checked at once."""

    name: str
    check: Check
    retry_seconds: float
    waits_for: str | None


@dataclass(slots=True)
class Declared:
    """What one service reconciles, by name."""

    reconcilers: dict[str, Reconciler] = field(default_factory=dict)
    checks: dict[str, Checked] = field(default_factory=dict)

    def check(self) -> list[str]:
        """Return what is wrong with any of them."""
        return [fault for one in self.reconcilers.values() for fault in one.check()]

    def check_name(self, name: str) -> None:
        """Raise RegistrationError for a name that is taken, or is none."""
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise RegistrationError(f"reconciler {name!r}: use 1 to 100 letters, digits, '-', '_' or '.'")
        if name in self.reconcilers or name in self.checks:
            raise RegistrationError(f"reconciler {name!r} is there already; give each its own name")
