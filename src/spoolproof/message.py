"""The message: CloudEvents 1.0 fields plus what ordering and tracing need, and where it is going.

Fields and their meaning: CloudEvents 1.0.2, sections "Context Attributes" and the partitioning and distributed
tracing extensions. The body is the payload alone, never an envelope, so a consumer without Spoolproof can read it.

Must change together: the fields of Message, `_Meta`, and the property mapping of each broker adapter.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from spoolproof import limits
from spoolproof.destination import EVENTS, Destination, destination_of
from spoolproof.errors import InvalidMessage, MessageTooLarge
from spoolproof.ids import derived_id, is_uuid

HeaderValue = str | int | bool

ATTEMPT: Final = "spoolproof-attempt"
FIRST_FAILED_AT: Final = "spoolproof-first-failed-at"
FIRST_DEFERRED_AT: Final = "spoolproof-first-deferred-at"
FIRST_UNKNOWN_AT: Final = "spoolproof-first-unknown-at"
REPLAY_OF: Final = "spoolproof-replay-of"
REPLAY_NO: Final = "spoolproof-replay-no"
EDIT_OF: Final = "spoolproof-edit-of"
HISTORY: Final = "spoolproof-history"
REPLY_TO: Final = "spoolproof-reply-to"
"""On a request: the queue its answer goes to."""
OWN_HEADERS: Final = frozenset(
    {ATTEMPT, FIRST_FAILED_AT, FIRST_DEFERRED_AT, FIRST_UNKNOWN_AT, REPLAY_OF, REPLAY_NO, EDIT_OF, HISTORY}
)
"""Headers Spoolproof sets on copies and replays; a publisher may not set them."""

JSON_CONTENT_TYPE: Final = "application/json"


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One event or command, immutable.

    id: unique per source, at most 255 bytes; a version 7 UUID unless given. A publish repeated with the same id has
    its effects once. type: stable wire name. key: ordering key; messages with the same key and destination arrive in
    publish order. time, expires_at: timezone-aware UTC. headers: at most 64 entries of str, int or bool.
    An incoming foreign message may have an empty `id` or `type`.
    """

    id: str
    type: str
    source: str
    time: datetime
    body: bytes
    subject: str | None = None
    datacontenttype: str | None = JSON_CONTENT_TYPE
    schemaversion: int = 1
    key: str | None = None
    correlation_id: str | None = None
    causation_id: str | None = None
    tenant: str | None = None
    expires_at: datetime | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    headers: dict[str, HeaderValue] = {}


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
    """A message and where it goes.

    routing_key: the type if None; of a delayed copy the queue it returns to.
    may_be_unrouted: a return counts as delivered (an event nobody subscribes to yet).
    due: not before that time, or that long after the store has it; None: at once.
    """

    message: Message
    destination: Destination = EVENTS
    routing_key: str | None = None
    may_be_unrouted: bool = False
    due: datetime | timedelta | None = None


class _Meta(msgspec.Struct, omit_defaults=True):
    """What a stored row keeps of a message beside its own columns."""

    source: str
    time: datetime
    subject: str | None = None
    datacontenttype: str | None = JSON_CONTENT_TYPE
    schemaversion: int = 1
    correlation_id: str | None = None
    causation_id: str | None = None
    tenant: str | None = None
    expires_at: datetime | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    headers: dict[str, HeaderValue] = {}
    may_be_unrouted: bool = False


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Meta)


def pack_meta(message: Message, *, may_be_unrouted: bool = False) -> str:
    """Return the JSON text a store keeps in its `headers` column; `unpack_message` is the inverse."""
    return _encoder.encode(
        _Meta(
            source=message.source,
            time=message.time,
            subject=message.subject,
            datacontenttype=message.datacontenttype,
            schemaversion=message.schemaversion,
            correlation_id=message.correlation_id,
            causation_id=message.causation_id,
            tenant=message.tenant,
            expires_at=message.expires_at,
            traceparent=message.traceparent,
            tracestate=message.tracestate,
            headers=message.headers,
            may_be_unrouted=may_be_unrouted,
        )
    ).decode()


