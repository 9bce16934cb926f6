"""The further ports of a store, beyond those every service needs: by type, so that a new one edits no store.

A port is named `file.Port`: the Protocol `Port` in `ports/file.py`. Its adapters are `MemoryPort`, `SqlitePort` and
`PostgresPort`, in the file of the same name in each store's folder; they are imported when somebody asks, and made from
the store. `wiring` lists the ports there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, TypeVar

from spoolproof.errors import InvariantViolated
from spoolproof.ports.retention import Rule
from spoolproof.stores.retention import RULES

T = TypeVar("T")


class PortedStore:
    """Base of every store: its adapters of further ports, each made once."""

    def __init__(self, kind: str, names: Sequence[str]) -> None:
        """kind: the store's folder, and how the names of its classes begin."""
        self._kind = kind
        self._names = frozenset(names)
        self._made: dict[type[Any], Any] = {}

    def port(self, kind: type[T]) -> T:
        if kind not in self._made:
            file = kind.__module__.rpartition(".")[2]
            if f"{file}.{kind.__name__}" not in self._names:
                raise InvariantViolated(f"no store has the port {file}.{kind.__name__}; name it in wiring.PORTS")
            adapters = import_module(f"spoolproof.stores.{self._kind}.{file}")
            self._made[kind] = getattr(adapters, self._kind.capitalize() + kind.__name__)(self)
        made: T = self._made[kind]
        return made

    def rules(self) -> Sequence[Rule]:
        """Return how rows of all its ports are deleted by age."""
        files = [import_module(f"spoolproof.ports.{name.partition('.')[0]}") for name in sorted(self._names)]
        return [*RULES, *(rule for file in files for rule in getattr(file, "RETENTION", ()))]
