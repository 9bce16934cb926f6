"""Everything a person does with dead letters, as functions that return documents.

The command line, `service.dead_letters` and a dashboard call the same ones. Every verb that changes something says who
and why, in the audit trail, in the transaction of the change.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from spoolproof.clock import Clock
from spoolproof.dead_letters import replay as verbs
from spoolproof.dead_letters.document import bulk_document, group_document, summary, whole
from spoolproof.dead_letters.edit import Decode, difference, edited, with_fields
from spoolproof.dead_letters.transfer import letters_of, line_of
from spoolproof.errors import Conflict, InvalidMessage, NotFound
from spoolproof.ids import Ids, is_uuid
from spoolproof.ports.bulk import ENDED_EARLY, LIVE, Bulk, Bulks, BulkState, BulkVerb
from spoolproof.ports.dead_letters import DeadLetterFilter, DeadLetterRecord, DeadLetterState, Position
from spoolproof.ports.store import Store
from spoolproof.ports.triage import Triage

UNCLOSED = (DeadLetterState.OPEN, DeadLetterState.REPLAYING)
LEADER = "leader"  #: the kind of the lease under which bulks are worked off
_PORTION = 100  #: dead letters read or written at once, so that no transaction is long


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What the verbs work with. decode: None where no service is at hand."""

    store: Store
    clock: Clock
    ids: Ids
    decode: Decode | None = None


