"""Any one change to what is kept of an item is found."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from spoolproof.ports.reviews import ReviewDetails, ReviewEvent, ReviewItem, ReviewState
from spoolproof.review.chain import faults_of, followed, hash_of_message
from spoolproof.review.item import claimed, escalated, new_item, released, resolved, seen_again

NOW = datetime(2026, 11, 30, 9, tzinfo=UTC)
MESSAGE = b"what was parked"


def a_story(verbs: list[str]) -> ReviewDetails:
    """Return an item to which these things were done."""
    item = new_item(
        **{"id": "r-1", "service": "shop", "kind": "order.flagged", "subject": "o-1", "question": "May it go?"},
        **{"actions": ("approve",), "evidence": {"cents": 5}, "now": NOW, "message_hash": hash_of_message(MESSAGE)},
    )
    item, event = followed(item, "opened", "spoolproof", NOW)
    events = [event]
    for minute, verb in enumerate(verbs, 1):
        now = NOW + timedelta(minutes=minute)
        after: ReviewItem | None = None
        if verb == "claimed":
            after = claimed(item, "ann", f"token-{minute}", now, 900.0)
        elif verb == "released" and item.claim_until is not None and item.claim_until > now:
            after = released(item, "ann", None, now)
        elif verb == "seen":
            after = seen_again(item)
        elif verb == "escalated":
            after = escalated(item, item.due_at)
        if after is not None:
            item, event = followed(after, verb, "ann", now, {"n": minute})
            events.append(event)
    item, event = followed(resolved(item, "approve", "bob", "paid", NOW), "resolved", "bob", NOW, {"action": "approve"})
    return ReviewDetails(item, [*events, event], MESSAGE)


STORIES = st.lists(st.sampled_from(["claimed", "released", "seen", "escalated"]), max_size=6).map(a_story)


@given(STORIES)
def test_a_trail_that_nobody_touched_fits(story: ReviewDetails) -> None:
    assert [] == list(faults_of("r-1", story))


@settings(max_examples=300)
@given(STORIES, st.data())
def test_any_one_change_is_found(story: ReviewDetails, data: st.DataObject) -> None:
    """A field of the item or of an event, an event that is gone, doubled or moved, the item, its message."""
    changed = data.draw(st.sampled_from(list(_changes(story, data))))

    assert changed != story
    assert list(faults_of("r-1", changed))


def _changes(story: ReviewDetails, data: st.DataObject) -> Iterator[ReviewDetails]:
    item, events = story.item, list(story.events)
    assert item is not None
    at = data.draw(st.integers(0, len(events) - 1))
    yield ReviewDetails(None, events, None)
    yield ReviewDetails(replace(item, events=0, head=""), [], MESSAGE)
    yield ReviewDetails(item, [*events[:at], *events[at + 1 :]], MESSAGE)
    yield ReviewDetails(item, [*events[: at + 1], *events[at:]], MESSAGE)
    yield ReviewDetails(item, events, MESSAGE + b"!")
    yield ReviewDetails(item, events, None)
    name = data.draw(st.sampled_from(ReviewItem.__struct_fields__))
    yield ReviewDetails(_altered(item, name), events, MESSAGE)
    name = data.draw(st.sampled_from(ReviewEvent.__struct_fields__))
    yield ReviewDetails(item, [*events[:at], _altered(events[at], name), *events[at + 1 :]], MESSAGE)
    if at:
        yield ReviewDetails(item, [*events[: at - 1], events[at], events[at - 1], *events[at + 1 :]], MESSAGE)


def _altered(struct: Any, name: str) -> Any:
    """Return a record with another value in one field, as somebody who edits the table would write it."""
    document = json.loads(msgspec.json.encode(struct))
    value = document[name]
    if name == "state":
        other: Any = "open"
    elif name == "priority":
        other = "low" if value != "low" else "high"
    elif name.endswith(("_at", "_until")) or name == "at":
        other = "2031-01-01T00:00:00Z"
    elif isinstance(value, int):
        other = value + 1
    elif isinstance(value, list):
        other = [*value, "more"]
    else:
        other = f"{value}x"
    return msgspec.json.decode(json.dumps({**document, name: other}), type=type(struct))


def test_an_event_is_not_taken_for_another_items() -> None:
    """A whole trail moved to another id fits nowhere."""
    story = a_story([])
    assert story.item is not None

    assert list(faults_of("r-2", ReviewDetails(replace(story.item, id="r-2"), story.events, MESSAGE)))


def test_it_escalates_step_by_step_and_then_daily() -> None:
    """Due again in half the time it had, at least 30 min; whoever is asleep is not called every half hour for ever."""
    item = a_story([]).item
    assert item is not None
    item = replace(item, state=ReviewState.OPEN, due_at=NOW)
    told = []
    while item.level < 5:
        after = escalated(item, item.due_at)
        assert after is not None
        told.append((after.priority, (after.due_at - item.due_at).total_seconds() / 3600))
        item = after

    assert [("high", 12.0), ("critical", 2.0), ("critical", 0.5), ("critical", 24.0), ("critical", 24.0)] == told
