"""Which inbox key a message has: a pure rule.

A false duplicate is a loss, so an id is trusted by itself only when it is a UUID. Two foreign producers may both count
from 1: their ids become UUIDs derived from source, type and id. A message without an id has no key; it runs without
the inbox, at least once.
"""

from __future__ import annotations

from spoolproof.ids import derived_id, is_uuid
from spoolproof.message import Message


def inbox_key(message: Message) -> str | None:
    """Return a UUID that is equal for every delivery of this message and for no other; None without an id."""
    if not message.id:
        return None
    if is_uuid(message.id):
        return message.id.lower()
    return derived_id(message.source, message.type, message.id)
