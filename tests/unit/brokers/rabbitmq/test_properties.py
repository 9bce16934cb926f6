"""Messages to AMQP properties and back, ours and everybody else's."""

from __future__ import annotations

import base64
import gzip
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import BasicProperties
from pika.compat import long

from spoolproof import limits
from spoolproof.brokers.rabbitmq.properties import Received, from_properties, to_properties
from spoolproof.errors import EncodeError
from spoolproof.message import Message
from spoolproof.testing.conformance._messages import messages

NOW = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
FULL = Message(
    id="0198-1",
    type="shop.order.placed",
    source="shop",
    time=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    body=b'{"n":1}',
    subject="order/7",
    schemaversion=3,
    key="order-7",
    correlation_id="c-1",
    causation_id="c-0",
    tenant="acme",
    expires_at=datetime(2026, 1, 3, tzinfo=UTC),
    traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    tracestate="a=1",
    headers={"spoolproof-attempt": 2, "colour": "red", "is_gift": True},
)


def as_read(message: Message) -> BasicProperties:
    """Return what pika reads of a message's encoded properties."""
    return BasicProperties().decode(to_properties(message))


def received(properties: BasicProperties, body: bytes = b"{}", *, is_redelivered: bool = False) -> Received:
    """Decode what the broker would hand on, after a trip through AMQP's own encoding."""
    encoded = b"".join(properties.encode())
    return from_properties(BasicProperties().decode(encoded), body, is_redelivered=is_redelivered, now=NOW)


def test_a_plain_consumer_finds_everything_where_it_looks() -> None:
    """Outgoing messages are read by services that never heard of us."""
    properties = as_read(FULL)

    assert (2, "0198-1", "shop.order.placed", "application/json", "c-1", "shop", 1767323045) == (
        properties.delivery_mode,
        properties.message_id,
        properties.type,
        properties.content_type,
        properties.correlation_id,
        properties.app_id,
        properties.timestamp,
    )
    assert {
        "cloudEvents_source": "shop",
        "cloudEvents_time": "2026-01-02T03:04:05.678901+00:00",
        "cloudEvents_subject": "order/7",
        "cloudEvents_schemaversion": 3,
        "cloudEvents_partitionkey": "order-7",
        "cloudEvents_causationid": "c-0",
        "cloudEvents_tenant": "acme",
        "cloudEvents_expiresat": "2026-01-03T00:00:00.000000+00:00",
        "traceparent": FULL.traceparent,
        "tracestate": "a=1",
        "spoolproof-attempt": 2,
        "colour": "red",
        "is_gift": True,
    } == properties.headers


@given(messages())
def test_every_legal_message_comes_back_as_it_went(message: Message) -> None:
    """Nothing is lost and nothing is added on the way."""
    result = received(as_read(message), message.body)

    assert (message, 0, None, None) == (result.message, result.delivery_count, result.dead_reason, result.fault)


def test_what_the_broker_wrote_never_enters_the_message() -> None:
    """L8: on a copy, CC would deliver to other queues too, user_id or expiration close the channel."""
    properties = as_read(FULL)
    properties.headers |= {
        "x-death": [{"reason": "expired", "count": 1}],
        "x-first-death-reason": "delivery_limit",
        "x-first-death-queue": "q",
        "x-last-death-reason": "expired",
        "x-delivery-count": 4,
        "x-acquired-count": 5,
        "CC": ["other"],
        "BCC": ["hidden"],
        "user_id": "x",
        "expiration": "1",
    }
    properties.expiration, properties.user_id = "1000", "guest"

    result = received(properties, FULL.body, is_redelivered=True)

    assert FULL == result.message
    assert (4, "delivery_limit") == (result.delivery_count, result.dead_reason)
    copy = as_read(result.message)
    assert (None, None) == (copy.expiration, copy.user_id)


@pytest.mark.parametrize("name", ["CC", "BCC"])
def test_a_header_that_would_route_the_message_elsewhere_cannot_be_sent(name: str) -> None:
    """The broker acts on it; as text it would even close the channel."""
    with pytest.raises(EncodeError, match="CC"):
        to_properties(Message(id="1", type="t", source="s", time=NOW, body=b"", headers={name: "other"}))


def test_a_redelivered_flag_counts_where_the_broker_does_not() -> None:
    """Classic queues keep no count."""
    assert 1 == received(BasicProperties(), is_redelivered=True).delivery_count
    assert 0 == received(BasicProperties()).delivery_count


def test_a_bare_message_is_a_message() -> None:
    """Plain JSON from anybody: no id, no type, no time."""
    result = received(BasicProperties(), b'{"a": 1}')

    expected = Message(id="", type="", source="", time=NOW, body=b'{"a": 1}', datacontenttype=None)
    assert (expected, None) == (result.message, result.fault)