def unpack_message(*, message_id: str, type: str, key: str | None, meta: str | bytes, body: bytes) -> Message:
    """Return the message of a stored row. Raises msgspec.DecodeError if `meta` was not written by `pack_meta`."""
    return _message(message_id, type, key, _decoder.decode(meta), body)


def unpack_outgoing(
    *,
    message_id: str,
    type: str,
    key: str | None,
    meta: str | bytes,
    body: bytes,
    destination: str,
    routing_key: str | None,
) -> Outgoing:
    """Return the outgoing message of a stored row; the inverse of `pack_meta` and its columns."""
    fields = _decoder.decode(meta)
    return Outgoing(
        message=_message(message_id, type, key, fields, body),
        destination=destination_of(destination),
        routing_key=routing_key,
        may_be_unrouted=fields.may_be_unrouted,
    )


def _message(message_id: str, type: str, key: str | None, fields: _Meta, body: bytes) -> Message:
    return Message(
        id=message_id,
        type=type,
        key=key,
        body=body,
        source=fields.source,
        time=fields.time,
        subject=fields.subject,
        datacontenttype=fields.datacontenttype,
        schemaversion=fields.schemaversion,
        correlation_id=fields.correlation_id,
        causation_id=fields.causation_id,
        tenant=fields.tenant,
        expires_at=fields.expires_at,
        traceparent=fields.traceparent,
        tracestate=fields.tracestate,
        headers=fields.headers,
    )


def is_json(content_type: str) -> bool:
    """Tell whether a media type is JSON, of whatever kind; an empty one says nothing against it."""
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type in ("", "application/json", "text/json") or media_type.endswith("+json")


def message_key(message: Message) -> str | None:
    """Return a UUID that is equal for every copy of this message and for no other; None for one without an id.

    An id is unique per source (CloudEvents 1.0.2, "id"), so by itself it says nothing: two services may use one UUID,
    that of the order, for different events. A false duplicate is a loss.
    """
    return derived_id(message.source, message.type, message.id) if message.id else None


def earlier_key(message: Message) -> str | None:
    """Return the key the release before gave this message, where that was another: the bare id when it is a UUID."""
    return message.id.lower() if is_uuid(message.id) else None


def shard_of(message: Message, shards: int) -> int:
    """Return the shard (0 to shards - 1) that keeps all messages of one ordering key in one place."""
    return zlib.crc32((message.key or message.id).encode()) % shards


_SHORT_FIELDS: Final = (
    "id",
    "type",
    "source",
    "subject",
    "key",
    "correlation_id",
    "causation_id",
    "tenant",
    "datacontenttype",
)
_INT64_MAX: Final = 2**63 - 1
_RESERVED_PREFIXES: Final = (
    *("spoolproof-", "cloudevents_", "cloudevents:", "ce-", "ce_"),
    *("x-death", "x-first-death-", "x-last-death-"),
)
_RESERVED_HEADERS: Final = frozenset(
    {
        *("traceparent", "tracestate", "x-delivery-count", "x-acquired-count"),
        *("cc", "bcc", "user_id", "expiration"),
    }
)
"""What a broker would read, write or drop."""


def check_message(message: Message) -> None:
    """Refuse a message that some broker or store could not carry; the one gate every publish passes.

    Raises InvalidMessage naming the field, or MessageTooLarge.
    """
    if not _is_plain(message):
        for name in _SHORT_FIELDS:
            value = getattr(message, name)
            if value is not None:
                check_short_text(name, value)
    if not message.id or not message.type or not message.source or message.key == "":
        empty = next(name for name in ("id", "type", "source", "key") if getattr(message, name) == "")
        raise InvalidMessage(empty, "", "must not be empty")
    if message.time.tzinfo is not UTC or message.expires_at is not None:
        _check_moments(message)
    if len(message.body) > limits.BODY_BYTES_MAX:
        reason = f"{len(message.body)} bytes, at most {limits.BODY_BYTES_MAX}; store it elsewhere and send its address"
        raise MessageTooLarge("body", message.body[:32], reason)
    if message.headers:
        _check_headers(message.headers)


