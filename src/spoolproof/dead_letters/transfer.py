"""Dead letters as lines of JSON, to be kept elsewhere or taken to another store. What comes in is checked as a whole
before any of it is written: a file that is cut in the middle of a line must not be half there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import msgspec

from spoolproof.destination import destination_of
from spoolproof.errors import InvalidMessage
from spoolproof.ids import is_uuid
from spoolproof.message import check_message, check_short_text
from spoolproof.ports.dead_letters import DeadLetterDetails, DeadLetterState

SCHEMA = "spoolproof.dead_letter/1"


class Line(msgspec.Struct, kw_only=True):
    """One line of a file."""

    schema: str
    letter: DeadLetterDetails


_decoder = msgspec.json.Decoder(Line)


def line_of(letter: DeadLetterDetails) -> str:
    """Return one dead letter, whole, as one line."""
    return msgspec.json.encode(Line(schema=SCHEMA, letter=letter)).decode()


def letters_of(lines: Iterable[bytes]) -> Iterator[DeadLetterDetails]:
    """Yield what is on each line that is not empty, as open. Raises InvalidMessage naming the first that is not one."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _letter_of(line, f"line {number}")


def _letter_of(line: bytes, where: str) -> DeadLetterDetails:
    try:
        found = _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise InvalidMessage(where, line[:40], f"is no dead letter as `dlq export` writes it: {error}") from error
    record = found.letter.record
    if found.schema != SCHEMA or not is_uuid(record.id):
        raise InvalidMessage(
            where, record.id, f"schema {found.schema!r}: this release reads {SCHEMA} with a UUID as id"
        )
    message = record.message
    check_message(msgspec.structs.replace(message, body=b"", type=message.type or "-"))  # as large as it was
    for name in ("consumer", "reason", "fingerprint", "service"):
        check_short_text(f"{where}: {name}", getattr(record, name))
    record = replace(
        record,
        destination=destination_of(record.destination.text),
        state=DeadLetterState.OPEN,
        closed_at=None,
        note=None,
        replayed_at=None,
    )
    return DeadLetterDetails(record, found.letter.audit)
