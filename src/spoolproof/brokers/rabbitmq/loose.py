"""Reads content properties that pika cannot: what can be had of them, field by field.

One header with a timestamp in milliseconds, or of a type that nobody knows, must not cost a message its id and its
type. Source: AMQP 0-9-1 specification, section 4.2.6 (content), and the field types of RabbitMQ's errata to 4.2.5.

A field of an unknown type has an unknown length, so the rest of its table is lost with it; the properties after the
table are found again, because a table says how long it is.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final


class LooseProperties:
    """Properties by the names pika gives them. lost: what could not be read, for people."""

    def __init__(self) -> None:
        self.lost: list[str] = []
        self.headers: dict[str, Any] = {}
        self.content_type = self.content_encoding = self.correlation_id = self.message_id = None
        self.type = self.app_id = self.timestamp = None


def read_loosely(raw: bytes) -> LooseProperties:
    """Return what can be read of the property flags and list; `lost` names the rest."""
    found = LooseProperties()
    reader = _Reader(raw)
    try:
        flags = reader.number(">H")
        for bit, name, kind in _PROPERTIES:
            if flags & 1 << bit:
                value = reader.table(found.lost) if kind == "table" else reader.property(kind)
                setattr(found, name, value)
    except (struct.error, IndexError, ValueError) as error:
        found.lost.append(f"what follows ({error})")
    return found


_PROPERTIES: Final = (
    (15, "content_type", "text"),
    (14, "content_encoding", "text"),
    (13, "headers", "table"),
    (12, "delivery_mode", ">B"),
    (11, "priority", ">B"),
    (10, "correlation_id", "text"),
    (9, "reply_to", "text"),
    (8, "expiration", "text"),
    (7, "message_id", "text"),
    (6, "timestamp", ">Q"),
    (5, "type", "text"),
    (4, "user_id", "text"),
    (3, "app_id", "text"),
)

_NUMBERS: Final = {
    **{b"t": ">?", b"b": ">b", b"B": ">B", b"U": ">h", b"s": ">h", b"u": ">H", b"I": ">i", b"i": ">I"},
    **{b"L": ">q", b"l": ">q", b"f": ">f", b"d": ">d", b"T": ">Q"},
}


class _Reader:
    """Walks through the bytes. What is out of bounds raises struct.error, IndexError or ValueError."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, size: int) -> bytes:
        if self.at + size > len(self.data):
            raise ValueError(f"{size} bytes announced, {len(self.data) - self.at} left")
        taken = self.data[self.at : self.at + size]
        self.at += size
        return taken

    def number(self, form: str) -> Any:
        (value,) = struct.unpack(form, self.take(struct.calcsize(form)))
        return value

    def property(self, kind: str) -> Any:
        return self.take(self.take(1)[0]).decode(errors="replace") if kind == "text" else self.number(kind)

    def table(self, lost: list[str]) -> dict[str, Any]:
        inner = _Reader(self.take(self.number(">I")))
        values: dict[str, Any] = {}
        name = "its first header"
        try:
            while inner.at < len(inner.data):
                name = inner.take(inner.take(1)[0]).decode(errors="replace")
                values[name] = inner.field(lost)
        except (struct.error, IndexError, ValueError, RecursionError) as error:
            lost.append(f"header {name!r} and those behind it ({error})")
        return values

    def field(self, lost: list[str]) -> Any:
        kind = self.take(1)
        if kind in _NUMBERS:
            return self.number(_NUMBERS[kind])
        read = _OTHERS.get(kind)
        if read is None:
            raise ValueError(f"field type {kind!r} is not known")
        return read(self, lost)

    def array(self, lost: list[str]) -> list[Any]:
        inner = _Reader(self.take(self.number(">I")))
        values = []
        while inner.at < len(inner.data):
            values.append(inner.field(lost))
        return values

    def decimal(self, lost: list[str]) -> str:
        places, number = self.number(">B"), self.number(">i")
        return f"{number}e-{places}"

    def text(self, lost: list[str]) -> str:
        return self.take(self.number(">I")).decode(errors="replace")

    def bytes(self, lost: list[str]) -> bytes:
        return self.take(self.number(">I"))


_OTHERS: Final[dict[bytes, Callable[[_Reader, list[str]], Any]]] = {
    b"S": _Reader.text,
    b"x": _Reader.bytes,
    b"A": _Reader.array,
    b"F": _Reader.table,
    b"D": _Reader.decimal,
    b"V": lambda reader, lost: None,
}
