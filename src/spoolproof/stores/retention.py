"""The rules of the ports that every store has, and what they are in SQL."""

from __future__ import annotations

from collections.abc import Mapping

from spoolproof.ports import dead_letters, inbox, leases, state
from spoolproof.ports.retention import Rule

RULES = (*inbox.RETENTION, *dead_letters.RETENTION, *leases.RETENTION, *state.RETENTION)


def words_of(rule: Rule) -> Mapping[str, str]:
    """Return what the statement `prune` is completed with: `$3` and on are the values of `rule.where`."""
    return {
        "table": rule.table,
        "since": rule.since,
        "key": ", ".join(rule.key),
        "same_key": " and ".join(f"t.{column} = old.{column}" for column in rule.key),
        "and_where": "".join(f" and {column} = ${number}" for number, column in enumerate(rule.where, 3)),
    }
