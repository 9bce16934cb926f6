"""A filter of dead letters as the conditions of a statement, the same for every database.

Values are always parameters. What the databases say differently is a `Dialect`, one for each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from spoolproof.ids import is_uuid
from spoolproof.ports.dead_letters import DeadLetterFilter, DeadLetterState

_EQUAL = {
    "state": "state",
    "consumer": "consumer",
    "reason": "reason",
    "type": "type",
    "fingerprint": "fingerprint",
    "key": "ordering_key",
    "message_id": "coalesce(given_id, message_id)",
}


@dataclass(frozen=True, slots=True)
class Dialect:
    """contains: text within text. among: an id of a list. ids, id, instant: values as the driver takes them."""

    contains: str
    among: str
    ids: Callable[[Sequence[str]], object]
    id: Callable[[str], object]
    instant: Callable[[datetime], object]


def conditions(filter: DeadLetterFilter, dialect: Dialect, first: int = 1) -> tuple[str, list[Any]]:
    """Return ` and … and …`, perhaps nothing, and its values, whose numbers start with `first`."""
    found: list[tuple[str, tuple[object, ...]]] = [
        (f"{column} = {{}}", (value,))
        for name, column in _EQUAL.items()
        if (value := getattr(filter, name)) is not None
    ]
    if filter.text is not None:
        found.append((dialect.contains, (filter.text.lower(),)))
    if filter.since is not None:
        found.append(("last_failed_at >= {}", (dialect.instant(filter.since),)))
    if filter.until is not None:
        found.append(("last_failed_at < {}", (dialect.instant(filter.until),)))
    if filter.ids is not None:
        found.append((dialect.among, (dialect.ids([id for id in filter.ids if is_uuid(id)]),)))
    if filter.after is not None:
        at, id = filter.after
        found.append(("(first_failed_at, id) > ({}, {})", (dialect.instant(at), dialect.id(id))))
    sql, values = "", list[Any]()
    for template, given in found:
        numbers = [f"${first + len(values) + n}" for n in range(len(given))]
        sql += " and " + template.format(*numbers)
        values += given
    return sql, values


def among_states(states: Sequence[DeadLetterState]) -> str:
    """Return the condition for one of these states, as a literal: indexes are by it."""
    return "state in ({})".format(", ".join(f"'{state}'" for state in states))
