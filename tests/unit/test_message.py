"""The message: what passes the gate of every publish, and what comes back out of a stored row."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoolproof import limits
from spoolproof.errors import InvalidMessage, MessageTooLarge
from spoolproof.message import (
    Message,
    Outgoing,
    check_message,
    check_user_headers,
    pack_meta,
    shard_of,
    unpack_message,
    unpack_outgoing,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def message(**fields: Any) -> Message:
    return Message(**{"id": "1", "type": "t", "source": "s", "time": NOW, "body": b"{}", **fields})


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("id", {"id": ""}),
    ("id", {"id": "x" * 256}),
    ("id", {"id": "é" * 128}),
    ("id", {"id": 7}),
    ("type", {"type": ""}),
    ("type", {"type": "a\0b"}),
    ("source", {"source": ""}),
    ("key", {"key": "k" * 256}),
    ("key", {"key": "\ud800"}),
    ("correlation_id", {"correlation_id": "c" * 300}),
    ("time", {"time": datetime(2026, 1, 1)}),
    ("expires_at", {"expires_at": datetime(2026, 1, 1)}),
    ("headers['a']", {"headers": {"a": 1.5}}),
    ("headers['a']", {"headers": {"a": {"b": 1}}}),
    ("headers['a']", {"headers": {"a": None}}),
    ("headers['a']", {"headers": {"a": 2**63}}),
    ("headers['a']", {"headers": {"a": "x\0"}}),
]


@pytest.mark.parametrize(("field", "fields"), REFUSED)
def test_a_field_no_broker_could_carry_is_refused_by_name(field: str, fields: dict[str, Any]) -> None:
    """A bad message must fail in the caller's own call, never later in the relay."""
    with pytest.raises(InvalidMessage) as caught:
        check_message(message(**fields))

    assert field == caught.value.field


@pytest.mark.parametrize(
    "fields",
    [
        {"body": b"x" * (limits.BODY_BYTES_MAX + 1)},
        {"headers": {f"h{number}": 1 for number in range(limits.HEADERS_COUNT_MAX + 1)}},
        {"headers": {"h": "x" * (limits.HEADERS_BYTES_MAX + 1)}},
    ],
)
def test_a_message_over_a_limit_is_too_large(fields: dict[str, Any]) -> None:
    """One oversized publish would close the channel for its neighbours."""
    with pytest.raises(MessageTooLarge, match="at most"):
        check_message(message(**fields))


def test_a_message_at_every_limit_passes() -> None:
    """The limit itself is allowed; only what is over it is refused."""
    at_limit = message(
        id="i" * limits.SHORT_TEXT_BYTES_MAX,
        body=b"x" * limits.BODY_BYTES_MAX,
        headers={f"h{number:02d}": -(2**63) for number in range(limits.HEADERS_COUNT_MAX)},
    )

    check_message(at_limit)


@pytest.mark.parametrize("name", ["spoolproof-attempt", "Spoolproof-x", "cloudEvents_id", "ce-type", "x-death"])
def test_a_header_of_the_protocol_is_refused_from_users(name: str) -> None:
    """A user's `spoolproof-attempt: 99` would make a dead letter of the first failure."""
    with pytest.raises(InvalidMessage, match="belongs to the protocol"):
        check_user_headers({name: 1})


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
optional_texts = st.none() | texts
headers = st.dictionaries(texts, texts | st.booleans() | st.integers(-(2**63), 2**63 - 1), max_size=5)
moments = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))


@st.composite
def messages(draw: st.DrawFn) -> Message:
    return Message(
        id=draw(texts),
        type=draw(texts),
        source=draw(texts),
        time=draw(moments),
        body=draw(st.binary(max_size=60)),
        subject=draw(optional_texts),
        datacontenttype=draw(optional_texts),
        schemaversion=draw(st.integers(1, 1000)),
        key=draw(optional_texts),
        correlation_id=draw(optional_texts),
        causation_id=draw(optional_texts),
        tenant=draw(optional_texts),
        expires_at=draw(st.none() | moments),
        traceparent=draw(optional_texts),
        tracestate=draw(optional_texts),
        headers=draw(headers),
    )


@given(messages(), st.booleans(), optional_texts)
def test_a_stored_row_gives_back_the_same_message(
    value: Message, may_be_unrouted: bool, routing_key: str | None
) -> None:
    """S2: what was published arrives byte for byte, through every store."""
    outgoing = Outgoing(message=value, routing_key=routing_key, may_be_unrouted=may_be_unrouted)

    meta = pack_meta(value, may_be_unrouted=may_be_unrouted)

    columns = {"message_id": value.id, "type": value.type, "key": value.key, "meta": meta, "body": value.body}
    assert value == unpack_message(**columns)  # type: ignore[arg-type]
    assert outgoing == unpack_outgoing(**columns, destination="events", routing_key=routing_key)  # type: ignore[arg-type]


@given(st.text(min_size=1, max_size=30), st.integers(1, 64))
def test_messages_of_one_key_share_a_shard(key: str, shards: int) -> None:
    """S7: order per key rests on one owner shipping all of it."""
    first, second = message(id="a", key=key), message(id="b", key=key)

    assert shard_of(first, shards) == shard_of(second, shards)
    assert 0 <= shard_of(first, shards) < shards


def test_a_message_cannot_be_changed() -> None:
    """A message in flight is shared between the relay, the window and the log."""
    with pytest.raises(AttributeError):
        message().id = "2"  # type: ignore[misc]

    assert "2" == msgspec.structs.replace(message(), id="2").id
