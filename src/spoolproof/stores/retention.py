"""Deleting by age as every store does it: rule after rule, each at most so many rows a turn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from spoolproof.ports import dead_letters, inbox, leases, state
from spoolproof.ports.retention import Rule

RULES = (*inbox.RETENTION, *dead_letters.RETENTION, *leases.RETENTION, *state.RETENTION)
"""Of the ports that every store has."""


class RuleByRule(ABC):
    """Implements `ports.retention.Retention` for a store that can delete the rows of one rule."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = rules

    async def prune(self, seconds_of: Callable[[Rule], float], limit: int) -> int:
        return sum([await self.delete(rule, seconds_of(rule), limit) for rule in self._rules])

    @abstractmethod
    async def delete(self, rule: Rule, seconds: float, limit: int) -> int:
        """Delete the oldest rows of a rule that are older than so many seconds; returns how many went."""


def words_of(rule: Rule) -> dict[str, str]:
    """Return what the SQL statement `prune` is completed with: `$3` and on are the values of `rule.where`."""
    return {
        "table": rule.table,
        "since": rule.since,
        "key": ", ".join(rule.key),
        "same_key": " and ".join(f"t.{column} = old.{column}" for column in rule.key),
        "and_where": "".join(f" and {column} = ${number}" for number, column in enumerate(rule.where, 3)),
    }
