"""Everything a person does with review items, as functions that return documents.

The command line, `service.reviews` and a dashboard call the same ones. Every verb that changes something writes who and
why into the trail, in the transaction of the change. A decision, its effect and what that publishes are one commit.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec

from spoolproof import limits
from spoolproof.caught import error_line
from spoolproof.clock import Clock
from spoolproof.errors import InvalidMessage, NotFound
from spoolproof.failpoints import failpoint
from spoolproof.ids import random_id
from spoolproof.ports.reviews import ReviewDetails, ReviewFilter, ReviewItem, Reviews, ReviewState
from spoolproof.ports.store import Store
from spoolproof.ports.transaction import StoreTransaction
from spoolproof.ports.units import Units
from spoolproof.review import item as rules
from spoolproof.review.actions import Actions, Decision, Registered
from spoolproof.review.chain import faults_of, followed
from spoolproof.review.events import ReviewResolved, ReviewTampered
from spoolproof.review.messages import unpacked
from spoolproof.telemetry.events import emit


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What the verbs work with. units: of the service whose items are resolved."""

    store: Store
    units: Units
    actions: Actions
    clock: Clock
    claim_seconds: float = limits.REVIEW_CLAIM_SECONDS

    @property
    def reviews(self) -> Reviews:
        """The tables."""
        return self.store.port(Reviews)


