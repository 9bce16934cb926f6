"""The memory store's deleting by age. A row's columns are its attributes; those of its key are the key's parts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from spoolproof.ports.retention import Rule
from spoolproof.stores.retention import RuleByRule

if TYPE_CHECKING:
    from spoolproof.stores.memory.store import MemoryStore


class MemoryRetention(RuleByRule):
    def __init__(self, store: MemoryStore, rules: Sequence[Rule]) -> None:
        super().__init__(rules)
        self._store = store

    async def delete(self, rule: Rule, seconds: float, limit: int) -> int:
        before = self._store.clock.now() - timedelta(seconds=seconds)
        async with self._store.transaction() as tx:
            rows = tx.table(rule.table)
            meant = [(getattr(row, rule.since), key) for key, row in rows.items() if _is_meant(rule, key, row)]
            old = sorted((pair for pair in meant if pair[0] is not None and pair[0] < before), key=itemgetter(0))
            for _, key in old[:limit]:
                del rows[key]
            return len(old[:limit])


def _is_meant(rule: Rule, key: Any, row: object) -> bool:
    parts = dict(zip(rule.key, key if isinstance(key, tuple) else (key,), strict=True))
    return all((parts[name] if name in parts else getattr(row, name)) == value for name, value in rule.where.items())