class Desk:
    """The verbs. `wanted` of each are fields of DeadLetterFilter: `consumer`, `type`, `reason`, `fingerprint`, `key`,
    `message_id`, `text`, `state`, `since`, `until`, `ids`, `limit`."""

    def __init__(self, tools: Tools) -> None:
        self._given = tools

    @property
    def _tools(self) -> Tools:
        return self._given

    # --- look --------------------------------------------------------------------------------------------------------

    async def groups(self, **wanted: Any) -> dict[str, Any]:
        """Return what is open by what failed, the largest group first, and how many are open in all."""
        filter = DeadLetterFilter(**wanted)
        triage = self._tools.store.port(Triage)
        groups = await triage.groups(filter)
        count = await triage.count(replace(filter, state=DeadLetterState.OPEN))
        return {"open": count, "groups": [group_document(group) for group in groups]}

    async def ls(self, *, after: str | None = None, **wanted: Any) -> dict[str, Any]:
        """Return those that match, oldest failure first; without `state` those nobody has closed. after: the `next` of
        the page before. `next` is None on the last page. Raises InvalidMessage."""
        filter = DeadLetterFilter(**wanted, after=None if after is None else _position(after))
        records = await self._search(filter)
        now = self._tools.clock.now()
        full = len(records) == filter.limit
        next = _cursor(records[-1]) if records and full else None
        return {"dead_letters": [summary(record, now) for record in records], "next": next}

    async def show(self, id: str) -> dict[str, Any]:
        """Return everything that is known of one. Raises NotFound."""
        return whole(await verbs.find(self._tools.store, id), self._tools.clock.now())

    # --- act on one --------------------------------------------------------------------------------------------------

    async def replay(self, id: str, *, actor: str, reason: str, to: str | None = None, force: bool = False) -> None:
        """Send one again; see `dead_letters.replay.replay`."""
        await verbs.replay(self._tools.store, id, actor=actor, reason=reason, to=to, force=force)

    async def discard(self, id: str, *, actor: str, reason: str) -> None:
        """Close one for good. Raises NotFound or Conflict."""
        await verbs.discard(self._tools.store, id, actor=actor, note=reason)

    async def edit(
        self,
        id: str,
        *,
        actor: str,
        reason: str,
        body: bytes | None = None,
        fields: Mapping[str, object] | None = None,
        version: int | None = None,
        force: bool = False,
    ) -> dict[str, Any]:
        """Give an open one another body, or other fields of its JSON body by dotted path; it can be replayed then.

        version: the one that was looked at; without, the one there is. force: do not ask whether it can be read.
        Returns the diff. Raises NotFound, InvalidMessage, and Conflict if it is not open or somebody was faster.
        """
        tools = self._tools
        verbs.check_who(actor, reason)
        record = (await verbs.find(tools.store, id)).record
        if (body is None) == (not fields):
            raise InvalidMessage("body", body, "give either fields to set or a whole body")
        new = with_fields(record.message.body, fields) if fields else body
        message = edited(record.message, new or b"", tools.ids.message_id(), decode=tools.decode, force=force)
        seen = record.version if version is None else version
        if not await tools.store.port(Triage).edit(id, seen, message, actor, reason):
            now = (await verbs.find(tools.store, id)).record
            raise Conflict(f"dead letter {id} is {now.state}, version {now.version}: not the open version {seen}")
        return {
            "id": id,
            "version": seen + 1,
            "message_id": message.id,
            "edit_of": record.message.id,
            "diff": difference(record.message.body, message.body),
        }

    # --- act on many -------------------------------------------------------------------------------------------------

    async def matching(self, verb: str, *, force: bool = False, **wanted: Any) -> int:
        """Return how many a bulk of this verb would be about now; nothing is changed."""
        bulk = self._bulk(verb, actor="nobody", reason="dry run", to=None, force=force, canary=False)
        triage, filter = self._tools.store.port(Triage), DeadLetterFilter(**wanted)
        return sum([await triage.count(replace(filter, state=state)) for state in bulk.move.after])

    async def start_bulk(
        self,
        verb: str,
        *,
        actor: str,
        reason: str,
        to: str | None = None,
        force: bool = False,
        canary: bool = True,
        **wanted: Any,
    ) -> dict[str, Any]:
        """Replay or discard every one that matches now, for as long as it takes, whoever waits for it or not.

        verb: `replay` or `discard`. canary: a replay sends one first, and the others once that has succeeded. The
        process that leads works it off, 50 a second. Raises InvalidMessage.
        """
        verbs.check_who(actor, reason)
        bulk = self._bulk(verb, actor=actor, reason=reason, to=to, force=force, canary=canary)
        started = await self._tools.store.port(Bulks).start(bulk, DeadLetterFilter(**wanted))
        return bulk_document(started, {}, await self._is_worked())

    async def bulk(self, id: str) -> dict[str, Any]:
        """Return one bulk: its counts, and how those it moved fare. Raises NotFound."""
        bulks = self._tools.store.port(Bulks)
        found = await bulks.get(id)
        if found is None:
            raise NotFound(f"there is no bulk {id!r}; `spoolproof dlq bulk` shows those there are")
        return bulk_document(found, await bulks.outcomes(id), await self._is_worked())

    async def bulks(self, limit: int = 20) -> dict[str, Any]:
        """Return the newest bulks."""
        found = await self._tools.store.port(Bulks).all(limit)
        is_worked = await self._is_worked()
        return {"bulks": [bulk_document(one, {}, is_worked) for one in found]}

    async def cancel(self, id: str, *, actor: str, reason: str) -> dict[str, Any]:
        """End a bulk early: what was moved is moved, the others stay as they are. Raises NotFound or Conflict."""
        return await self._change(id, LIVE, BulkState.CANCELLED, actor, reason)

    async def resume(self, id: str, *, actor: str, reason: str, canary: bool = True) -> dict[str, Any]:
        """Go on with one that was cancelled, or stopped over its canary, with another canary. NotFound, Conflict."""
        has_canary = canary and (await self.bulk(id))["verb"] == BulkVerb.REPLAY
        to = BulkState.CANARY if has_canary else BulkState.RUNNING
        return await self._change(id, ENDED_EARLY, to, actor, reason)

    async def _change(
        self, id: str, after: Sequence[BulkState], to: BulkState, actor: str, reason: str
    ) -> dict[str, Any]:
        verbs.check_who(actor, reason)
        is_changed = await self._tools.store.port(Bulks).change(id, after, to, actor, reason)
        found = await self.bulk(id)
        if not is_changed:
            raise Conflict(f"bulk {id} is {found['state']}; this is for one that is {' or '.join(after)}")
        return found

    def _bulk(self, verb: str, *, actor: str, reason: str, to: str | None, force: bool, canary: bool) -> Bulk:
        tools = self._tools
        if verb not in list(BulkVerb):
            raise InvalidMessage("verb", verb, f"write {' or '.join(BulkVerb)}")
        has_canary = canary and verb == BulkVerb.REPLAY
        return Bulk(
            id=tools.ids.message_id(),
            verb=BulkVerb(verb),
            actor=actor,
            reason=reason,
            queue=verbs.queue_of(to),
            is_forced=force,
            state=BulkState.CANARY if has_canary else BulkState.RUNNING,
            started_at=tools.clock.now(),
        )

    async def _is_worked(self) -> bool:
        return any(LEADER in process.roles for process in await self._tools.store.leases.processes())

    # --- take elsewhere ----------------------------------------------------------------------------------------------

    async def export(self, **wanted: Any) -> AsyncIterator[str]:
        """Yield each that matches, whole, as a line of JSON; without `state` those nobody has closed."""
        filter = DeadLetterFilter(**{"limit": _PORTION, **wanted})
        while records := await self._search(filter):
            for record in records:
                details = await self._tools.store.dead_letters.get(record.id)
                if details is not None:  # pruned meanwhile
                    yield line_of(details)
            filter = replace(filter, after=(records[-1].first_failed_at, records[-1].id))

    async def restore(self, lines: Iterable[bytes], *, actor: str, reason: str) -> dict[str, int]:
        """Take in what `export` wrote, open; what is there already, by id or by message, stays as it is.

        Nothing is written if a line is not right. Raises InvalidMessage naming it.
        """
        verbs.check_who(actor, reason)
        letters = list(letters_of(lines))
        triage = self._tools.store.port(Triage)
        portions = [letters[start : start + _PORTION] for start in range(0, len(letters), _PORTION)]
        imported = sum([await triage.restore(portion, actor, reason) for portion in portions])
        return {"imported": imported, "known": len(letters) - imported}

    async def _search(self, filter: DeadLetterFilter) -> list[DeadLetterRecord]:
        states = UNCLOSED if filter.state is None else (filter.state,)
        found: list[DeadLetterRecord] = []
        for state in states:  # each by its own index; a filter of both would sort them all
            found += await self._tools.store.dead_letters.search(replace(filter, state=state))
        return sorted(found, key=lambda record: (record.first_failed_at, record.id))[: filter.limit]


def _cursor(record: DeadLetterRecord) -> str:
    return f"{record.first_failed_at.isoformat()}/{record.id}"


def _position(cursor: str) -> Position:
    at, _, id = cursor.partition("/")
    try:
        found = datetime.fromisoformat(at)
    except ValueError:
        found = None
    if found is None or found.utcoffset() is None or not is_uuid(id):
        raise InvalidMessage("after", cursor, "is no position; take `next` of the page before")
    return found, id
