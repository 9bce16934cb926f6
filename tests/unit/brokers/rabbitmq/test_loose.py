"""Properties that pika cannot decode: id, type and whatever else can be had are read all the same."""

from __future__ import annotations

import struct
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoolproof.brokers.rabbitmq.encoding import encode_properties
from spoolproof.brokers.rabbitmq.loose import read_loosely
from spoolproof.brokers.rabbitmq.properties import from_properties

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def raw(table: bytes) -> bytes:
    """Headers, message id `m-1` and type `job`, as the broker hands them on."""
    return struct.pack(">HI", 1 << 13 | 1 << 7 | 1 << 5, len(table)) + table + b"\x03m-1" + b"\x03job"


MILLISECONDS = b"\x04sentT" + struct.pack(">Q", 1_772_000_000_000)
GOOD = b"\x04goodS" + struct.pack(">I", 3) + b"yes"
UNKNOWN_TYPE = b"\x03odd?" + b"whatever"
SHORT = b"\x05shortS" + struct.pack(">I", 1000) + b"cut"
EVERY_TYPE = b"".join(
    [
        b"\x01tt\x01",
        b"\x01bb\xff",
        b"\x01II\x00\x00\x00\x07",
        b"\x01ll" + struct.pack(">q", -9),
        b"\x01dd" + struct.pack(">d", 1.5),
        b"\x01DD\x02" + struct.pack(">i", 314),
        b"\x01VV",
        b"\x01AA" + struct.pack(">I", 2) + b"t\x01",
        b"\x01FF" + struct.pack(">I", len(GOOD)) + GOOD,
        b"\x01xx" + struct.pack(">I", 2) + b"\xff\x00",
    ]
)


@pytest.mark.parametrize(
    ("table", "headers", "is_whole"),
    [
        (MILLISECONDS + GOOD, {"sent": 1_772_000_000_000, "good": "yes"}, True),
        (GOOD + UNKNOWN_TYPE + MILLISECONDS, {"good": "yes"}, False),
        (GOOD + SHORT, {"good": "yes"}, False),
        (b"\xff", {}, False),
        (b"", {}, True),
    ],
)
def test_a_header_that_cannot_be_read_costs_no_more_than_it_must(
    table: bytes, headers: dict[str, object], is_whole: bool
) -> None:
    """Without id and type the message is a dead letter, and its replay is another."""
    found = read_loosely(raw(table))

    assert ("m-1", "job") == (found.message_id, found.type)
    assert headers == found.headers
    assert is_whole is (not found.lost)
    received = from_properties(found, b"{}", is_redelivered=False, now=NOW)
    assert (None, "m-1", "job") == (received.fault, received.message.id, received.message.type)


def test_every_known_type_is_read() -> None:
    """The rest of a table is lost behind one that is not."""
    found = read_loosely(raw(EVERY_TYPE))

    assert [] == found.lost
    expected = {"t": True, "b": -1, "I": 7, "l": -9, "d": 1.5, "D": "314e-2", "V": None, "A": [True], "x": b"\xff\x00"}
    assert {**expected, "F": {"good": "yes"}} == found.headers
    assert "m-1" == from_properties(found, b"{}", is_redelivered=False, now=NOW).message.id


@given(data=st.binary(max_size=200))
def test_no_bytes_raise(data: bytes) -> None:
    """They came over the network."""
    found = read_loosely(data)

    from_properties(found, b"{}", is_redelivered=True, now=NOW)


def test_what_we_send_is_read_as_pika_reads_it() -> None:
    """One mapping, two readers."""
    encoded = encode_properties(
        content_type="application/json",
        headers={"a": "b", "n": 7, "big": 2**40, "yes": True},
        correlation_id="c",
        message_id="m",
        timestamp=5,
        type="t",
        app_id="app",
    )

    found = read_loosely(encoded)

    assert ("application/json", "c", "m", 5, "t", "app") == (
        found.content_type,
        found.correlation_id,
        found.message_id,
        found.timestamp,
        found.type,
        found.app_id,
    )
    assert {"a": "b", "n": 7, "big": 2**40, "yes": True} == found.headers
