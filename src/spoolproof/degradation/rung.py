"""What a ladder is made of, and what is wrong with it as declared."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from spoolproof.ports.cache import LastGood

TIMEOUT_SECONDS = 0.2
"""Of a fallback: it has its answer at hand, or it is none."""
RUNNING_MAX = 10
"""Fallbacks of one ladder at once: they must not become the next overload."""
PRIORITY = 100
NAME = re.compile(r"[a-z][a-z0-9_.-]{0,63}")


class Kind(IntEnum):
    """In the order in which they are tried."""

    PRIMARY = 1
    CACHED = 2
    DEFAULT = 3
    PARTIAL = 4
    SPOOLED = 5

    @property
    def word(self) -> str:
        """Its name in `Served.rung` and metrics."""
        return self.name.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One way to an answer. cache, key: where a cached rung looks, and what makes its key of the arguments. parts: what
    a partial rung leaves out, unless it takes a part out of the set that it is given."""

    kind: Kind
    name: str
    function: Callable[..., Any] | None = None
    dependency: str | None = None
    is_extra: bool = False
    priority: int = PRIORITY
    timeout: float | None = None
    parts: tuple[str, ...] = ()
    cache: LastGood | None = None
    template: str = ""
    age_seconds_max: float = math.inf


@dataclass(slots=True)
class Declaration:
    """A ladder as it was written. seconds: its deadline."""

    name: str
    seconds: float
    is_write: bool
    primary: Rung | None = None
    fallbacks: list[Rung] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    key_of: dict[str, Callable[[Sequence[Any], Mapping[str, Any]], str]] = field(default_factory=dict)

    @property
    def rungs(self) -> list[Rung]:
        """The fallbacks in the order in which they are tried."""
        return sorted(self.fallbacks, key=lambda one: (one.kind, one.priority))

    @property
    def primary_seconds(self) -> float:
        """How long the primary may take: what it says, or what leaves the first fallback its time."""
        given = None if self.primary is None else self.primary.timeout
        return given if given is not None else max(self.seconds / 2, self.seconds - TIMEOUT_SECONDS)

    def check(self) -> list[str]:
        """Return every fault, now that all rungs are there."""
        faults = [*self.faults]
        if not NAME.fullmatch(self.name):
            faults.append("its name must be a letter and up to 63 of a-z, 0-9, '_', '.', '-'")
        if not _is_seconds(self.seconds):
            faults.append(f"deadline={self.seconds!r}: seconds above 0")
            return faults
        if self.primary is None:
            faults.append("it has no primary: put @ladder.primary() on a function")
        if not self.fallbacks:
            needed = "@ladder.spooled()" if self.is_write else "cached, default or partial"
            faults.append(f"it has nothing to fall back on: add {needed}")
        for one in self.fallbacks:
            faults += self._faults_of(one)
        timeout = None if self.primary is None else self.primary.timeout
        if timeout is not None and (not _is_seconds(timeout) or timeout >= self.seconds):
            faults.append(f"primary: timeout={timeout!r}: above 0 and below the deadline of {self.seconds:g} s")
        faults += [one for one in (self._bind(rung) for rung in self.fallbacks) if one]
        return faults

    def _faults_of(self, one: Rung) -> list[str]:
        faults = []
        if not _is_seconds(one.timeout) or (one.timeout or 0) > self.seconds:
            faults.append(f"{one.name}: timeout={one.timeout!r}: above 0 and at most the deadline")
        if isinstance(one.priority, bool) or not isinstance(one.priority, int):
            faults.append(f"{one.name}: priority={one.priority!r}: a whole number, the lower first")
        own = None if self.primary is None else self.primary.dependency
        if one.dependency is not None and one.dependency != own and not one.is_extra:
            faults.append(
                f"{one.name}: dependency={one.dependency!r} is loaded harder when {own!r} is away; say "
                "extra_dependency=True if it can take that"
            )
        if self.is_write is not (one.kind is Kind.SPOOLED):
            what = "only spooled: nothing else may look as if it had been done" if self.is_write else "no spooled rung"
            faults.append(f"{one.name}: a ladder with write={self.is_write} has {what}")
        if one.kind is Kind.PARTIAL and not one.parts:
            faults.append(f"{one.name}: parts=() names what is left out")
        if one.kind is Kind.CACHED and not one.age_seconds_max > 0:
            faults.append(f"{one.name}: age_seconds_max={one.age_seconds_max!r}: above 0")
        return faults

    def _bind(self, one: Rung) -> str | None:
        """Make the keys of a cached rung, by the primary's parameters; returns what is wrong with them."""
        if one.cache is None or self.primary is None or self.primary.function is None:
            return None
        try:
            self.key_of[one.name] = one.cache.key_maker(one.template, self.primary.function)
        except ValueError as error:
            return f"{one.name}: {error}"
        except Exception as error:  # a template or signature that cannot be read, whatever it raises
            return f"{one.name}: key={one.template!r}: {error}"
        return None


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
