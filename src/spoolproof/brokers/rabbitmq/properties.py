"""A message to AMQP 0-9-1 properties and back: pure functions.

CloudEvents' own AMQP binding is for AMQP 1.0; this mapping is ours. id, type, content type and correlation id are
ordinary properties, so that a consumer without Spoolproof finds them where it looks; other attributes are headers
`cloudEvents_<name>`, accepted also as `cloudEvents:`, `ce-` and `ce_`.

What the broker writes (`x-death` and its kin) and what would make it route, address or expire a copy differently
never enters `Message.headers`: a kept `CC` delivers a retry copy to other queues too. Of these the broker's own word is
believed, a publisher's never: a delivery count only of what was delivered before, a reason of death only if there is
such a one.

Must change together: `message.Message`, `to_properties`, `from_properties`.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

import msgspec

from spoolproof import limits
from spoolproof.brokers.rabbitmq.encoding import encode_properties
from spoolproof.errors import EncodeError
from spoolproof.message import HeaderValue, Message

DELIVERY_COUNT: Final = "x-delivery-count"
DEAD_REASON: Final = "x-first-death-reason"
_BROKER_HEADERS: Final = frozenset({"cc", "bcc", "user_id", "expiration", DELIVERY_COUNT, "x-acquired-count"})
_BROKER_PREFIXES: Final = ("x-death", "x-first-death-", "x-last-death-")
_DEATHS: Final = frozenset({"rejected", "expired", "maxlen", "delivery_limit"})
"""Why RabbitMQ dead-letters; it keeps the header of a publisher who wrote one before."""
_ROUTING_HEADERS: Final = frozenset({"CC", "BCC"})

_PREFIXES: Final = ("cloudEvents_", "cloudEvents:", "ce-", "ce_")
_ATTRIBUTES: Final = frozenset(
    {
        *("id", "type", "source", "time", "subject", "datacontenttype", "schemaversion", "partitionkey"),
        *("correlationid", "causationid", "tenant", "expiresat", "specversion"),
    }
)
_TRACE: Final = frozenset({"traceparent", "tracestate"})
_TRACE_CHARACTERS_MAX: Final = 512
"""Trace Context, section 3.3.1.5: longer ones need not be propagated, and may only be dropped whole."""
_INT64_MAX: Final = 2**63 - 1
_STRUCTURED: Final = "application/cloudevents+json"
_PLAIN_ENCODINGS: Final = frozenset({"", "utf-8", "utf8", "us-ascii", "ascii", "binary", "identity", "8bit"})
_INFLATED_BYTES_MAX: Final = 10 * limits.BODY_BYTES_MAX
_MILLISECONDS_FROM: Final = 100_000_000_000
"""As seconds this is the year 5138; a larger timestamp was written in milliseconds."""


def to_properties(message: Message) -> bytes:
    """Return the encoded properties of a message. Raises EncodeError for a header that would change its routing, and
    what `encoding` raises for what does not fit."""
    headers: dict[str, HeaderValue] = {
        "cloudEvents_source": message.source,
        "cloudEvents_time": message.time.isoformat(timespec="microseconds"),
    }
    if message.schemaversion != 1:
        headers["cloudEvents_schemaversion"] = message.schemaversion
    if message.subject is not None:
        headers["cloudEvents_subject"] = message.subject
    if message.key is not None:
        headers["cloudEvents_partitionkey"] = message.key
    if message.causation_id is not None:
        headers["cloudEvents_causationid"] = message.causation_id
    if message.tenant is not None:
        headers["cloudEvents_tenant"] = message.tenant
    if message.expires_at is not None:
        headers["cloudEvents_expiresat"] = message.expires_at.isoformat(timespec="microseconds")
    if message.traceparent is not None:
        headers["traceparent"] = message.traceparent
    if message.tracestate is not None:
        headers["tracestate"] = message.tracestate
    if message.headers:
        if not _ROUTING_HEADERS.isdisjoint(message.headers):
            raise EncodeError("headers CC and BCC would send the message to other queues too; choose another name")
        headers.update(message.headers)
    seconds = int(message.time.timestamp())
    return encode_properties(
        content_type=message.datacontenttype,
        headers=headers,
        correlation_id=message.correlation_id,
        message_id=message.id or None,
        timestamp=seconds if seconds >= 0 else None,
        type=message.type or None,
        app_id=message.source if len(message.source) <= 63 else None,  # at most 255 bytes; the header has it whole
    )


@dataclass(frozen=True, slots=True)
class Received:
    """A message and what the broker said of it. fault: why the message could not be read as it should."""

    message: Message
    delivery_count: int
    dead_reason: str | None
    fault: str | None


def from_properties(properties: Any, body: bytes, *, is_redelivered: bool, now: datetime) -> Received:
    """Return what arrived. What a foreign publisher got wrong becomes `fault`, with the body as it came."""
    attributes: dict[str, Any] = {}
    headers: dict[str, HeaderValue] = {}
    delivery_count, dead_reason = int(is_redelivered), None
    for name, value in (properties.headers or {}).items():
        if isinstance(name, bytes):  # pika leaves what is not UTF-8
            name = name.decode(errors="replace")
        attribute = _attribute_of(name)
        if attribute is not None:
            attributes[attribute] = value
        elif name == DELIVERY_COUNT:
            if is_redelivered and isinstance(value, int) and value > 0:
                delivery_count = int(value)
        elif name == DEAD_REASON:
            dead_reason = value if isinstance(value, str) and value in _DEATHS else None
        elif not _is_the_brokers(name):
            headers[_clean(name)] = _header_value(value)
    fault = None
    encoding = _text(properties.content_encoding or "").lower()
    if encoding == "gzip":
        body, fault = _inflate(body)
    elif encoding not in _PLAIN_ENCODINGS:
        fault = f"content_encoding={encoding!r} is not supported; send the body plain or gzip"
    content_type = _text(properties.content_type) if properties.content_type is not None else None
    if fault is None and content_type is not None and content_type.lower().startswith(_STRUCTURED):
        body, content_type, fault = _unwrap(body, attributes, headers, content_type)
    return Received(
        _message(properties, attributes, headers, content_type, body, now), delivery_count, dead_reason, fault
    )


def unreadable(raw: bytes, reason: str, body: bytes, *, is_redelivered: bool, now: datetime) -> Received:
    """Return a delivery whose properties no decoder could read; the raw bytes are in header `raw-properties`."""
    headers: dict[str, HeaderValue] = {"raw-properties": base64.b64encode(raw).decode()}
    message = Message(id="", type="", source="", time=now, body=body, datacontenttype=None, headers=headers)
    return Received(message, int(is_redelivered), None, reason)


def _message(
    properties: Any,
    attributes: Mapping[str, Any],
    headers: dict[str, HeaderValue],
    content_type: str | None,
    body: bytes,
    now: datetime,
) -> Message:
    values = {name: _text(value) for name, value in attributes.items() if value is not None}
    for name, value in (
        ("id", properties.message_id),
        ("type", properties.type),
        ("correlationid", properties.correlation_id),
    ):
        if value is not None:
            values[name] = _text(value)
    text = values.get
    return Message(
        id=text("id", ""),
        type=text("type", ""),
        source=text("source") or _text(properties.app_id or ""),
        time=_moment(attributes.get("time")) or _from_timestamp(properties.timestamp) or now,
        body=body,
        subject=text("subject"),
        datacontenttype=content_type,
        schemaversion=_whole_number(attributes.get("schemaversion", 1)),
        key=text("partitionkey"),
        correlation_id=text("correlationid"),
        causation_id=text("causationid"),
        tenant=text("tenant"),
        expires_at=_moment(attributes.get("expiresat")),
        traceparent=_traced(text("traceparent")),
        tracestate=_traced(text("tracestate")),
        headers=headers,
    )


def _traced(value: str | None) -> str | None:
    """Return a trace header, or None for one too long to hand on: what a handler publishes would carry it too."""
    return None if value is None or len(value) > _TRACE_CHARACTERS_MAX else value


@lru_cache(maxsize=1024)  # the names are few, and asked for with every message
def _attribute_of(name: str) -> str | None:
    if name in _TRACE:
        return name
    if name[:2] == "ce" or name[:2] == "cl":
        for prefix in _PREFIXES:
            if name.startswith(prefix):
                attribute = name[len(prefix) :].lower()
                return attribute if attribute in _ATTRIBUTES else None
    return None


@lru_cache(maxsize=1024)
def _is_the_brokers(name: str) -> bool:
    lowered = name.lower()
    return lowered in _BROKER_HEADERS or lowered.startswith(_BROKER_PREFIXES)


def _header_value(value: object) -> HeaderValue:
    """Return a header as text unless it is a number or a truth value. pika has cut fractions off floats already."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and -_INT64_MAX - 1 <= value <= _INT64_MAX:
        return int(value)  # pika's own subclass is not known to every encoder
    return _text(value)


