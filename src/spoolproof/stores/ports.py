"""The further ports of a store, beyond those every service needs: by type, so that a new one edits no store.

A port is named `file.Port`: the Protocol `Port` in `ports/file.py`. Its adapters are `MemoryPort`, `SqlitePort` and
`PostgresPort`, in the file of the same name in each store's folder; they are imported when somebody asks. `wiring`
lists the ports there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, TypeVar

from spoolproof.errors import InvariantViolated
from spoolproof.ports.retention import Rule
from spoolproof.stores.retention import RULES

T = TypeVar("T")


class Ports:
    """The adapters of one store, each made once, from the store's engine."""

    def __init__(self, engine: object, package: str, prefix: str, names: Sequence[str]) -> None:
        """package, prefix: where the store's adapters are, and how the names of their classes begin. rules: for
        deleting by age, of all ports of the store."""
        self._engine = engine
        self._package = package
        self._prefix = prefix
        self._names = frozenset(names)
        self.rules = (*RULES, *(rule for name in names for rule in _rules_beside(name)))
        self._made: dict[type[Any], Any] = {}

    def of(self, kind: type[T]) -> T:
        """Return the adapter of a port; always the same one. Raises InvariantViolated for one that is not listed."""
        if kind not in self._made:
            file = kind.__module__.rpartition(".")[2]
            if f"{file}.{kind.__name__}" not in self._names:
                raise InvariantViolated(f"no store has the port {file}.{kind.__name__}; name it in wiring.PORTS")
            adapter = getattr(import_module(f"{self._package}.{file}"), self._prefix + kind.__name__)
            self._made[kind] = adapter(self._engine)
        made: T = self._made[kind]
        return made


def _rules_beside(name: str) -> Sequence[Rule]:
    port = import_module(f"spoolproof.ports.{name.partition('.')[0]}")
    rules: Sequence[Rule] = getattr(port, "RETENTION", ())
    return rules
