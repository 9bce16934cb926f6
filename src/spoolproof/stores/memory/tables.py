"""Everything a memory store keeps: tables of immutable rows by their key, and the user's business rows."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Tables:
    """One state of the store. Rows are immutable, so a copy of the dicts is a copy of the state."""

    last_id: int = 0
    rows: dict[str, dict[Any, Any]] = field(default_factory=dict)  #: by name of the table, then by key
    business: dict[Any, Any] = field(default_factory=dict)

    def table(self, name: str) -> dict[Any, Any]:
        """Return a table's rows by key; it is there as soon as somebody asks."""
        return self.rows.setdefault(name, {})

    def copied(self) -> Tables:
        rows = {name: dict(table) for name, table in self.rows.items()}
        return Tables(self.last_id, rows, copy.deepcopy(self.business))  # the user's values may be mutable
