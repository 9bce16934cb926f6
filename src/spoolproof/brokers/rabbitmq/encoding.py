"""The bytes of a publish and of an ack: AMQP 0-9-1 frames and content properties. Pure.

pika encodes them through a dozen small objects and lists, which costs more than everything else a publish does. Source:
AMQP 0-9-1 specification, sections 4.2.3 (frames), 4.2.5 (fields) and 4.2.6 (content), and the field types of RabbitMQ's
errata to it. Only what a Message holds is encoded; pika still reads everything that arrives.

Must never happen: a length that is not checked. A wrong one makes the broker read the next message out of this one.
What does not fit raises struct.error, AttributeError, TypeError or ValueError, before anything was written.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

from spoolproof.message import HeaderValue

_METHOD, _HEADER, _BODY, _END = 1, 2, 3, b"\xce"
_BASIC, _PUBLISH, _ACK = 60, 40, 80
_MANDATORY = b"\x01"

_FRAME: Final = struct.Struct(">BHI")  # type, channel, bytes that follow without the end octet
_PUBLISH_HEAD: Final = struct.Struct(">BHIHHH")  # … class, method, reserved
_CONTENT_HEAD: Final = struct.Struct(">BHIHHQ")  # … class, weight, bytes of the body
_ACK_FRAME: Final = struct.Struct(">BHIHHQBB")  # … class, method, delivery tag, multiple, end octet
_ACK_BYTES: Final = _ACK_FRAME.size - _FRAME.size - len(_END)
_FRAME_EXTRA: Final = _FRAME.size + len(_END)
_PUBLISH_BYTES: Final = _PUBLISH_HEAD.size - _FRAME.size + len(_MANDATORY)
_CONTENT_BYTES: Final = _CONTENT_HEAD.size - _FRAME.size

_SHORT_MAX: Final = 255
_INT32_MAX: Final = 2**31 - 1
_LENGTH: Final = struct.Struct(">I")
_FLAGS: Final = struct.Struct(">H")
_TIMESTAMP: Final = struct.Struct(">Q")
_LONG_STRING: Final = struct.Struct(">cI")
_INT32: Final = struct.Struct(">ci")
_INT64: Final = struct.Struct(">cq")
_TRUTH: Final = {False: b"t\x00", True: b"t\x01"}

_CONTENT_TYPE, _HEADERS, _DELIVERY_MODE, _CORRELATION_ID = 1 << 15, 1 << 13, 1 << 12, 1 << 10
_MESSAGE_ID, _TIME, _TYPE, _APP_ID = 1 << 7, 1 << 6, 1 << 5, 1 << 3
_PERSISTENT: Final = b"\x02"


def publish_frames(
    channel: int, exchange: str, routing_key: str, properties: bytes, body: bytes, *, frame_max: int
) -> bytes:
    """Return a mandatory Basic.Publish with its content. frame_max: bytes of a whole frame, as negotiated."""
    target = _short(exchange) + _short(routing_key)
    size = len(body)
    if _FRAME_EXTRA + _CONTENT_BYTES + len(properties) > frame_max:
        # it would end the connection, and with it the confirms of everything else that is on its way
        room = frame_max - _FRAME_EXTRA - _CONTENT_BYTES
        raise ValueError(f"headers of {len(properties)} bytes, at most {room} (the broker's frame_max is {frame_max})")
    frames = [
        _PUBLISH_HEAD.pack(_METHOD, channel, _PUBLISH_BYTES + len(target), _BASIC, _PUBLISH, 0),
        target,
        _MANDATORY + _END,
        _CONTENT_HEAD.pack(_HEADER, channel, _CONTENT_BYTES + len(properties), _BASIC, 0, size),
        properties,
        _END,
    ]
    room = frame_max - _FRAME_EXTRA
    for start in range(0, size, room):
        part = body if size <= room else body[start : start + room]
        frames += (_FRAME.pack(_BODY, channel, len(part)), part, _END)
    return b"".join(frames)


def encode_properties(
    *,
    content_type: str | None,
    headers: Mapping[str, HeaderValue],
    correlation_id: str | None,
    message_id: str | None,
    timestamp: int | None,
    type: str | None,
    app_id: str | None,
) -> bytes:
    """Return flags and list of the properties of a persistent message. timestamp: seconds since 1970."""
    # the order is that of the specification: flags from the highest bit down, values in the order of their flags
    flags, values = _HEADERS | _DELIVERY_MODE, [b""]
    if content_type is not None:
        flags |= _CONTENT_TYPE
        values.append(_short(content_type))
    values += (_table(headers), _PERSISTENT)
    if correlation_id is not None:
        flags |= _CORRELATION_ID
        values.append(_short(correlation_id))
    if message_id is not None:
        flags |= _MESSAGE_ID
        values.append(_short(message_id))
    if timestamp is not None:
        flags |= _TIME
        values.append(_TIMESTAMP.pack(timestamp))
    if type is not None:
        flags |= _TYPE
        values.append(_short(type))
    if app_id is not None:
        flags |= _APP_ID
        values.append(_short(app_id))
    values[0] = _FLAGS.pack(flags)
    return b"".join(values)


def _short(text: str) -> bytes:
    encoded = text.encode()
    size = len(encoded)
    if size > _SHORT_MAX:
        raise ValueError(f"{text[:32]!r}… has {size} bytes of UTF-8, at most {_SHORT_MAX}")
    return bytes((size,)) + encoded


def _table(headers: Mapping[str, HeaderValue]) -> bytes:
    fields = b"".join([_short(name) + _field(value) for name, value in headers.items()])
    return _LENGTH.pack(len(fields)) + fields


def _field(value: HeaderValue) -> bytes:
    if isinstance(value, str):
        encoded = value.encode()
        return _LONG_STRING.pack(b"S", len(encoded)) + encoded
    if isinstance(value, bool):
        return _TRUTH[value]
    if isinstance(value, int):
        fits = -_INT32_MAX - 1 <= value <= _INT32_MAX
        return _INT32.pack(b"I", value) if fits else _INT64.pack(b"l", value)
    raise TypeError(f"header value {value!r} is not text, a whole number or a truth value")


def ack_frame(channel: int, tag: int) -> bytes:
    """Return the ack of one delivery, never of those before it (`multiple` is off)."""
    return _ACK_FRAME.pack(_METHOD, channel, _ACK_BYTES, _BASIC, _ACK, tag, 0, _END[0])
