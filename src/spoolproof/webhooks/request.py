"""What is sent for an event, as Standard Webhooks says: the body, and the headers of one attempt."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime

import msgspec

from spoolproof.errors import EncodeError
from spoolproof.ids import derived_id
from spoolproof.message import Message
from spoolproof.webhooks.signature import ID, SIGNATURE, TIMESTAMP, sign

_PLAIN_ID = re.compile(r"[A-Za-z0-9_:/+=-]+")


def body_of(message: Message) -> bytes:
    """Return the body, the same each time. Raises EncodeError for a message whose own body is not JSON."""
    try:
        msgspec.json.decode(message.body)
    except msgspec.DecodeError as error:
        raise EncodeError(f"message {message.id!r}: its body is not JSON ({error}), which a webhook carries") from error
    fields = {"type": message.type, "timestamp": message.time, "data": msgspec.Raw(message.body)}
    return msgspec.json.encode(fields)


def id_of(message: Message) -> str:
    """Return the `webhook-id`: the message's id, or one made from it where a dot would end the id in what is signed."""
    return message.id if _PLAIN_ID.fullmatch(message.id) else derived_id(message.id)


def headers_of(message: Message, body: bytes, keys: Iterable[bytes], now: datetime) -> dict[str, str]:
    """Return the headers of an attempt made now, signed with every key."""
    id, timestamp = id_of(message), int(now.timestamp())
    return {
        "content-type": "application/json",
        "user-agent": "spoolproof",
        ID: id,
        TIMESTAMP: str(timestamp),
        SIGNATURE: sign(id, timestamp, body, keys),
    }