class Desk:
    """The verbs. `wanted` of each are fields of ReviewFilter."""

    def __init__(self, tools: Tools) -> None:
        self._given = tools

    @property
    def _tools(self) -> Tools:
        return self._given

    # --- look --------------------------------------------------------------------------------------------------------

    async def ls(self, *, overdue: bool = False, after: str | None = None, **wanted: Any) -> dict[str, Any]:
        """Return those that match, soonest due first; without `state` those that are open. after: `next` of the page
        before; it is None on the last page. Raises InvalidMessage."""
        now = self._tools.clock.now()
        filter = ReviewFilter(**wanted, due_by=now if overdue else None, after=_position(after))
        items = await self._tools.reviews.search(filter)
        is_full = len(items) == filter.limit
        next = f"{items[-1].due_at.isoformat()}/{items[-1].id}" if items and is_full else None
        return {"items": [summary(item, now) for item in items], "next": next}

    async def show(self, id: str) -> dict[str, Any]:
        """Return everything that is known of one. Raises NotFound."""
        details = await self._tools.reviews.get(id)
        if details is None or details.item is None:
            raise _missing(id)
        return whole(details.item, details, self._tools.clock.now())

    async def verify(self) -> dict[str, Any]:
        """Walk every trail; returns how many items were checked, and what was changed or taken away by other hands.

        What was resolved almost as long ago as it is kept is left out: it may go while it is read.
        """
        gone_by = self._tools.clock.now() - timedelta(seconds=limits.REVIEW_RETENTION_SECONDS - 86_400)
        checked, faults, after = 0, list[dict[str, str]](), ""
        while ids := await self._tools.reviews.ids(after, limits.REVIEW_PAGE):
            for id in ids:
                checked += 1
                found = [{"id": id, "fault": fault} async for fault in self._faults_of(id, gone_by)]
                for one in found:
                    emit(ReviewTampered(**one))
                faults += found
            after = ids[-1]
        return {"checked": checked, "faults": faults}

    async def _faults_of(self, id: str, gone_by: datetime) -> AsyncIterator[str]:
        try:
            details = await self._tools.reviews.get(id)
        except (msgspec.MsgspecError, ValueError) as error:  # ValueError: a state that is none
            yield f"cannot be read: {error}"
            return
        if details is None:
            return
        last = details.events[-1] if details.events else None
        if last is None or last.verb != "resolved" or last.at >= gone_by:
            for fault in faults_of(id, details):
                yield fault

    # --- act on one --------------------------------------------------------------------------------------------------

    async def claim(self, id: str, *, actor: str) -> dict[str, Any]:
        """Keep others away for 15 min, or as long as SPOOLPROOF_REVIEW_CLAIM_SECONDS says; returns it with its `token`.

        Claiming again renews it, under a new token. Raises NotFound, and Conflict naming who has it.
        """
        rules.check_who(actor, "claim")
        tools, now, token = self._tools, self._tools.clock.now(), random_id()
        async with tools.store.transaction() as tx:
            item = (await self._locked(tx, id)).item
            after = rules.claimed(item, actor, token, now, tools.claim_seconds)
            after, event = followed(after, "claimed", actor, now)
            await tools.reviews.write(tx, after, event)
        return {**summary(after, now), "token": token}

    async def release(self, id: str, *, actor: str, token: str | None = None) -> dict[str, Any]:
        """Give it back. Raises NotFound, and Conflict if it is not claimed by this person."""
        rules.check_who(actor, "release")
        tools, now = self._tools, self._tools.clock.now()
        async with tools.store.transaction() as tx:
            item = (await self._locked(tx, id)).item
            after, event = followed(rules.released(item, actor, token, now), "released", actor, now)
            await tools.reviews.write(tx, after, event)
        return summary(after, now)

    async def resolve(
        self,
        id: str,
        action: str,
        *,
        actor: str,
        reason: str,
        token: str | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Decide: the decision, its effect and what that publishes are one commit, or nothing is.

        token: of the claim under which it is done; without, nobody else may have claimed it. values: what the action
        needs beside it. An action that two people must agree to is proposed by the first, and done by the second, who
        names the same action and values. Returns the item; `state` is `open` if it was only proposed. Raises NotFound,
        Conflict, InvalidMessage for an action it does not offer, and whatever the effect raises.
        """
        rules.check_who(actor, reason)
        given = rules.checked_json("values", dict(values or {}))
        tools, now = self._tools, self._tools.clock.now()
        async with tools.units.open() as tx:
            details = await self._locked(tx.inner, id)
            item = details.item
            rules.check_mine(item, actor, token, now)
            registered = self._effect_of(item, action)
            is_done = rules.is_agreed(item, action, given, actor, four_eyes=registered.four_eyes)
            if is_done:
                after = rules.resolved(item, action, actor, reason, now)
            else:
                after = rules.proposed(item, action, given, actor)
            detail = {"action": action, "reason": reason, "values": given}
            after, event = followed(after, "resolved" if is_done else "proposed", actor, now, detail)
            await tools.reviews.write(tx.inner, after, event)
            if is_done:
                failpoint("review.before_resolve")
                message = unpacked(details.message)
                decision = Decision(item=item, action=action, actor=actor, reason=reason, values=given, message=message)
                await registered.effect(decision, tx)
                failpoint("review.before_commit")
        failpoint("review.after_resolve")
        tools.store.wakeup.notify()
        if is_done:
            emit(ReviewResolved(kind=item.kind, subject=item.subject, id=id, action=action, actor=actor))
        return summary(after, now)

    # --- act on many -------------------------------------------------------------------------------------------------

    async def bulk(
        self,
        kind: str,
        action: str,
        *,
        actor: str,
        reason: str,
        values: Mapping[str, Any] | None = None,
        dry_run: bool = False,
        limit: int = limits.REVIEW_BULK_MAX,
        **wanted: Any,
    ) -> dict[str, Any]:
        """Resolve every open item of a kind that matches, each in a commit of its own; what refuses stays open.

        dry_run: only count them. limit: at most so many, soonest due first. Raises InvalidMessage.
        """
        rules.check_who(actor, reason)
        if not 1 <= limit <= limits.REVIEW_BULK_MAX:
            raise InvalidMessage("limit", limit, f"1 to {limits.REVIEW_BULK_MAX}; call it again for the rest")
        items = await self._tools.reviews.search(ReviewFilter(kind=kind, limit=limit, **wanted))
        done: dict[str, Any] = {"matched": len(items), "resolved": 0, "proposed": 0, "refused": [], "dry_run": dry_run}
        if dry_run:
            return done
        for item in items:
            try:
                after = await self.resolve(item.id, action, actor=actor, reason=reason, values=values)
            except Exception as error:
                done["refused"].append({"id": item.id, "why": error_line(error)})
            else:
                done["resolved" if after["state"] == ReviewState.RESOLVED else "proposed"] += 1
        return done

    async def _locked(self, tx: StoreTransaction, id: str) -> _Locked:
        found = await self._tools.reviews.lock(tx, id)
        if found is None or found.item is None:
            raise _missing(id)
        return _Locked(found.item, found.message)

    def _effect_of(self, item: ReviewItem, action: str) -> Registered:
        if action not in item.actions:
            raise InvalidMessage("action", action, f"item {item.id} offers {', '.join(item.actions)}")
        registered = self._tools.actions.get(item.kind, action)
        if registered is None:
            why = f"has no effect for {action!r} in this process"
            error = rules.refused(item, why)
            error.hint = f"--service MODULE:SERVICE of {item.service}, whose code says what {action!r} does"
            raise error
        return registered


@dataclass(frozen=True, slots=True)
class _Locked:
    item: ReviewItem
    message: bytes | None


def summary(item: ReviewItem, now: datetime) -> dict[str, Any]:
    """Return what a list shows of an item; no token, no evidence."""
    return {
        "id": item.id,
        "state": item.state,
        "kind": item.kind,
        "subject": item.subject,
        "service": item.service,
        "question": item.question,
        "actions": item.actions,
        "priority": item.priority,
        "level": item.level,
        "seen": item.seen,
        "opened_at": item.opened_at,
        "due_at": item.due_at,
        "is_overdue": item.state is ReviewState.OPEN and item.due_at <= now,
        "claimed_by": rules.holder(item, now) or None,
        "claim_until": item.claim_until if rules.holder(item, now) else None,
        "requested_by": item.requested_by or None,
        "proposed": item.proposed or None,
        "proposed_by": item.proposed_by or None,
        "action": item.action or None,
        "resolved_by": item.resolved_by or None,
        "resolved_at": item.resolved_at,
        "reason": item.reason or None,
    }


def whole(item: ReviewItem, details: ReviewDetails, now: datetime) -> dict[str, Any]:
    """Return everything that is known of an item: evidence, the message it carries, its trail."""
    message = unpacked(details.message)
    shown = None
    if message is not None:
        shown = msgspec.to_builtins(message, builtin_types=(bytes,))
        body = shown.pop("body")
        try:
            shown["body"] = body.decode()
        except UnicodeDecodeError:
            shown["body_base64"] = msgspec.to_builtins(body)
    events = [msgspec.structs.asdict(event) for event in details.events]
    trail = [{name: one[name] for name in ("n", "at", "actor", "verb", "detail")} for one in events]
    return {
        **summary(item, now),
        "evidence": item.evidence,
        "proposed_values": item.proposed_values,
        "message": shown,
        "trail": trail,
    }


def _position(cursor: str | None) -> tuple[datetime, str] | None:
    if cursor is None:
        return None
    at, _, id = cursor.partition("/")
    try:
        found = datetime.fromisoformat(at)
    except ValueError:
        found = None
    if found is None or found.utcoffset() is None or not id:
        raise InvalidMessage("after", cursor, "is no position; take `next` of the page before")
    return found, id


def _missing(id: str) -> NotFound:
    error = NotFound(f"there is no review item {id!r}")
    error.hint = "spoolproof review ls"
    return error