@pytest.mark.parametrize("prefix", ["cloudEvents_", "cloudEvents:", "ce-", "ce_"])
def test_cloudevents_attributes_are_read_under_any_usual_prefix(prefix: str) -> None:
    """The property wins where there is one; of two spellings either will do."""
    attributes = {"id": "e-1", "type": "a.b", "source": "/x", "subject": "s", "time": "2026-02-03T04:05:06Z"}
    headers = {prefix + name: value for name, value in attributes.items()}

    message = received(BasicProperties(headers=headers)).message
    named = received(BasicProperties(headers=headers, message_id="m-1", type="p.q")).message

    assert ("e-1", "a.b", "/x", "s", datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)) == (
        message.id,
        message.type,
        message.source,
        message.subject,
        message.time,
    )
    assert {} == message.headers
    assert ("m-1", "p.q") == (named.id, named.type)


def test_headers_of_any_kind_become_text_numbers_or_truth() -> None:
    """What other clients send is kept, in a form every store can hold."""
    foreign: dict[Any, Any] = {
        "bytes": b"abc",
        "binary": b"\xff\x00",
        "when": datetime(2026, 1, 2, tzinfo=UTC),
        "price": Decimal("9.90"),
        "list": [1, "a"],
        "table": {"a": {"b": 1}},
        "nothing": None,
        "nul": "a\0b",
        "big": long(7),
    }

    headers = received(BasicProperties(headers=foreign)).message.headers

    assert {
        "bytes": "abc",
        "binary": base64.b64encode(b"\xff\x00").decode(),
        "when": "2026-01-02T00:00:00+00:00",
        "price": "9.9",
        "list": '[1,"a"]',
        "table": '{"a":{"b":1}}',
        "nothing": "null",
        "nul": "a␀b",
        "big": 7,
    } == headers
    assert int is type(headers["big"])


def test_timestamps_in_seconds_and_in_milliseconds_are_understood() -> None:
    """Half the world writes milliseconds."""
    expected = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)

    assert expected == received(BasicProperties(timestamp=1_700_000_000)).message.time
    assert expected == received(BasicProperties(timestamp=1_700_000_000_000)).message.time
    assert NOW == received(BasicProperties(timestamp=2**63)).message.time


def test_gzip_is_inflated_within_a_limit() -> None:
    """A small message that inflates to gigabytes must not take the consumer along."""
    plain = received(BasicProperties(content_encoding="gzip"), gzip.compress(b'{"a":1}', mtime=0))
    bomb = gzip.compress(bytes(10 * limits.BODY_BYTES_MAX + 1))
    refused = received(BasicProperties(content_encoding="gzip"), bomb)

    assert (b'{"a":1}', None) == (plain.message.body, plain.fault)
    assert bomb == refused.message.body
    assert "inflates to more than" in str(refused.fault)


@pytest.mark.parametrize(
    ("encoding", "body", "needle"),
    [
        ("gzip", b"not gzip", "the body is not"),
        ("gzip", gzip.compress(b"cut short", mtime=0)[:-4], "cut short"),
        ("br", b"{}", "content_encoding='br'"),
    ],
)
def test_a_body_that_cannot_be_read_is_a_fault_and_is_kept(encoding: str, body: bytes, needle: str) -> None:
    """It becomes a dead letter with its bytes, not a lost message and not an exception."""
    result = received(BasicProperties(content_encoding=encoding, message_id="m"), body)

    assert needle in str(result.fault)
    assert (body, "m") == (result.message.body, result.message.id)


@pytest.mark.parametrize("encoding", ["utf-8", "UTF-8", "binary"])
def test_character_sets_named_as_encoding_are_none(encoding: str) -> None:
    """kombu, and with it Celery, always writes utf-8 there."""
    assert received(BasicProperties(content_encoding=encoding)).fault is None


def test_a_structured_cloudevent_is_unwrapped() -> None:
    """The body is the payload alone, whoever sent it; its numbers are not read and written again."""
    document = {
        "specversion": "1.0",
        "id": "e-9",
        "source": "/legacy",
        "type": "a.b",
        "time": "2026-02-03T04:05:06Z",
        "partitionkey": "k",
        "region": "north",
        "x-death": "forged",
        "data": {"price": 1.10},
    }
    body = json.dumps(document).encode().replace(b"1.1}", b"1.10}")
    result = received(BasicProperties(content_type="application/cloudevents+json; charset=utf-8"), body)

    message = result.message
    assert result.fault is None
    assert ("e-9", "/legacy", "a.b", "k", "application/json", b'{"price": 1.10}') == (
        message.id,
        message.source,
        message.type,
        message.key,
        message.datacontenttype,
        message.body,
    )
    assert {"region": "north"} == message.headers


