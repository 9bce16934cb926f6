"""What may become of an item: pure decisions, made under the lock of its row.

```text
open ── claim, release, propose, escalate ──► open          open ── resolve ──► resolved
```

A claim keeps others away for a while; it is no state, so nobody has to give back what somebody has forgotten. Of
whoever resolves, the first is heard. Time alone decides nothing: it only raises the priority.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import msgspec
from msgspec.structs import replace

from spoolproof import limits
from spoolproof.errors import Conflict, InvalidMessage
from spoolproof.ports.reviews import Priority, ReviewItem, ReviewState

DUE_SECONDS = {Priority.CRITICAL: 3600.0, Priority.HIGH: 14_400.0, Priority.NORMAL: 86_400.0, Priority.LOW: 259_200.0}
"""When an item is due that says no other time."""
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.:/-]{0,99}")
_RISES = {Priority.LOW: Priority.NORMAL, Priority.NORMAL: Priority.HIGH}


def new_item(
    *,
    id: str,
    service: str,
    kind: str,
    subject: str,
    question: str,
    actions: tuple[str, ...],
    now: datetime,
    evidence: object = None,
    priority: str = Priority.NORMAL,
    due_seconds: float | None = None,
    requested_by: str = "",
    message_hash: str = "",
) -> ReviewItem:
    """Return an item nobody has seen yet. Raises InvalidMessage naming what is wrong with it."""
    check_name("kind", kind)
    if not isinstance(subject, str) or not 1 <= len(subject) <= limits.REVIEW_SUBJECT_MAX:
        raise InvalidMessage("subject", subject, f"1 to {limits.REVIEW_SUBJECT_MAX} characters")
    if not question.strip() or len(question) > limits.REVIEW_TEXT_MAX:
        raise InvalidMessage("question", question, f"1 to {limits.REVIEW_TEXT_MAX} characters, for a person to answer")
    if priority not in list(Priority):
        raise InvalidMessage("priority", priority, f"one of {', '.join(Priority)}")
    if due_seconds is not None and not 0 < due_seconds <= limits.REVIEW_DUE_SECONDS_MAX:
        raise InvalidMessage("due", due_seconds, f"above 0 s, at most {limits.REVIEW_DUE_SECONDS_MAX:.0f} s")
    seconds = DUE_SECONDS[Priority(priority)] if due_seconds is None else due_seconds
    return ReviewItem(
        id=id,
        service=service,
        kind=kind,
        subject=_text("subject", subject),
        question=_text("question", question),
        actions=actions,
        evidence=checked_json("evidence", evidence),
        priority=Priority(priority),
        opened_at=now,
        due_at=now + timedelta(seconds=seconds),
        requested_by=_text("requested_by", requested_by),
        message_hash=message_hash,
    )


def checked_json(name: str, value: object) -> Any:
    """Return a value as it reads back from JSON. Raises InvalidMessage for what is none, or too much of it."""
    try:
        text = msgspec.json.encode(value)
    except (TypeError, ValueError, msgspec.MsgspecError) as error:  # ValueError: a lone surrogate
        raise InvalidMessage(name, value, f"is no JSON: {error}") from error
    if len(text) > limits.REVIEW_EVIDENCE_BYTES_MAX:
        most = limits.REVIEW_EVIDENCE_BYTES_MAX
        raise InvalidMessage(name, f"{len(text)} bytes", f"at most {most} bytes of JSON; keep the rest and name it")
    return msgspec.json.decode(text)


def check_name(name: str, value: object) -> None:
    """Raise InvalidMessage for what cannot name a kind or an action."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise InvalidMessage(name, value, "1 to 100 letters, digits, '-', '_', '.', ':' or '/'")


def check_who(actor: str, reason: str) -> None:
    """Raise InvalidMessage unless it is said who does something, and why."""
    for name, value in (("actor", actor), ("reason", reason)):
        if not value.strip() or len(value) > limits.REVIEW_TEXT_MAX:
            raise InvalidMessage(name, value, f"1 to {limits.REVIEW_TEXT_MAX} characters; kept in the audit trail")
        _text(name, value)


def holder(item: ReviewItem, now: datetime) -> str:
    """Return who has claimed it now; "" if nobody has."""
    return item.claimed_by if item.claim_until is not None and item.claim_until > now else ""


