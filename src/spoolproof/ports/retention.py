"""Deleting by age: a rule for each table that grows, beside its port as `RETENTION`, walked by every store alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """When rows of a table go.

    table: without the store's prefix. key: its primary key. since: the column a row's age is counted from; it has none
    while that is null. seconds: the age, or the setting that says it, as an argument of `Settings` is called. where:
    what columns must hold. is_steady: `since` is by the clock that nobody sets, on a store that has one.
    """

    table: str
    key: tuple[str, ...]
    since: str
    seconds: float | str
    where: Mapping[str, str] = field(default_factory=dict)
    is_steady: bool = False


class Retention(Protocol):
    """Walks the rules of every port of a store."""

    async def prune(self, seconds_of: Callable[[Rule], float], limit: int) -> int:
        """Delete the rows older than `seconds_of` says for their rule, oldest first, at most `limit` for each; returns
        how many went. Raises StoreUnavailable."""
