"""Values come back as they went, or are refused; bytes of anybody else are a miss."""

from __future__ import annotations

import dataclasses
import zlib
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoolproof.cache.cache import KeyMaker
from spoolproof.cache.coder import Coder, is_immutable
from spoolproof.cache.envelope import FORMAT, ZLIB, Envelope, pack, unpack
from spoolproof.errors import CacheConfigError, CacheValueInvalid
from spoolproof.ports.cache import ENTRY, TOMBSTONE


class Frozen(msgspec.Struct, frozen=True):
    name: str
    at: datetime | None = None


class Open(msgspec.Struct):
    names: list[str]


@dataclasses.dataclass(frozen=True)
class Holder:
    inner: Any


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def packed(body: bytes, **changed: Any) -> bytes:
    known: dict[str, Any] = {
        **{"version": b"v" * 16, "fingerprint": b"f" * 8, "loaded_ms": 1, "fresh_ms": 2, "dead_ms": 3},
        **{"sequence": 4, "tags": ("t",)},
    }
    return pack(body, **known | changed)


@given(PLAIN)
def test_plain_values_come_back_the_same(value: Any) -> None:
    coder = Coder("x")

    found = unpack(packed(coder.checked(value)), b"f" * 8, 10**7)

    assert found is not None
    assert (value, 2) == (coder.value_of(found[2]), found[1])


@pytest.mark.parametrize("value", [(1, 2), {"a": (1, 2)}, Frozen("a"), [Frozen("a")], {1}, object()])
def test_what_would_come_back_as_something_else_is_refused(value: Any) -> None:
    """A Struct that comes back as a dict fails in the second process, a day later."""
    with pytest.raises(CacheValueInvalid):
        Coder("x").checked(value)


def test_typed_values_come_back_typed() -> None:
    value = Frozen("a", datetime(2026, 1, 1, tzinfo=UTC))
    coder = Coder("x", Frozen)

    assert value == coder.value_of(coder.checked(value))
    with pytest.raises(CacheValueInvalid, match="Open"):
        coder.checked(Open(["a"]))
    assert coder.fingerprint != Coder("x", Open).fingerprint


@given(st.binary(max_size=300))
def test_bytes_of_a_stranger_are_a_miss(raw: bytes) -> None:
    assert unpack(raw, b"f" * 8, 1000) is None
    assert unpack(ENTRY + raw, b"f" * 8, 1000) is None


def test_what_is_damaged_too_large_or_of_another_schema_is_a_miss() -> None:
    """A bomb of zeros would be a gigabyte; it is not unpacked beyond what a value may have."""
    body = b"z" * 100_000
    raw = packed(body)
    bomb = zlib.compress(b"\0" * 10_000_000)
    poisoned = ENTRY + raw[1:25] + msgspec.msgpack.encode(Envelope(FORMAT, b"f" * 8, 1, 3, 4, (), ZLIB, bomb))

    assert len(raw) < 1000
    assert unpack(raw, b"f" * 8, 100_000) is not None
    assert [None] * 5 == [
        unpack(raw, b"f" * 8, 99_999),
        unpack(raw, b"g" * 8, 100_000),
        unpack(raw[:-3], b"f" * 8, 100_000),
        unpack(poisoned, b"f" * 8, 100_000),
        unpack(TOMBSTONE + raw[1:], b"f" * 8, 100_000),
    ]


@pytest.mark.parametrize(
    ("value", "is_so"),
    [
        ("a", True),
        ((1, (b"x", None)), True),
        ([1], False),
        ((1, [2]), False),
        (Frozen("a"), True),
        (Open([]), False),
        (Holder((1, 2)), True),
        (Holder([1]), False),
    ],
)
def test_only_what_nobody_can_change_is_shared(value: Any, is_so: bool) -> None:
    assert is_so is is_immutable(value)


def test_keys_of_calls() -> None:
    async def load(sku: str, lang: str = "en", page: int = 1) -> None: ...

    key = KeyMaker("x", "100%:{sku}:{page}", load)

    assert "100%:a:1" == key(("a",), {})
    assert "100%:a:2" == key(("a",), {"page": 2})
    assert key(("a:1", "en", 2), {}) != key(("a", "en", "1:2"), {})
    with pytest.raises(TypeError, match="sku=list"):
        key(([],), {})
    with pytest.raises(CacheConfigError, match="no parameter of"):
        KeyMaker("x", "{other}", load)
