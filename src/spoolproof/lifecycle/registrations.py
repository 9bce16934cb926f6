"""What an application declares before its service starts, and the small objects through which it does.

Each feature keeps its own registry class and finds it here by its type; the service holds them all and knows none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from spoolproof.lifecycle.part import Part

T = TypeVar("T")
P = TypeVar("P", bound=Part)


class Registrations:
    """The registries of one service, made when first asked for."""

    def __init__(self) -> None:
        self._kinds: dict[type[Any], Any] = {}

    def of(self, kind: type[T]) -> T:
        """Return the registry of a kind; always the same one."""
        if kind not in self._kinds:
            self._kinds[kind] = kind()
        registry: T = self._kinds[kind]
        return registry

    def faults(self) -> list[str]:
        """Return what is wrong with any of them, of those that have a `check`."""
        checks = [getattr(registry, "check", None) for registry in self._kinds.values()]
        return [fault for check in checks if check is not None for fault in check()]


class Host(Protocol):
    """A service, as its facets see it."""

    @property
    def name(self) -> str:
        """The service's name."""

    @property
    def registrations(self) -> Registrations:
        """What was declared."""

    @property
    def policies(self) -> Any:
        """The registry of policies that what is declared goes into."""

    def part(self, kind: type[P]) -> P:
        """Return the running part of a kind. Raises NotStarted, or NotFound where this process has not its role."""


@dataclass(frozen=True, slots=True)
class OwnHost:
    """Implements Host. runtime: returns what runs, or raises NotStarted."""

    name: str
    registrations: Registrations
    runtime: Callable[[], Any]
    policies: Any = None

    def part(self, kind: type[P]) -> P:
        """Return the running part of a kind."""
        found: P = self.runtime().part(kind)
        return found


class Facet:
    """What an application does seldom with one feature: `service.<facet>.<verb>(…)`. Made once a service."""

    def __init__(self, host: Host) -> None:
        self.host = host
