"""Payloads to bytes and back under stable names, and every refusal on the way."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import pydantic
import pytest

from spoolproof.codec import DecodeFailure, TypeRegistry, encode_payload, event, event_type_of
from spoolproof.errors import CodecError, RegistrationError, UnknownType
from spoolproof.message import Message


@event("order.placed")
class StructOrder(msgspec.Struct):
    order_id: str
    total_cents: int


@event("order.placed")
@dataclass
class DataclassOrder:
    order_id: str
    total_cents: int


@event("order.placed")
class PydanticOrder(pydantic.BaseModel):
    order_id: str
    total_cents: int


@event("order.placed", version=3)
class NewestOrder(msgspec.Struct):
    order_id: str
    total_cents: int
    currency: str


def incoming(body: bytes, version: int = 1) -> Message:
    return Message(
        id="1", type="order.placed", source="s", time=datetime(2026, 1, 1, tzinfo=UTC), body=body, schemaversion=version
    )


@pytest.mark.parametrize("model", [StructOrder, DataclassOrder, PydanticOrder])
def test_every_kind_of_model_comes_back_equal(model: Any) -> None:
    """The three kinds are interchangeable on the wire."""
    registry = TypeRegistry()
    registry.add(model)
    order = model(order_id="7", total_cents=1250)

    body = encode_payload(order)

    assert b'{"order_id":"7","total_cents":1250}' == body
    assert order == registry.decode(incoming(body), "order.placed")


def test_a_dict_needs_no_model() -> None:
    """Foreign events are often consumed as they are."""
    registry = TypeRegistry()
    registry.add("order.placed")

    assert {"a": [1]} == registry.decode(incoming(encode_payload({"a": [1]})), "order.placed")


@pytest.mark.parametrize(
    ("body", "version", "reason"),
    [
        (b"not json", 1, "decode"),
        (b'{"order_id": 7, "total_cents": 1}', 1, "decode"),
        (b'{"order_id": "7"}', 1, "decode"),
        (b"\xff\xfe", 1, "decode"),
        (b'{"order_id":"7","total_cents":1}', 2, "unknown_version"),
    ],
)
@pytest.mark.parametrize("model", [StructOrder, PydanticOrder])
def test_a_body_that_does_not_fit_names_the_dead_letters_reason(
    body: bytes, version: int, reason: str, model: Any
) -> None:
    """L5: undecodable is a dead letter, never an ack that drops."""
    registry = TypeRegistry()
    registry.add(model)

    with pytest.raises(DecodeFailure) as caught:
        registry.decode(incoming(body, version), "order.placed")

    assert reason == caught.value.reason


def test_upcasts_chain_to_the_newest_version() -> None:
    """A release must read what the one before it wrote."""
    registry = TypeRegistry()
    registry.add(NewestOrder)
    registry.add_upcast("order.placed", 1, lambda old: {"order_id": old["id"], "total_cents": old["total"]})
    registry.add_upcast("order.placed", 2, lambda old: {**old, "currency": "EUR"})

    decoded = registry.decode(incoming(b'{"id":"7","total":5}', 1), "order.placed")

    assert [] == registry.check()
    assert NewestOrder("7", 5, "EUR") == decoded


def test_a_gap_between_upcasts_is_found_before_any_message() -> None:
    """A gap met by a delivery would be a dead letter per message."""
    registry = TypeRegistry()
    registry.add(NewestOrder)
    registry.add_upcast("order.placed", 1, dict)

    assert ["'order.placed': there is an upcast from version 1 but none from 2"] == registry.check()


@pytest.mark.parametrize(
    ("model", "name", "from_version", "reason"),
    [
        (NewestOrder, "order.placed", 3, "'order.placed': the upcast from version 3 is never used: the newest is 3"),
        (
            NewestOrder,
            "ordre.placed",
            2,
            "'ordre.placed': the upcast from version 2 is never used: no handler takes this",
        ),
        ("order.placed", "order.placed", 1, "from version 1 is never used: a dict is taken as it comes"),
    ],
)
def test_an_upcast_no_message_can_reach_is_found_before_any_message(
    model: Any, name: str, from_version: int, reason: str
) -> None:
    """A misspelt name is an upcast that silently does not happen."""
    registry = TypeRegistry()
    registry.add(model)
    registry.add_upcast(name, from_version, dict)

    (fault,) = registry.check()

    assert reason in fault


async def not_plain(old: dict[str, Any]) -> dict[str, Any]:
    return old


@pytest.mark.parametrize(
    ("name", "from_version", "function", "reason"),
    [
        (NewestOrder, 1, dict, "give the wire name"),
        ("a", 0, dict, "from_version=0 must be a whole number from 1"),
        ("a", "1", dict, "from_version='1'"),
        ("a", True, dict, "from_version=True"),
        ("a", 1, 7, "7 must be a plain function"),
        ("a", 1, not_plain, "must be a plain function"),
    ],
)
def test_what_can_never_be_an_upcast_is_refused(name: Any, from_version: Any, function: Any, reason: str) -> None:
    """It would be met by the first old message, as a dead letter."""
    with pytest.raises(RegistrationError, match=reason):
        TypeRegistry().add_upcast(name, from_version, function)


def test_two_models_for_one_wire_name_are_refused() -> None:
    """Which of the two would decode a message must never depend on the order of imports."""
    registry = TypeRegistry()
    registry.add(StructOrder)

    with pytest.raises(RegistrationError, match=r"'order\.placed' belongs to StructOrder; DataclassOrder"):
        registry.add(DataclassOrder)


@pytest.mark.parametrize("name", ["", "has space", "x" * 256, ".starts.with.dot", 7])
def test_a_bad_wire_name_is_refused(name: Any) -> None:
    """The name becomes a routing key, a column and a header."""
    with pytest.raises(RegistrationError, match="event name"):
        event(name)


@pytest.mark.parametrize("version", [0, -1, 1.5, True])
def test_a_bad_version_is_refused(version: Any) -> None:
    """Versions are compared as whole numbers."""
    with pytest.raises(RegistrationError, match="version="):
        event("a", version=version)


def test_a_class_that_is_no_model_is_refused() -> None:
    """msgspec would encode it as an empty object, silently."""
    with pytest.raises(RegistrationError, match="Struct, a dataclass or a pydantic model"):
        event("a")(object)


def test_a_bare_event_decorator_is_refused_with_what_to_write() -> None:
    """The class itself would be taken for the name."""
    with pytest.raises(RegistrationError, match=r"StructOrder has no wire name; write @event\('your\.event\.name'\)"):
        event(StructOrder)  # type: ignore[arg-type]


def test_a_second_name_for_one_class_is_refused() -> None:
    """The first would silently be forgotten; the same again is harmless."""
    event("order.placed")(StructOrder)

    with pytest.raises(RegistrationError, match=r"StructOrder: it is @event\('order\.placed'\) already"):
        event("order.cancelled")(StructOrder)


def test_a_subclass_does_not_inherit_its_parents_name() -> None:
    """Two classes under one wire name would decode into each other."""

    class Special(StructOrder):
        pass

    with pytest.raises(UnknownType, match="Special has no wire name"):
        event_type_of(Special)


@pytest.mark.parametrize("payload", [StructOrder(order_id="1", total_cents=object()), {"a": object()}])  # type: ignore[arg-type]
def test_a_value_json_cannot_hold_fails_at_publish(payload: Any) -> None:
    """In the relay it could only be a dead letter; the caller can still mend it."""
    with pytest.raises(CodecError, match="cannot be encoded as JSON"):
        encode_payload(payload)
