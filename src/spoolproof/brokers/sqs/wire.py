"""A message as SQS and SNS carry it, and back: pure functions.

The body is the payload alone. Of the ten attributes a message may have we use two: `type`, by which others filter, and
`spoolproof`, JSON with all else. What cannot be text is base64, and `spoolproof` says so.

A foreign message has neither: its attributes are its headers, its id is what SQS gave it. One that SNS has wrapped,
because its subscription is not raw, is unwrapped.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

import msgspec

from spoolproof import limits
from spoolproof.caught import error_line
from spoolproof.errors import EncodeError
from spoolproof.message import Message, pack_meta, unpack_message

_TYPE, _OURS = "type", "spoolproof"
_NOT_TEXT: Final = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Source: SendMessage, "MessageBody". An empty body is refused too."""
_EMPTY: Final = "="  #: in place of the base64 of nothing
_TRACE: Final = ("traceparent", "tracestate")


class _Head(msgspec.Struct, omit_defaults=True):
    """The attribute `spoolproof`. due: not before this, in seconds since 1970. to: the queue it is on its way to."""

    id: str
    meta: msgspec.Raw
    type: str | None = None  #: where the attribute `type` says something else
    key: str | None = None
    encoding: str | None = None
    due: float | None = None
    to: str | None = None
    dead_reason: str | None = None


@dataclass(frozen=True, slots=True)
class Wire:
    """What is sent."""

    body: str
    type: str
    head: str

    @property
    def attributes(self) -> dict[str, dict[str, str]]:
        """The message attributes."""
        return {name: {"DataType": "String", "StringValue": text} for name, text in self._texts()}

    @property
    def size_bytes(self) -> int:
        """What counts against the limit: body, and names, types and values of attributes."""
        return len(self.body.encode()) + sum(
            len(name) + len("String") + len(text.encode()) for name, text in self._texts()
        )

    @property
    def digest(self) -> str:
        """A deduplication id: the same when the same is sent again, another for a retry copy or a replay, which a FIFO
        queue would drop within five minutes if it had the message's own id."""
        return sha256(f"{self.head}\n{self.body}".encode()).hexdigest()

    def _texts(self) -> tuple[tuple[str, str], tuple[str, str]]:
        return (_TYPE, self.type), (_OURS, self.head)


def encode(
    message: Message,
    *,
    routing_key: str | None = None,
    due: float | None = None,
    to: str | None = None,
    dead_reason: str | None = None,
) -> Wire:
    """Return what is sent of a message. Raises EncodeError when it is too large."""
    type = _NOT_TEXT.sub("\N{REPLACEMENT CHARACTER}", routing_key or message.type) or "?"
    body, encoding = _text_of(message.body)
    meta = msgspec.Raw(pack_meta(message).encode())
    given = message.type if message.type != type else None
    head = _Head(message.id, meta, given, message.key, encoding, due, to, dead_reason)
    text = msgspec.json.encode(head).decode()
    if not text.isascii():
        text = json.dumps(json.loads(text), separators=(",", ":"))  # a few characters no attribute may have
    wire = Wire(body, type, text)
    if wire.size_bytes > limits.SQS_MESSAGE_BYTES_MAX:
        raise EncodeError(
            f"message {message.id!r} has {wire.size_bytes} bytes with its attributes, at most "
            f"{limits.SQS_MESSAGE_BYTES_MAX} (SNS's limit); store the body elsewhere and send its address"
        )
    return wire


def _text_of(body: bytes) -> tuple[str, str | None]:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        text = ""
    if text and _NOT_TEXT.search(text) is None:
        return text, None
    return base64.b64encode(body).decode() or _EMPTY, "base64"


@dataclass(frozen=True, slots=True)
class Received:
    """What arrived. fault: why it could not be read as it should. due, to, dead_reason: as in the head."""

    message: Message
    fault: str | None = None
    due: float | None = None
    to: str | None = None
    dead_reason: str | None = None


def decode(raw: Mapping[str, Any], now: datetime) -> Received:
    """Return the message of one entry of ReceiveMessage."""
    body: str = raw["Body"]
    attributes = {
        name: value["StringValue"] for name, value in raw.get("MessageAttributes", {}).items() if "StringValue" in value
    }
    try:
        if not attributes and '"Notification"' in body:
            body, attributes = _unwrapped(body)
        if _OURS in attributes:
            return _ours(attributes[_OURS], body, attributes.get(_TYPE, ""))
    except Exception as error:  # what foreign bytes manage to break is that message's fault alone
        return Received(_foreign(raw, body, attributes, now), f"it cannot be read: {error_line(error)}")
    return Received(_foreign(raw, body, attributes, now))


def _ours(text: str, body: str, type: str) -> Received:
    if "\\u0000" in text:
        raise ValueError("a NUL, which no store can keep")
    head = msgspec.json.decode(text, type=_Head)
    data = body.encode()
    if head.encoding == "base64":
        data = b"" if body == _EMPTY else base64.b64decode(body, validate=True)
    message = unpack_message(
        message_id=head.id,
        type=type if head.type is None else head.type,
        key=head.key,
        meta=bytes(head.meta),
        body=data,
    )
    return Received(message, None, head.due, head.to, head.dead_reason)


def _foreign(raw: Mapping[str, Any], body: str, attributes: Mapping[str, str], now: datetime) -> Message:
    return Message(
        id=raw.get("MessageId", ""),
        type=attributes.get(_TYPE, ""),
        source="",
        time=now,
        body=body.encode(),
        datacontenttype=None,
        key=raw.get("Attributes", {}).get("MessageGroupId"),
        traceparent=attributes.get("traceparent"),
        tracestate=attributes.get("tracestate"),
        headers={name: value for name, value in attributes.items() if name not in (_TYPE, *_TRACE)},
    )


def _unwrapped(body: str) -> tuple[str, dict[str, str]]:
    document = json.loads(body)
    if not isinstance(document, dict) or document.get("Type") != "Notification" or "Message" not in document:
        return body, {}
    given = document.get("MessageAttributes", {})
    return document["Message"], {name: str(value["Value"]) for name, value in given.items()}
