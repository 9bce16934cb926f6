"""What a publish takes and what it refuses: everything wrong with a message is found in the caller's own call."""

from __future__ import annotations

from collections import UserString
from datetime import UTC, date, datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any, Unpack

import msgspec
import pika
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoolproof import CodecError, InvalidMessage, MessageTooLarge, UnknownType, event
from spoolproof.brokers.rabbitmq.properties import from_properties, to_properties
from spoolproof.destination import to_queue
from spoolproof.ids import Ids
from spoolproof.message import Message, Outgoing
from spoolproof.outbox.options import PublishOptions
from spoolproof.outbox.publish import Publisher, Running, handling
from spoolproof.testing.clock import ManualClock

NOW = ManualClock().now()


@event("order.placed", version=2, may_be_unrouted=True)
class OrderPlaced(msgspec.Struct):
    order_id: str


def outgoing(payload: object = None, **options: Unpack[PublishOptions]) -> Outgoing:
    clock = ManualClock()
    publisher = Publisher(None, source="shop", clock=clock, ids=Ids(clock))  # type: ignore[arg-type]
    return publisher.outgoing(OrderPlaced("7") if payload is None else payload, options)


def test_a_message_holds_what_its_publish_was_given() -> None:
    """Nothing is lost between the call and the row."""
    made = outgoing(
        key="k",
        id="1",
        expires=60,
        headers=MappingProxyType({"a": 1}),
        destination="queue:q",
        routing_key="r",
        correlation_id="c",
        subject="s",
    )

    expected = Message(
        id="1",
        type="order.placed",
        source="shop",
        time=NOW,
        body=b'{"order_id":"7"}',
        subject="s",
        schemaversion=2,
        key="k",
        correlation_id="c",
        expires_at=NOW + timedelta(seconds=60),
        headers={"a": 1},
    )
    assert Outgoing(message=expected, destination=to_queue("q"), routing_key="r", may_be_unrouted=True) == made


async def test_what_a_handler_publishes_tells_what_it_comes_from() -> None:
    """One order can be followed through all its services."""
    cause = Message(
        id="9", type="t", source="s", time=NOW, body=b"", tenant="north", traceparent="00-1", tracestate="x"
    )
    token = handling.set(Running(cause, None))
    try:
        plain, own = outgoing(key="k", headers={"a": 1}).message, outgoing(correlation_id="mine").message
    finally:
        handling.reset(token)

    assert ("9", "9", "north", "00-1", "x") == (
        plain.correlation_id,
        plain.causation_id,
        plain.tenant,
        plain.traceparent,
        plain.tracestate,
    )
    assert ("mine", "9") == (own.correlation_id, own.causation_id)
    assert ("k", {"a": 1}) == (plain.key, plain.headers)


class Lazy(UserString):
    """Looks like text, adds like text, and is none."""


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("id", {"id": ""}),
    ("id", {"id": 7}),
    ("id", {"id": "a\0"}),
    ("id", {"id": "\ud800"}),
    ("key", {"key": ""}),
    ("key", {"key": 0}),
    ("key", {"key": 7}),
    ("key", {"key": b"k"}),
    ("key", {"key": Lazy("k")}),
    ("key", {"key": "a\0"}),
    ("key", {"key": "a\ud800"}),
    ("key", {"key": "k" * 256}),
    ("key", {"key": "é" * 128}),
    ("subject", {"subject": 0}),
    ("subject", {"subject": "a\0"}),
    ("subject", {"subject": "s" * 256}),
    ("correlation_id", {"correlation_id": 0}),
    ("correlation_id", {"correlation_id": "\udfff"}),
    ("type", {"type": "order.cancelled"}),
    ("routing_key", {"routing_key": 7}),
    ("routing_key", {"routing_key": "a\0"}),
    ("destination", {"destination": 7}),
    ("destination", {"destination": "queue:"}),
    ("destination", {"destination": "delay:5"}),
    ("destination", {"destination": "queue:a b"}),
    ("destination", {"destination": "queue:\ud800"}),
    ("expires", {"expires": float("nan")}),
    ("expires", {"expires": float("inf")}),
    ("expires", {"expires": 0}),
    ("expires", {"expires": -1}),
    ("expires", {"expires": True}),
    ("expires", {"expires": "60"}),
    ("expires", {"expires": date(2026, 1, 1)}),
    ("expires", {"expires": timedelta.max}),
    ("expires", {"expires": datetime(2026, 1, 1)}),
    ("expires", {"expires": datetime.max.replace(tzinfo=timezone(timedelta(hours=-5)))}),
    ("headers", {"headers": 7}),
    ("headers", {"headers": [("a", 1)]}),
    ("headers", {"headers": {1: 2}}),
    ("headers", {"headers": {"": 1}}),
    ("headers", {"headers": {"a\0": 1}}),
    ("headers", {"headers": {"\ud800": 1}}),
    ("headers['a']", {"headers": {"a": "\ud800"}}),
    ("headers['a']", {"headers": {"a": float("nan")}}),
    ("headers['a']", {"headers": {"a": b"x"}}),
    ("headers['a']", {"headers": {"a": None}}),
]


