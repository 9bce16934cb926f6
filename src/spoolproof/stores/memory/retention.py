"""The memory store's deleting by age. A row's columns are its attributes; those of its key are the key's parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from spoolproof.ports.retention import Rule

if TYPE_CHECKING:
    from spoolproof.stores.memory.store import MemoryStore


class MemoryRetention:
    def __init__(self, store: MemoryStore, rules: Sequence[Rule]) -> None:
        self._store = store
        self._rules = rules

    async def prune(self, seconds_of: Callable[[Rule], float], limit: int) -> int:
        async with self._store.transaction() as tx:
            deleted = 0
            for rule in self._rules:
                rows = tx.table(rule.table)
                before = self._store.clock.now() - timedelta(seconds=seconds_of(rule))
                meant = [(getattr(row, rule.since), key) for key, row in rows.items() if _is_meant(rule, key, row)]
                old = sorted((pair for pair in meant if pair[0] is not None and pair[0] < before), key=itemgetter(0))
                for _, key in old[:limit]:
                    del rows[key]
                deleted += len(old[:limit])
            return deleted


def _is_meant(rule: Rule, key: Any, row: object) -> bool:
    parts = dict(zip(rule.key, key if isinstance(key, tuple) else (key,), strict=True))
    return all((parts[name] if name in parts else getattr(row, name)) == value for name, value in rule.where.items())