def _is_plain(message: Message) -> bool:
    """Tell whether the short texts are so short and plain, taken together, that none need be looked at by itself."""
    subject, key, tenant = message.subject, message.key, message.tenant
    correlation_id, causation_id, content_type = (
        message.correlation_id,
        message.causation_id,
        message.datacontenttype,
    )
    try:
        together = "".join(
            (
                message.id,
                message.type,
                message.source,
                "" if key is None else key,
                "" if subject is None else subject,
                "" if correlation_id is None else correlation_id,
                "" if causation_id is None else causation_id,
                "" if tenant is None else tenant,
                "" if content_type is None else content_type,
            )
        )
    except TypeError:
        return False
    return len(together) <= limits.SHORT_TEXT_BYTES_MAX and together.isascii() and "\0" not in together


def _check_moments(message: Message) -> None:
    for name in ("time", "expires_at"):
        moment = getattr(message, name)
        if moment is not None and moment.utcoffset() is None:
            raise InvalidMessage(name, moment, "has no time zone; use datetime.now(UTC)")


def check_short_text(name: str, value: object) -> None:
    """Refuse what AMQP cannot carry as a short string or PostgreSQL as text. Raises InvalidMessage."""
    if not isinstance(value, str):
        raise InvalidMessage(name, value, f"must be text, not {value.__class__.__name__}")
    if len(value) > 63 and len(_utf8(name, value)) > limits.SHORT_TEXT_BYTES_MAX:
        raise InvalidMessage(name, value, f"is over {limits.SHORT_TEXT_BYTES_MAX} bytes of UTF-8")
    if not value.isascii():
        _utf8(name, value)
    if "\0" in value:
        raise InvalidMessage(name, value, "contains a NUL character, which PostgreSQL text cannot hold")


def _utf8(name: str, value: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise InvalidMessage(name, value, f"is not valid Unicode ({error.reason})") from error


def _check_headers(headers: Mapping[str, object]) -> None:
    if len(headers) > limits.HEADERS_COUNT_MAX:
        raise MessageTooLarge("headers", len(headers), f"at most {limits.HEADERS_COUNT_MAX} entries")
    size = 0
    for name, value in headers.items():
        check_short_text("headers", name)
        field = f"headers[{name!r}]"
        if isinstance(value, str):
            if "\0" in value:
                raise InvalidMessage(field, value, "contains a NUL character, which PostgreSQL text cannot hold")
            size += len(_utf8(field, value))
        elif not isinstance(value, int):
            raise InvalidMessage(field, value, f"must be str, int or bool, not {type(value).__name__}")
        elif not -_INT64_MAX - 1 <= value <= _INT64_MAX:
            raise InvalidMessage(field, value, "does not fit 64 bits")
        size += len(name)
    if size > limits.HEADERS_BYTES_MAX:
        raise MessageTooLarge("headers", size, f"bytes together, at most {limits.HEADERS_BYTES_MAX}")


def check_user_headers(headers: Mapping[str, object]) -> None:
    """Refuse what is no mapping, and header names that belong to the protocol or a broker. Raises InvalidMessage."""
    if not isinstance(headers, Mapping):
        raise InvalidMessage("headers", headers, "must be a dict of header names and values")
    for name in headers:
        if not isinstance(name, str):
            raise InvalidMessage("headers", name, "header names are text")
        lowered = name.lower()
        if not name:
            raise InvalidMessage("headers", name, "a header needs a name")
        if lowered.startswith(_RESERVED_PREFIXES) or lowered in _RESERVED_HEADERS:
            raise InvalidMessage("headers", name, "this name or prefix belongs to the protocol; choose another name")


def as_utc(moment: datetime) -> datetime:
    """Return an aware datetime in UTC."""
    return moment.astimezone(UTC)