def claimed(item: ReviewItem, actor: str, token: str, now: datetime, seconds: float) -> ReviewItem:
    """Return it claimed under a new token. Raises Conflict naming who has it; one's own claim is taken over."""
    _check_open(item)
    who = holder(item, now)
    if who not in ("", actor):
        raise refused(item, f"is claimed by {who} until {item.claim_until:%Y-%m-%d %H:%M:%SZ}")
    return replace(item, claimed_by=actor, claim_token=token, claim_until=now + timedelta(seconds=seconds))


def released(item: ReviewItem, actor: str, token: str | None, now: datetime) -> ReviewItem:
    """Return it as nobody's. Raises Conflict for what is not this person's."""
    _check_open(item)
    if not holder(item, now):
        raise refused(item, "is claimed by nobody")
    check_mine(item, actor, token, now)
    return _unclaimed(item)


def check_mine(item: ReviewItem, actor: str, token: str | None, now: datetime) -> None:
    """Raise Conflict unless this person may act on it now. token: the claim under which they do; it must be live."""
    _check_open(item)
    who = holder(item, now)
    if token is not None and (not who or token != item.claim_token):
        raise refused(item, f"is no longer claimed under this token{f'; {who} has it' if who else ''}")
    if token is None and who not in ("", actor):
        raise refused(item, f"is claimed by {who} until {item.claim_until:%Y-%m-%d %H:%M:%SZ}")


def is_agreed(item: ReviewItem, action: str, values: object, actor: str, *, four_eyes: bool) -> bool:
    """Whether an action may be done now; False if it waits for a second person. Raises Conflict for one who may not be
    that second person, as the one who proposed it or asked for it."""
    if not four_eyes:
        return True
    if actor == item.requested_by:
        raise refused(item, f"was asked for by {actor}; another person decides {action!r}")
    if (item.proposed, item.proposed_values) != (action, values):
        return False
    if item.proposed_by == actor:
        raise refused(item, f"has {action!r} proposed by {actor} already; another person must agree")
    return True


def proposed(item: ReviewItem, action: str, values: object, actor: str) -> ReviewItem:
    """Return it with an action that another person must agree to; nobody's again."""
    return replace(_unclaimed(item), proposed=action, proposed_values=values, proposed_by=actor)


def resolved(item: ReviewItem, action: str, actor: str, reason: str, now: datetime) -> ReviewItem:
    """Return it decided."""
    state = ReviewState.RESOLVED
    return replace(_unclaimed(item), state=state, action=action, resolved_by=actor, reason=reason, resolved_at=now)


def escalated(item: ReviewItem, now: datetime) -> ReviewItem | None:
    """Return it more urgent, and due again in half the time it had, from 30 min to a day; None if it is not due."""
    if item.state is not ReviewState.OPEN or item.due_at > now:
        return None
    priority = _RISES.get(item.priority, Priority.CRITICAL)
    had = DUE_SECONDS[item.priority] / 2
    seconds = limits.REVIEW_AGAIN_SECONDS_MAX if item.level >= limits.REVIEW_LEVELS else had
    seconds = min(max(seconds, limits.REVIEW_AGAIN_SECONDS_MIN), limits.REVIEW_AGAIN_SECONDS_MAX)
    return replace(item, level=item.level + 1, priority=priority, due_at=now + timedelta(seconds=seconds))


def seen_again(item: ReviewItem) -> ReviewItem | None:
    """Return it as seen once more; None once that was noted a hundred times."""
    return None if item.seen > limits.REVIEW_SEEN_MAX else replace(item, seen=item.seen + 1)


def refused(item: ReviewItem, why: str) -> Conflict:
    """Return the error for a verb that an item does not allow now."""
    error = Conflict(f"review item {item.id} ({item.kind} {item.subject}) {why}")
    error.hint = f"spoolproof review show {item.id} tells what was done to it"
    return error


def _check_open(item: ReviewItem) -> None:
    if item.state is not ReviewState.OPEN:
        raise refused(item, f"was resolved with {item.action!r} by {item.resolved_by}")


def _unclaimed(item: ReviewItem) -> ReviewItem:
    return replace(item, claimed_by="", claim_token="", claim_until=None)


def _text(name: str, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidMessage(name, value, "a lone surrogate is no text") from error
    if "\0" in value:
        raise InvalidMessage(name, value, "text with a NUL cannot be stored")
    return value
