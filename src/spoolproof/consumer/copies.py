"""Sends the copy of a failed delivery to a delay queue, and returns only when the broker has confirmed it.

The copy comes first and the ack after: a crash between the two makes a duplicate, the reverse would lose the message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

import msgspec

from spoolproof import limits
from spoolproof.clock import Clock
from spoolproof.consumer.events import CopiesFlow, CopyWaits
from spoolproof.dead_letters.record import history_of, history_text
from spoolproof.destination import back_after
from spoolproof.errors import BrokerUnavailable, EncodeError, WindowFull
from spoolproof.message import (
    ATTEMPT,
    FIRST_DEFERRED_AT,
    FIRST_FAILED_AT,
    FIRST_UNKNOWN_AT,
    HISTORY,
    HeaderValue,
    Message,
    Outgoing,
)
from spoolproof.ports.broker import Broker, Confirmed, PublishOutcome, Refused
from spoolproof.telemetry.events import emit
from spoolproof.telemetry.folding import Folded


def retry_copy(
    message: Message,
    *,
    queue: str,
    tier_seconds: int,
    failed: int,
    history: str,
    now: datetime,
    first_deferred_at: datetime | None,
    first_unknown_at: datetime | None,
) -> Outgoing:
    """Return the copy of a delivery that comes back to its queue, and to no other, after `tier_seconds`.

    failed: attempts that failed so far, carried in `spoolproof-attempt`. first_deferred_at, first_unknown_at:
    since when it is deferred, or refused as unknown; None if it is not.
    """
    headers: dict[str, HeaderValue] = {**message.headers}
    if failed:
        headers[ATTEMPT] = failed
        headers[HISTORY] = history
        headers.setdefault(FIRST_FAILED_AT, now.isoformat())
    for name, since in ((FIRST_DEFERRED_AT, first_deferred_at), (FIRST_UNKNOWN_AT, first_unknown_at)):
        headers.pop(name, None)
        if since is not None:
            headers[name] = since.isoformat()
    return Outgoing(
        message=msgspec.structs.replace(message, headers=headers),
        destination=back_after(tier_seconds),
        routing_key=queue,
    )


def _shorter(copy: Outgoing) -> Iterator[Outgoing]:
    """Yield the copy with ever less of what it can do without: its history, newest last to go, then two names."""
    headers = dict(copy.message.headers)
    history = history_of(copy.message)
    while history:
        history = history[len(history) // 2 + 1 :] if len(history) > 1 else ()
        headers[HISTORY] = history_text(history)
        yield _with_headers(copy, headers)
    for name in (HISTORY, FIRST_FAILED_AT):
        headers.pop(name, None)
    yield _with_headers(copy, headers)


def _with_headers(copy: Outgoing, headers: dict[str, HeaderValue]) -> Outgoing:
    message = msgspec.structs.replace(copy.message, headers=dict(headers))
    return msgspec.structs.replace(copy, message=message)


class CopyRefused(Exception):
    """No copy of this message can ever be sent. reason: of its dead letter, `encode` or `refused`."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        super().__init__(detail)


class Copies:
    """Publishes for consumers, one message at a time each."""

    def __init__(self, broker: Broker, *, clock: Clock) -> None:
        self._broker = broker
        self._clock = clock
        self._folded = Folded(clock)

    async def send(self, outgoing: Outgoing, *, is_moot: Callable[[], bool] = lambda: False) -> None:
        """Return when the broker has the message in its queue, or it is moot; waits out outages. Raises CopyRefused."""
        shorter = _shorter(outgoing)
        pause = limits.COPY_PAUSE_FIRST_SECONDS
        while not is_moot():
            await self._broker.wait_for_room(limits.POLL_MAX_SECONDS)
            try:
                outcome = await self._try(outgoing)
            except EncodeError as error:
                fits_better = next(shorter, None)
                if fits_better is None:
                    raise CopyRefused("encode", str(error)) from error
                outgoing = fits_better
                continue
            destination = outgoing.destination
            if isinstance(outcome, Confirmed):
                if self._folded.has_told(CopyWaits, str(destination)):
                    self._folded.over(CopyWaits, str(destination))
                    emit(CopiesFlow(destination=str(destination)))
                return
            if isinstance(outcome, Refused):
                raise CopyRefused("refused", f"{outcome.code} {outcome.detail}")
            if outcome is not None:
                waits = CopyWaits(destination=str(destination), queue=str(outgoing.routing_key), outcome=repr(outcome))
                self._folded.emit(waits)
            await self._clock.sleep(pause)
            pause = min(2 * pause, limits.COPY_PAUSE_MAX_SECONDS)

    async def _try(self, outgoing: Outgoing) -> PublishOutcome | None:
        answer: asyncio.Future[PublishOutcome] = asyncio.get_running_loop().create_future()

        def sink(results: Sequence[tuple[object, PublishOutcome]]) -> None:
            for token, outcome in results:
                if token is answer and not answer.done():
                    answer.set_result(outcome)

        try:
            self._broker.submit(outgoing, answer, sink)
        except (WindowFull, BrokerUnavailable):
            return None
        return await answer