@pytest.mark.parametrize(("field", "options"), REFUSED)
def test_an_option_that_cannot_be_sent_is_refused_by_name(field: str, options: dict[str, Any]) -> None:
    """In the relay it could only be a dead letter, and in the log a riddle."""
    with pytest.raises(InvalidMessage) as caught:
        outgoing(**options)

    assert field == caught.value.field


def test_a_name_that_is_no_option_is_refused_as_by_any_function() -> None:
    """A slip of the pen must not become a message without its ordering key."""
    with pytest.raises(TypeError, match="unexpected keyword argument 'keys'; the nearest is 'key'"):
        outgoing(keys="k")  # type: ignore[call-arg]


async def test_an_inherited_field_that_cannot_be_sent_is_refused_by_name() -> None:
    """What a stranger sent may be longer than what we may send."""
    token = handling.set(Running(Message(id="i" * 300, type="t", source="s", time=NOW, body=b""), None))
    try:
        with pytest.raises(InvalidMessage) as caught:
            outgoing()
    finally:
        handling.reset(token)

    assert "correlation_id" == caught.value.field


@pytest.mark.parametrize("payload", [OrderPlaced, "text", 7, [1], object()])
def test_a_payload_without_a_wire_name_is_refused(payload: object) -> None:
    """The receiver could not know what it is."""
    with pytest.raises(UnknownType):
        outgoing(payload, type="order.placed")


@pytest.mark.parametrize("type", [None, 7, "", "a\0", "x" * 256])
def test_a_dict_needs_a_wire_name_that_can_be_sent(type: Any) -> None:
    """It becomes a routing key and a column."""
    with pytest.raises((UnknownType, InvalidMessage)):
        outgoing({"a": 1}, type=type)


def test_a_body_over_the_limit_is_too_large() -> None:
    """The broker would close the channel for its neighbours."""
    with pytest.raises(MessageTooLarge):
        outgoing(OrderPlaced("x" * 20_000_000))


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
names |= st.sampled_from(
    ["CC", "cc", "traceparent", "ce_id", "ce-x", "x-death", "x-delivery-count", "expiration", "ce"]
)
values = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@given(st.dictionaries(names, values | st.booleans() | st.integers(-(2**63), 2**63 - 1), max_size=3))
def test_headers_that_are_taken_arrive(headers: dict[str, Any]) -> None:
    """A header a broker reads, drops or renames must be refused, not lost."""
    try:
        message = outgoing(headers=headers).message
    except InvalidMessage:
        return

    properties = pika.BasicProperties()
    properties.decode(to_properties(message))
    received = from_properties(properties, message.body, is_redelivered=False, now=datetime.now(UTC))

    assert headers == received.message.headers
    assert message == received.message


def test_what_cannot_be_read_back_is_a_codec_error() -> None:
    """The payload's own errors are told apart from the message's."""
    with pytest.raises(CodecError, match="order_id"):
        outgoing(OrderPlaced(7))  # type: ignore[arg-type]
