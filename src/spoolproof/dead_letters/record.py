"""Building the dead letter of a consumer's message."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from spoolproof import limits
from spoolproof.caught import class_name, error_text, stack_of, storable_text
from spoolproof.dead_letters.fingerprint import fingerprint_of
from spoolproof.destination import to_queue
from spoolproof.message import HISTORY, OWN_HEADERS, REPLY_TO, Message
from spoolproof.ports.dead_letters import Attempt, DeadLetterRecord

_history_decoder = msgspec.json.Decoder(list[Attempt])
_HISTORY_ERROR_CHARACTERS = 200  #: of each attempt carried in a header, so that 20 attempts stay under 8 KiB


def attempt_of(error: BaseException, now: datetime, host: str) -> Attempt:
    """Return the history entry of one failed attempt."""
    return Attempt(at=now, error_class=class_name(error), error=error_text(error, _HISTORY_ERROR_CHARACTERS), host=host)


def history_of(message: Message) -> tuple[Attempt, ...]:
    """Return the newest failed attempts a message carries, oldest first; empty if there are none or they cannot be
    read. Anybody may have written them."""
    text = message.headers.get(HISTORY)
    if not isinstance(text, str) or len(text) > limits.HEADERS_BYTES_MAX:
        return ()
    try:
        attempts = _history_decoder.decode(text)[-limits.ATTEMPT_HISTORY_MAX :]
        return tuple(msgspec.structs.replace(one, at=one.at.astimezone(UTC)) for one in attempts)
    except (msgspec.MsgspecError, RecursionError, ValueError, OverflowError):
        return ()


def history_text(attempts: Sequence[Attempt]) -> str:
    """Return the header that carries the newest 20 attempts."""
    return msgspec.json.encode(list(attempts)[-limits.ATTEMPT_HISTORY_MAX :]).decode()


def consumer_dead_letter(
    *,
    id: str,
    queue: str,
    message: Message,
    message_id: str,
    reason: str,
    error: BaseException | None,
    detail: str,
    attempts: Sequence[Attempt],
    now: datetime,
) -> DeadLetterRecord:
    """Return the record of a message a consumer gave up on; a replay sends it to this queue alone.

    message_id: the message's id, or a new one for a message that has none. detail: what `error` does not say, put
    before its text; may be empty beside an error.
    """
    kept = tuple(attempts)[-limits.ATTEMPT_HISTORY_MAX :]
    return DeadLetterRecord(
        id=id,
        consumer=queue,
        message=_storable(message, message_id),
        destination=to_queue(queue),
        routing_key=None,
        reason=reason,
        fingerprint=fingerprint_of(reason, error),
        error_class=class_name(error) if error is not None else reason,
        error=detail if error is None else _joined(detail, error_text(error)),
        stack=stack_of(error) if error is not None else "",
        first_failed_at=kept[0].at if kept else now,
        last_failed_at=now,
        attempts=kept,
    )


def _joined(detail: str, text: str) -> str:
    return f"{storable_text(detail)} ({text})" if detail else text


def _storable(message: Message, message_id: str) -> Message:
    """Return the message without our own headers and with text any store can keep: failing to record a failure would
    loop for ever. A foreign field may be of any length; an index, and the replay, take no more than we send."""
    texts = {
        name: shortened(storable_text(value))
        for name in message.__struct_fields__
        if isinstance(value := getattr(message, name), str)
    }
    headers = {
        shortened(storable_text(name)): storable_text(value) if isinstance(value, str) else value
        for name, value in message.headers.items()
        if name not in OWN_HEADERS and name != REPLY_TO  # nobody waits for the answer to a replay
    }
    return msgspec.structs.replace(message, **{**texts, "id": shortened(storable_text(message_id)), "headers": headers})


def shortened(text: str) -> str:
    """Return a text of at most 255 bytes; a longer one is cut and ends in the start of its hash, so that two that
    differ still do."""
    encoded = text.encode()
    if len(encoded) <= limits.SHORT_TEXT_BYTES_MAX:
        return text
    digest = hashlib.sha256(encoded).hexdigest()[:16]
    return f"{encoded[: limits.SHORT_TEXT_BYTES_MAX - 20].decode(errors='ignore')}…{digest}"
