"""Messages on the wire of SQS and SNS: pure, both ways."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given

from spoolproof import limits
from spoolproof.brokers.sqs.wire import Wire, decode, encode
from spoolproof.errors import EncodeError
from spoolproof.message import Message
from spoolproof.testing.conformance._messages import make_message, messages, round_trip_settings

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def raw(wire: Wire, **fields: Any) -> dict[str, Any]:
    return {"MessageId": "m-1", "Body": wire.body, "MessageAttributes": wire.attributes, **fields}


@given(message=messages())
@round_trip_settings
def test_what_is_sent_is_what_arrives(message: Message) -> None:
    """Byte for byte, and in two attributes, of ten that a message may have."""
    wire = encode(message)

    assert message == decode(raw(wire), NOW).message
    assert {"type", "spoolproof"} == set(wire.attributes)


@given(message=messages())
@round_trip_settings
def test_no_text_has_a_character_that_sqs_refuses(message: Message) -> None:
    """One control character in a header would have the message refused for ever."""
    wire = encode(message, routing_key="a\x01b")

    for text in (wire.body, wire.type, wire.head):
        assert text
        assert all(c in "\t\n\r" or "\x20" <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c > "\uffff" for c in text)


def test_others_read_plain_json_and_filter_by_type() -> None:
    """A consumer without Spoolproof needs nothing of ours."""
    wire = encode(make_message("shop.order.placed", body=b'{"order":7}'))

    assert {"order": 7} == json.loads(wire.body)
    assert {"DataType": "String", "StringValue": "shop.order.placed"} == wire.attributes["type"]


@pytest.mark.parametrize("body", [b"", b"\xff\x00", b"a\x00b", "￿".encode()])
def test_what_cannot_be_text_is_base64_and_says_so(body: bytes) -> None:
    """SQS takes no empty body and not every character."""
    wire = encode(make_message(body=body))

    assert "base64" == json.loads(wire.head)["encoding"]
    assert body == decode(raw(wire), NOW).message.body


def test_the_limit_counts_body_and_attributes_together() -> None:
    """What is over it would be refused each time: it is not sent."""
    message = make_message(body=b"1" * (limits.SQS_MESSAGE_BYTES_MAX - 500))
    room = limits.SQS_MESSAGE_BYTES_MAX - encode(message).size_bytes

    encode(make_message(body=message.body + b"1" * room))
    with pytest.raises(EncodeError, match="at most 262144"):
        encode(make_message(body=message.body + b"1" * (room + 1)))


def test_a_copy_is_another_message_to_a_fifo_queue() -> None:
    """By the message's id it would drop a retry or a replay of the last five minutes, confirmed."""
    message = make_message()

    assert encode(message).digest == encode(message).digest
    assert encode(message).digest != encode(message, due=1.0).digest


def test_a_foreign_message_has_its_attributes_as_headers() -> None:
    """Its id is the one SQS gave it, so that a redelivery is known as one."""
    attributes = {
        "type": {"DataType": "String", "StringValue": "legacy.placed"},
        "region": {"DataType": "String", "StringValue": "north"},
        "traceparent": {"DataType": "String", "StringValue": "00-1"},
        "blob": {"DataType": "Binary", "BinaryValue": b"1"},
    }

    received = decode({"MessageId": "m-1", "Body": '{"a":1}', "MessageAttributes": attributes}, NOW)

    message = received.message
    assert ("m-1", "legacy.placed", b'{"a":1}') == (message.id, message.type, message.body)
    assert ({"region": "north"}, "00-1", None) == (message.headers, message.traceparent, received.fault)


def test_what_sns_has_wrapped_is_unwrapped() -> None:
    """A subscription that somebody made without raw delivery, and what SNS puts into a dead letter queue."""
    wire = encode(make_message("shop.order.placed", id="o-1"))
    attributes = {name: {"Type": "String", "Value": one["StringValue"]} for name, one in wire.attributes.items()}
    body = json.dumps({"Type": "Notification", "Message": wire.body, "MessageAttributes": attributes})

    message = decode({"MessageId": "m-1", "Body": body}, NOW).message

    assert ("o-1", "shop.order.placed", b'{"n":1}') == (message.id, message.type, message.body)


@pytest.mark.parametrize("body", ['{"Type": "Notification"}', '["Notification"]', '{"Notification" is no JSON'])
def test_a_body_that_only_looks_wrapped_stays_as_it_is(body: str) -> None:
    """It is somebody's payload."""
    assert body.encode() == decode({"MessageId": "m-1", "Body": body}, NOW).message.body


@pytest.mark.parametrize(
    "head",
    [
        "{",
        "[" * 100_000,
        '{"id":1}',
        '{"id":"x","meta":{}}',
        '{"id":"x","meta":{"source":"s"}}',
        '{"id":"a\\u0000","meta":{"source":"s","time":"2026-01-02T03:04:05Z"}}',
    ],
    ids=range(6),
)
def test_an_attribute_nobody_can_read_is_that_messages_fault(head: str) -> None:
    """It becomes a dead letter that shows it; the queue goes on."""
    received = decode(raw(Wire("body", "t", head)), NOW)

    assert received.fault
    assert (b"body", head) == (received.message.body, received.message.headers["spoolproof"])