def _text(value: object) -> str:
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, bytes | bytearray):
        try:
            return _clean(value.decode())
        except UnicodeDecodeError:
            return base64.b64encode(value).decode()
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Decimal | int | float):
        return str(value)
    try:
        return _clean(msgspec.json.encode(value, enc_hook=_text).decode())  # arrays, tables, void
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError):  # keys that are bytes, depth, …
        return _clean(repr(value))


def _clean(text: str) -> str:
    return text.replace("\0", "␀") if "\0" in text else text  # PostgreSQL text cannot hold a NUL


def _moment(value: object) -> datetime | None:
    if not isinstance(value, str):
        return _from_timestamp(value)
    try:
        moment = datetime.fromisoformat(value)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):  # the second near the years 1 and 9999
        return None


def _from_timestamp(value: object) -> datetime | None:
    if isinstance(value, datetime):
        return value.astimezone(UTC)  # pika's, so from 1970 on
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    try:
        return datetime.fromtimestamp(value / 1000 if value >= _MILLISECONDS_FROM else value, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def _whole_number(value: object) -> int:
    try:
        number = int(value) if isinstance(value, int | str) else 1
    except ValueError:
        return 1
    return number if 0 < number < 2**31 else 1


def _inflate(body: bytes) -> tuple[bytes, str | None]:
    inflater = zlib.decompressobj(wbits=31)
    try:
        inflated = inflater.decompress(body, _INFLATED_BYTES_MAX)
    except zlib.error as error:
        return body, f"content_encoding='gzip', but the body is not: {error}"
    if inflater.unconsumed_tail:
        return body, f"the gzip body inflates to more than {_INFLATED_BYTES_MAX} bytes"
    if not inflater.eof:
        return body, "the gzip body is cut short"
    return inflated, None


class _Structured(msgspec.Struct):
    """A CloudEvents JSON document (CloudEvents 1.0.2, JSON format, section 3)."""

    data: msgspec.Raw = msgspec.Raw(b"")
    data_base64: str | None = None


def _unwrap(
    body: bytes, attributes: dict[str, Any], headers: dict[str, HeaderValue], content_type: str
) -> tuple[bytes, str | None, str | None]:
    """Return body, content type and fault of a structured CloudEvent; its attributes go into `attributes`."""
    try:
        document = msgspec.json.decode(body, type=dict[str, Any])
        parts = msgspec.json.decode(body, type=_Structured)
        is_text = isinstance(document.get("data"), str)
        data_type = document.get("datacontenttype") or "application/json"
        if not isinstance(data_type, str):
            raise TypeError(f"datacontenttype={data_type!r} is not text")
        if parts.data_base64 is not None:
            data = base64.b64decode(parts.data_base64, validate=True)
        elif is_text and "json" not in data_type:
            data = document["data"].encode()
        else:
            data = bytes(parts.data)
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        return body, content_type, f"content_type={_STRUCTURED!r}, but the body is not: {error}"
    for name, value in document.items():
        if name in _ATTRIBUTES or name in _TRACE:
            attributes.setdefault(name, value)
        elif name not in ("data", "data_base64") and not _is_the_brokers(name):
            headers.setdefault(_clean(name), _header_value(value))
    return data, data_type, None
