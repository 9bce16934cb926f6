"""What people did through a dashboard: one entry for each act, kept before the act and completed after it.

An entry without an ending is an act whose process died, or lost the store, in the middle: what it was about is known,
what became of it is not. Nobody changes an entry otherwise, and nothing here is a reason to do or refuse anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from spoolproof.ports.retention import Rule

RETENTION_SECONDS = 400 * 86_400.0
"""A year, and the time until somebody asks."""
RETENTION = (Rule(table="audit", key=("id",), since="at", seconds=RETENTION_SECONDS),)


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One act. id: a version 7 UUID, so ids are in the order of time. action: as `dead-letter:replay`. target: what it
    was done to, or a filter in words. result: what came of it in words, "" until then; ok: whether it did."""

    id: str
    at: datetime
    actor: str
    action: str
    target: str
    reason: str = ""
    role: str = ""
    result: str = ""
    is_ok: bool = False
    ended_at: datetime | None = None


class Audit(Protocol):
    """The table of acts. Everything is committed on return; all raise StoreUnavailable."""

    async def begin(self, record: AuditRecord) -> None:
        """Keep an act that is about to be done."""

    async def end(self, record: AuditRecord) -> None:
        """Complete it with what became of it; an entry that is gone stays gone."""

    async def search(self, before: str | None, limit: int) -> Sequence[AuditRecord]:
        """Return the newest first, those before an id; perhaps none."""
