"""Toys, and whether they are broken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from spoolproof.ports.retention import Rule

RETENTION = (Rule(table="toy", key=("name",), since="played_at", seconds="toy_kept_seconds"),)


class Toys(Protocol):
    """The table of toys."""

    async def play(self, name: str, *, breaks: bool = False) -> None:
        """Add a toy or play with it again, committed on return. Raises StoreUnavailable."""

    async def all(self) -> Mapping[str, bool]:
        """Return whether each toy is broken, by name, sorted by name. Raises StoreUnavailable."""
