"""Keeping a dead letter, or closing the one there is.

Whatever a foreign message holds, a row of it can be written: without its history if that is what the store refuses,
else without its headers, else with nothing but what it was about. To fail to record a failure would be to fail again
and again, and to stop whatever waits behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import msgspec

from spoolproof.caught import error_line, storable_text
from spoolproof.dead_letters.events import DeadLetterCut
from spoolproof.errors import SpoolproofError
from spoolproof.message import Message
from spoolproof.ports.dead_letters import RECORDED, DeadLetterRecord, DeadLetters
from spoolproof.ports.transaction import OpenTransaction
from spoolproof.telemetry.events import emit
from spoolproof.telemetry.metrics import METER


async def keep(dead_letters: DeadLetters, transaction: OpenTransaction, record: DeadLetterRecord) -> bool:
    """Keep a dead letter, durable on return. False if another copy of the message succeeded meanwhile: then there is
    nothing to give up, and one that a replay left `replaying` is resolved."""
    if await _add(dead_letters, record):
        METER.add(RECORDED, (record.consumer, record.reason))
        return True
    async with transaction() as tx:
        await dead_letters.resolve(tx, record.consumer, record.message)
    return False


async def _add(dead_letters: DeadLetters, record: DeadLetterRecord) -> bool:
    leaner = _leaner(record)
    while True:
        try:
            return await dead_letters.add(record)
        except SpoolproofError:
            raise
        except Exception as error:  # of the driver or the codec, over something in this very record
            without = next(leaner, None)
            if without is None:
                raise
            what, record = without
            emit(
                DeadLetterCut(
                    queue=record.consumer, message_id=record.message.id, error=error_line(error), without=what
                )
            )


def _leaner(record: DeadLetterRecord) -> Iterator[tuple[str, DeadLetterRecord]]:
    """Yield what is left out and the record without it, one after the other."""
    record = replace(record, attempts=(), first_failed_at=record.last_failed_at)
    yield "its history", record
    record = replace(record, message=msgspec.structs.replace(record.message, headers={}))
    yield "its headers", record
    message = record.message
    bare = Message(
        id=_plain(message.id),
        type=_plain(message.type),
        source=_plain(message.source),
        time=record.last_failed_at,
        body=message.body,
    )
    yield "all but its id, type and body", replace(record, message=bare, stack="", error=_plain(record.error))


def _plain(text: str) -> str:
    return storable_text(text).encode("ascii", "replace").decode()[:255]
