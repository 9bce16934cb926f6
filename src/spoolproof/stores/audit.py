"""Acts in SQL. Both databases take the same statements; an act is one value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import msgspec

from spoolproof.ports.audit import AuditRecord
from spoolproof.ports.transaction import OpenTransaction
from spoolproof.statements import load_statements
from spoolproof.stores.reviews import json_of
from spoolproof.stores.triage import Read

_decode = msgspec.json.Decoder(AuditRecord).decode
_LAST = "~"  #: above every id


class SqlAudit:
    """Implements `ports.audit.Audit`. prefix: of the table. stored: makes a column's value."""

    def __init__(
        self, prefix: str, *, read: Read, transaction: OpenTransaction, stored: Callable[[datetime], object]
    ) -> None:
        self._sql = load_statements(__package__, "audit.sql", {"audit": f"{prefix}audit"})
        self._read = read
        self._transaction = transaction
        self._stored = stored

    async def begin(self, record: AuditRecord) -> None:
        async with self._transaction() as tx:
            await tx.execute(self._sql["begin"], record.id, self._stored(record.at), json_of(record))

    async def end(self, record: AuditRecord) -> None:
        async with self._transaction() as tx:
            await tx.execute(self._sql["end"], record.id, json_of(record))

    async def search(self, before: str | None, limit: int) -> Sequence[AuditRecord]:
        rows = await self._read(self._sql["search"], before or _LAST, limit)
        return [_decode(row["record"]) for row in rows]
