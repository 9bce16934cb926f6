"""Putting right what a message says, with all that tells where it came from left as it is.

The body alone is edited: id, source, key and trace headers say whose message it is and where it belongs. What comes out
has a new id, since effects of the old one may have happened under it, and names that in a header.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from spoolproof.codec import DecodeFailure
from spoolproof.errors import Conflict, InvalidMessage
from spoolproof.message import EDIT_OF, Message, check_message
from spoolproof.urls import MASK

Decode = Callable[[Message], object]
"""Reads a message as its type is registered; raises DecodeFailure."""


def with_fields(body: bytes, changes: Mapping[str, object]) -> bytes:
    """Return a JSON object with some fields set, by dotted path. Raises InvalidMessage, for a body that is none too."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidMessage("body", body[:60], "is not JSON; give the whole of it instead (--body FILE)") from error
    for path, value in changes.items():
        *parents, name = path.split(".")
        place: Any = document
        for parent in parents:
            place = place.get(parent) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            raise InvalidMessage("set", path, "there is no such object in the body; give the whole of it (--body FILE)")
        place[name] = value
    return msgspec.json.encode(document)


def edited(message: Message, body: bytes, id: str, *, decode: Decode | None, force: bool) -> Message:
    """Return the message with another body, under a new id. Raises InvalidMessage for one that its consumer could not
    read, unless forced, or that holds the mask of a secret; and Conflict if nothing changes."""
    if body == message.body:
        raise Conflict("the edit changes nothing")
    if body.count(MASK.encode()) > message.body.count(MASK.encode()):
        remedy = "it was taken from a masked view: take it from `dlq show ID --payload`, or use --set"
        raise InvalidMessage("body", body[:60], f"has {MASK} where a secret stood; {remedy}")
    headers = {**message.headers, EDIT_OF: message.id}
    changed = msgspec.structs.replace(message, id=id, body=body, headers=headers)
    check_message(msgspec.structs.replace(changed, type=changed.type or "-"))  # a foreign one may have no type
    if force:
        return changed
    if decode is None:
        remedy = "name the service that reads it (--service MODULE:SERVICE), or keep it unread (--force)"
        raise InvalidMessage("service", None, remedy)
    try:
        decode(changed)
    except DecodeFailure as failure:
        raise InvalidMessage(
            "body", body[:60], f"{failure}; correct it, or keep it all the same (--force)"
        ) from failure
    return changed


def difference(before: bytes, after: bytes) -> str:
    """Return what an edit changes, as a unified diff of indented JSON where both are JSON; "" if nothing."""
    lines = difflib.unified_diff(_lines(before), _lines(after), "original", "edited", lineterm="", n=2)
    return "\n".join(lines)


def _lines(body: bytes) -> list[str]:
    try:
        return msgspec.json.format(body, indent=2).decode().splitlines()
    except (msgspec.DecodeError, UnicodeDecodeError):
        return body.decode(errors="backslashreplace").splitlines()
