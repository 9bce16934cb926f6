"""Messages for conformance tests: one that is easy to read, and every one that is legal."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from spoolproof.clock import SystemClock
from spoolproof.destination import destination_of
from spoolproof.ids import Ids
from spoolproof.message import Message, Outgoing
from spoolproof.ports.dead_letters import Attempt, DeadLetterRecord

CLOCK = SystemClock()
IDS = Ids(CLOCK)

round_trip_settings = settings(
    max_examples=30,
    deadline=None,
    database=None,
    # the fixture is shared by all examples on purpose, and every adapter's subclass runs the same inherited test
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.differing_executors,
        HealthCheck.too_slow,
    ],
)


def make_message(
    type: str = "test.happened", *, key: str | None = None, id: str | None = None, **fields: Any
) -> Message:
    """Return a message with a new id."""
    values: dict[str, Any] = {"source": "conformance", "time": CLOCK.now(), "body": b'{"n":1}', **fields}
    return Message(id=id or IDS.message_id(), type=type, key=key, **values)


def make_outgoing(
    type: str = "test.happened",
    *,
    key: str | None = None,
    id: str | None = None,
    destination: str = "events",
    routing_key: str | None = None,
    **fields: Any,
) -> Outgoing:
    """Return an outgoing message with a new id."""
    message = make_message(type, key=key, id=id, **fields)
    return Outgoing(message=message, destination=destination_of(destination), routing_key=routing_key)


def make_dead_letter(
    message: Message | None = None, *, destination: str = "queue:orders", **fields: Any
) -> DeadLetterRecord:
    """Return an open dead letter of a new message."""
    failed_at = fields.pop("failed_at", CLOCK.now())
    values: dict[str, Any] = {
        "consumer": "orders",
        "destination": destination_of(destination),
        "routing_key": None,
        "reason": "handler",
        "fingerprint": "0123456789abcdef",
        "error_class": "builtins.ValueError",
        "error": "no stock",
        "stack": "Traceback (most recent call last): …",
        "first_failed_at": failed_at,
        "last_failed_at": failed_at,
        "attempts": (Attempt(at=failed_at, error_class="builtins.ValueError", error="no stock", host="h1"),),
        **fields,
    }
    return DeadLetterRecord(id=IDS.message_id(), message=message or make_message(), **values)


# what check_message lets pass: valid Unicode without NUL, short texts up to 255 bytes (4 bytes per character at most)
_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)
_name = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=60)
_instant = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
_int64 = st.integers(-(2**63), 2**63 - 1)
_header_name = st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=20).map("h-".__add__)


def messages(type: st.SearchStrategy[str] | None = None) -> st.SearchStrategy[Message]:
    """Return a strategy for every legal message, or for every one of certain types."""
    return st.builds(
        Message,
        id=st.builds(IDS.message_id),
        type=type or _name,
        source=_name,
        time=_instant,
        body=st.binary(max_size=400),
        subject=st.none() | _text,
        datacontenttype=st.none() | st.just("application/json") | _name,
        schemaversion=st.integers(1, 2**31 - 1),
        key=st.none() | _name,
        correlation_id=st.none() | _name,
        causation_id=st.none() | _name,
        tenant=st.none() | _text,
        expires_at=st.none() | _instant,
        traceparent=st.none() | _text,
        tracestate=st.none() | _text,
        headers=st.dictionaries(_header_name, _text | _int64 | st.booleans(), max_size=8),
    )
