"""Small facts of a service that outlive its process, one value per (kind, name).

A value is JSON its writer understands; the store keeps bytes. The last writer wins: there is no lock and no fence here,
so nothing may be kept under them that two processes must agree on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from spoolproof import limits
from spoolproof.ports.retention import Rule


@dataclass(frozen=True, slots=True, kw_only=True)
class StateRecord:
    """A value and when it came. version: 1 for the first put of (kind, name), one more with each. updated_at: by the
    store's clock."""

    value: bytes
    version: int
    updated_at: datetime


SUSPECT = "suspect"
"""The kind of the runs that their processes may not have survived; its message may never come again."""
CLAIM = "claim"
"""The kind of the runs whose outcome is not recorded yet; likewise."""

VIEW = "view"
"""The kind of what processes tell of themselves; one that died leaves its row behind."""

RETENTION = tuple(
    Rule(
        table="state",
        key=("kind", "name"),
        since="updated_at",
        seconds=seconds,
        where={"kind": kind},
    )
    for kind, seconds in (
        (SUSPECT, "inbox_retention_seconds"),
        (CLAIM, "inbox_retention_seconds"),
        (VIEW, limits.PROCESS_RETENTION_SECONDS),
    )
)


class State(Protocol):
    """The table of small facts. kind: what sort, for example `breaker/shop`; name: of one thing of that sort."""

    async def get(self, kind: str, name: str) -> StateRecord | None:
        """Return the record, or None. Raises StoreUnavailable."""

    async def put(self, kind: str, name: str, value: bytes) -> int:
        """Keep a value, committed on return; returns its version.

        Raises ValueError, and writes nothing, for one above STATE_BYTES_MAX (64 KiB); StoreUnavailable.
        """

    async def all(self, kind: str) -> Mapping[str, StateRecord]:
        """Return every record of a kind by name, sorted by name; perhaps none. Raises StoreUnavailable."""

    async def remove(self, kind: str, name: str) -> bool:
        """Forget a value; False if there was none. Its next version is 1 again. Raises StoreUnavailable."""


def check_value(kind: str, name: str, value: bytes) -> None:
    """Raise ValueError for a value no store takes."""
    if len(value) > limits.STATE_BYTES_MAX:
        raise ValueError(
            f"state {kind!r} {name!r}: {len(value)} bytes, at most {limits.STATE_BYTES_MAX}; "
            "keep what grows in a table of its own"
        )