@pytest.mark.parametrize(
    ("document", "body"),
    [
        ({"data_base64": base64.b64encode(b"\x00\x01").decode(), "datacontenttype": "image/png"}, b"\x00\x01"),
        ({"data": "hello", "datacontenttype": "text/plain"}, b"hello"),
        ({"data": "hello"}, b'"hello"'),
        ({}, b""),
    ],
)
def test_structured_data_may_be_text_binary_or_absent(document: dict[str, str], body: bytes) -> None:
    """CloudEvents 1.0.2, JSON format, section 3.1."""
    result = received(BasicProperties(content_type="application/cloudevents+json"), json.dumps(document).encode())

    assert (body, None) == (result.message.body, result.fault)


@pytest.mark.parametrize("body", [b"not json", b"[1]", b'{"data_base64": "%"}', b'{"data": 1, "datacontenttype": 5}'])
def test_a_structured_cloudevent_that_is_none_is_a_fault(body: bytes) -> None:
    """Kept with its bytes for whoever looks at the dead letter."""
    result = received(BasicProperties(content_type="application/cloudevents+json", message_id="m"), body)

    assert "cloudevents" in str(result.fault)
    assert (body, "m") == (result.message.body, result.message.id)


@given(
    st.dictionaries(
        st.text(max_size=20),
        st.recursive(
            st.none() | st.booleans() | st.integers(-(2**31), 2**31 - 1) | st.text() | st.binary(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
            max_leaves=5,
        ),
        max_size=5,
    ),
    st.binary(max_size=50),
)
def test_no_foreign_headers_raise(headers: dict[str, Any], body: bytes) -> None:
    """An exception here would be a delivery nobody can settle."""
    result = received(BasicProperties(headers=headers), body)

    assert all(type(value) in (str, int, bool) for value in result.message.headers.values())


@pytest.mark.parametrize(
    ("headers", "is_redelivered", "count", "dead_reason"),
    [
        ({"x-delivery-count": 45}, False, 0, None),
        ({"x-delivery-count": -1}, True, 1, None),
        ({"x-delivery-count": "many"}, True, 1, None),
        ({"x-delivery-count": 3}, True, 3, None),
        ({"x-first-death-reason": "because I say so"}, False, 0, None),
        ({"x-first-death-reason": ["expired"]}, False, 0, None),
        ({"x-first-death-reason": "expired"}, False, 0, "expired"),
        ({"x-death": "rubbish", "x-last-death-queue": 7, "X-Death": [1]}, False, 0, None),
    ],
)
def test_a_publisher_cannot_speak_for_the_broker(
    headers: dict[str, Any], is_redelivered: bool, count: int, dead_reason: str | None
) -> None:
    """A forged count would have a new message taken for one that wears its consumers out."""
    result = received(BasicProperties(headers=headers), is_redelivered=is_redelivered)

    assert (count, dead_reason, {}) == (result.delivery_count, result.dead_reason, result.message.headers)


def test_what_expires_or_steers_a_message_goes_into_no_copy_of_it() -> None:
    """A copy that keeps the sender's expiration dies in the delay queue; one that keeps its user is refused."""
    foreign = BasicProperties(
        expiration="1", user_id="somebody", reply_to="q", priority=9, headers={"CC": ["a"], "expiration": "1"}
    )

    copy = as_read(received(foreign).message)

    assert (None, None, None, None) == (copy.expiration, copy.user_id, copy.reply_to, copy.priority)
    assert {"CC", "expiration"}.isdisjoint(copy.headers)


@pytest.mark.parametrize("value", [2**63, 2**64 - 1])
def test_a_number_of_other_clients_that_we_cannot_send_stays_readable_and_can_be_sent(value: int) -> None:
    """Unsigned 64 bits exist in their field types, not in ours: no copy of the message could be made."""
    properties = BasicProperties(headers={"n": value})
    result = from_properties(properties, b"{}", is_redelivered=False, now=NOW)

    assert {"n": str(value)} == result.message.headers
    assert str(value) == as_read(result.message).headers["n"]


def test_a_trace_too_long_to_hand_on_is_dropped() -> None:
    """What the handler publishes inherits it, and would then fit no frame, though nobody there is wrong."""
    result = received(BasicProperties(headers={"tracestate": "x" * 513, "traceparent": "x" * 512}))

    assert (None, "x" * 512) == (result.message.tracestate, result.message.traceparent)
