"""Review items in SQL. Both databases take the same statements; ids are text, and the record of an item is one value.

The columns beside the record count, and not what the record says of them: whoever changes a column by hand changes the
item, and its digest tells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from spoolproof.ports.reviews import ReviewCount, ReviewDetails, ReviewEvent, ReviewFilter, ReviewItem, ReviewState
from spoolproof.ports.transaction import Row, StoreTransaction
from spoolproof.statements import filled, load_statements
from spoolproof.stores.triage import Read

_COLUMNS = ("service", "kind", "subject", "state", "opened_at", "due_at", "claim_until", "resolved_at")
_decode = msgspec.json.Decoder(ReviewItem).decode
_decode_event = msgspec.json.Decoder(ReviewEvent).decode


def json_of(value: object) -> str:
    """Return a record as a text column keeps it."""
    return msgspec.json.encode(value).decode()


class SqlReviews:
    """Implements `ports.reviews.Reviews`. prefix: of the tables. locked: what makes a query lock its rows. stored, at:
    make a column's value of an instant, and back."""

    def __init__(
        self,
        prefix: str,
        locked: str,
        *,
        read: Read,
        stored: Callable[[datetime], object],
        at: Callable[[Any], datetime],
    ) -> None:
        columns = ", ".join(("id", *_COLUMNS, "record"))
        words = {"item": f"{prefix}review_item", "event": f"{prefix}review_event", "columns": columns, "locked": locked}
        self._sql = load_statements(__package__, "reviews.sql", words)
        self._read = read
        self._stored_instant = stored
        self._at = at

    async def add(
        self, tx: StoreTransaction, item: ReviewItem, event: ReviewEvent, message: bytes | None = None
    ) -> bool:
        instants = (self._stored(item.opened_at), self._stored(item.due_at))
        columns = (item.id, item.service, item.kind, item.subject, *instants, json_of(item), message)
        if not await tx.execute(self._sql["add"], *columns):
            return False
        await tx.execute(self._sql["event"], event.review_id, event.n, json_of(event))
        return True

    async def lock(self, tx: StoreTransaction, id: str) -> ReviewDetails | None:
        rows = await tx.fetch(self._sql["lock"], id)
        return ReviewDetails(self._item(rows[0]), (), rows[0]["message"]) if rows else None

    async def lock_open(self, tx: StoreTransaction, service: str, kind: str, subject: str) -> ReviewItem | None:
        rows = await tx.fetch(self._sql["lock_open"], service, kind, subject)
        return self._item(rows[0]) if rows else None

    async def write(self, tx: StoreTransaction, item: ReviewItem, event: ReviewEvent) -> None:
        instants = [self._stored(one) for one in (item.due_at, item.claim_until, item.resolved_at)]
        await tx.execute(self._sql["write"], item.id, item.state.value, *instants, json_of(item))
        await tx.execute(self._sql["event"], event.review_id, event.n, json_of(event))
        if item.resolved_at is not None:
            await tx.execute(self._sql["close"], item.id, self._stored(item.resolved_at))

    async def get(self, id: str) -> ReviewDetails | None:
        rows = await self._read(self._sql["get"], id)
        events = [_decode_event(row["record"]) for row in await self._read(self._sql["events"], id)]
        if not rows and not events:
            return None
        return ReviewDetails(self._item(rows[0]) if rows else None, events, rows[0]["message"] if rows else None)

    async def search(self, filter: ReviewFilter) -> Sequence[ReviewItem]:
        where, values = "", []
        for name in ("service", "kind", "subject", "state"):
            if (value := getattr(filter, name)) is not None:
                values.append(str(value))
                where += f" and {name} = ${len(values) + 1}"
        if filter.due_by is not None:
            values.append(self._stored(filter.due_by))
            where += f" and due_at <= ${len(values) + 1}"
        if filter.after is not None:
            values += [self._stored(filter.after[0]), filter.after[1]]
            where += f" and (due_at, id) > (${len(values)}, ${len(values) + 1})"
        rows = await self._read(filled(self._sql["search"], {"and_where": where}), filter.limit, *values)
        return [self._item(row) for row in rows]

    async def counts(self, service: str, now: datetime) -> Sequence[ReviewCount]:
        return [
            ReviewCount(row["kind"], bool(row["claimed"]), row["count"], row["overdue"], self._at(row["oldest_at"]))
            for row in await self._read(self._sql["counts"], service, self._stored(now))
        ]

    async def ids(self, after: str, limit: int) -> Sequence[str]:
        return [row["id"] for row in await self._read(self._sql["ids"], after, limit)]

    def _stored(self, instant: datetime | None) -> Any:
        return None if instant is None else self._stored_instant(instant)

    def _item(self, row: Row) -> ReviewItem:
        columns: Mapping[str, Any] = {
            name: self._at(row[name]) if name.endswith(("_at", "_until")) and row[name] is not None else row[name]
            for name in _COLUMNS
        }
        return msgspec.structs.replace(_decode(row["record"]), **{**columns, "state": ReviewState(row["state"])})
