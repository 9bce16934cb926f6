"""What we encode ourselves is, to pika, what pika would have encoded."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import BasicProperties, frame, spec

from spoolproof.brokers.rabbitmq.encoding import ack_frame, encode_properties, publish_frames
from spoolproof.brokers.rabbitmq.failure import ENCODE_ERRORS
from spoolproof.brokers.rabbitmq.properties import to_properties
from spoolproof.message import Message
from spoolproof.testing.conformance._messages import messages

FRAME_MAX = 131_072
SMALLEST_FRAME_MAX = 4096
"""The least a peer may ask for (AMQP 0-9-1, section 4.2.3 and constant frame-min-size)."""


def properties_of(message: Message) -> BasicProperties:
    """Return the mapping of a message, written out for pika's own encoder."""
    headers: dict[str, Any] = {
        "cloudEvents_source": message.source,
        "cloudEvents_time": message.time.isoformat(timespec="microseconds"),
        "cloudEvents_schemaversion": None if message.schemaversion == 1 else message.schemaversion,
        "cloudEvents_subject": message.subject,
        "cloudEvents_partitionkey": message.key,
        "cloudEvents_causationid": message.causation_id,
        "cloudEvents_tenant": message.tenant,
        "cloudEvents_expiresat": message.expires_at and message.expires_at.isoformat(timespec="microseconds"),
        "traceparent": message.traceparent,
        "tracestate": message.tracestate,
    }
    return BasicProperties(
        content_type=message.datacontenttype,
        headers={name: value for name, value in headers.items() if value is not None} | message.headers,
        delivery_mode=2,
        correlation_id=message.correlation_id,
        message_id=message.id or None,
        timestamp=int(message.time.timestamp()) if message.time >= datetime(1970, 1, 1, tzinfo=UTC) else None,
        type=message.type or None,
        app_id=message.source if len(message.source) <= 63 else None,
    )


def decoded(data: bytes) -> list[Any]:
    """Return the frames in `data` as pika reads them."""
    found = []
    while data:
        used, one = frame.decode_frame(data)
        assert one is not None, f"not a whole frame: {data!r}"
        found.append(one)
        data = data[used:]
    return found


@given(messages())
def test_properties_are_byte_for_byte_what_pika_encodes(message: Message) -> None:
    """A consumer, ours or a foreign one, cannot tell who encoded; what pika reads back follows from it."""
    encoded, expected = to_properties(message), properties_of(message)

    assert b"".join(expected.encode()) == encoded
    assert expected == BasicProperties().decode(encoded)


_short_text = st.text(max_size=63)


@given(st.integers(1, 65_535), _short_text, _short_text, st.binary(max_size=3 * SMALLEST_FRAME_MAX))
def test_a_publish_is_read_as_what_was_published(channel: int, exchange: str, routing_key: str, body: bytes) -> None:
    """A length off by one makes the broker read the next publish out of this one and close the connection."""
    properties = to_properties(Message(id="1", type="t", source="s", time=datetime(2026, 1, 1, tzinfo=UTC), body=body))

    frames = publish_frames(channel, exchange, routing_key, properties, body, frame_max=SMALLEST_FRAME_MAX)

    method, header, *parts = decoded(frames)
    assert {channel} == {one.channel_number for one in (method, header, *parts)}
    assert spec.Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=True) == method.method
    assert (len(body), BasicProperties().decode(properties)) == (header.body_size, header.properties)
    assert body == b"".join(part.fragment for part in parts)
    assert all(0 < len(part.marshal()) <= SMALLEST_FRAME_MAX for part in parts)


@pytest.mark.parametrize(
    ("size", "frames"),
    [(0, 0), (1, 1), (SMALLEST_FRAME_MAX - 8, 1), (SMALLEST_FRAME_MAX - 7, 2), (2 * (SMALLEST_FRAME_MAX - 8), 2)],
)
def test_a_body_is_cut_exactly_at_the_largest_frame(size: int, frames: int) -> None:
    """A frame one byte too large closes the connection with 501, and no frame at all is what an empty body is."""
    data = publish_frames(1, "", "q", b"\x00\x00", bytes(size), frame_max=SMALLEST_FRAME_MAX)

    assert frames == len(decoded(data)) - 2


FITTING: dict[str, Any] = {
    "content_type": None,
    "headers": {},
    "correlation_id": None,
    "message_id": None,
    "timestamp": None,
    "type": None,
    "app_id": None,
}


@pytest.mark.parametrize(
    "field",
    [
        {"message_id": "x" * 256},
        {"type": "é" * 128},
        {"content_type": "x" * 256},
        {"correlation_id": "x" * 256},
        {"app_id": "x" * 256},
        {"message_id": 7},
        {"message_id": "\ud800"},
        {"timestamp": -1},
        {"headers": {"x" * 256: 1}},
        {"headers": {"n": 2**63}},
        {"headers": {"n": -(2**63) - 1}},
        {"headers": {"n": 1.5}},
        {"headers": {"n": None}},
        {"headers": {"n": "\ud800"}},
        {"headers": {1: "n"}},
    ],
    ids=str,
)
def test_what_does_not_fit_is_an_error_and_never_a_wrong_length(field: dict[str, Any]) -> None:
    """These are the errors the publisher turns into EncodeError."""
    with pytest.raises(ENCODE_ERRORS):
        encode_properties(**FITTING | field)


@pytest.mark.parametrize(("exchange", "routing_key"), [("x" * 256, ""), ("", "x" * 256), ("", 7)])
def test_an_address_that_does_not_fit_is_an_error(exchange: str, routing_key: Any) -> None:
    """An exchange or key cut short would be somebody else's."""
    with pytest.raises(ENCODE_ERRORS):
        publish_frames(1, exchange, routing_key, b"\x00\x00", b"", frame_max=FRAME_MAX)


@given(st.integers(1, 65535), st.integers(1, 2**64 - 1))
def test_an_ack_is_what_pika_would_have_sent(channel: int, tag: int) -> None:
    """L10: one delivery, never `multiple`."""
    expected = frame.Method(channel, spec.Basic.Ack(delivery_tag=tag, multiple=False)).marshal()

    assert expected == ack_frame(channel, tag)


@pytest.mark.parametrize("frame_max", [SMALLEST_FRAME_MAX, 8192, FRAME_MAX])
def test_headers_that_fit_no_frame_are_refused_before_anything_is_written(frame_max: int) -> None:
    """The broker answers an oversized header by closing the connection, for everybody, each time it is sent."""
    least = len(properties(""))
    room = frame_max - len(publish_frames(1, "", "q", b"", b"", frame_max=FRAME_MAX)) + len(method_frame("q"))

    *_, header = decoded(
        publish_frames(1, "", "q", properties("x" * (room - least)), b"", frame_max=frame_max),
    )

    assert frame_max == len(header.marshal())
    with pytest.raises(ValueError, match=f"frame_max is {frame_max}"):
        publish_frames(1, "", "q", properties("x" * (room - least + 1)), b"", frame_max=frame_max)


def properties(text: str) -> bytes:
    return encode_properties(**{**FITTING, "headers": {"text": text}})


def method_frame(routing_key: str) -> bytes:
    method = spec.Basic.Publish(exchange="", routing_key=routing_key, mandatory=True)
    return bytes(frame.Method(1, method).marshal())
