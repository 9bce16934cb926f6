"""A copy that does not fit loses what it can do without, never what the message is."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from spoolproof.clock import SystemClock
from spoolproof.consumer.copies import Copies, CopyRefused, retry_copy
from spoolproof.dead_letters.record import history_of, history_text
from spoolproof.errors import EncodeError
from spoolproof.message import ATTEMPT, FIRST_DEFERRED_AT, HeaderValue, Message, Outgoing
from spoolproof.ports.broker import CONFIRMED, Barred, PublishOutcome, Refused, Sink, Unknown
from spoolproof.ports.dead_letters import Attempt
from spoolproof.testing.clock import ManualClock

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ATTEMPTS = [Attempt(at=NOW, error_class="E", error=f"attempt {number}", host="h") for number in range(20)]


class NarrowBroker:
    """Takes messages whose headers have at most so many bytes; gives the outcomes in turn, then confirms."""

    def __init__(self, bytes_max: int = 10_000, outcomes: tuple[PublishOutcome, ...] = ()) -> None:
        self.taken: list[Outgoing] = []
        self._bytes_max = bytes_max
        self._outcomes = list(outcomes)

    async def wait_for_room(self, timeout_seconds: float) -> bool:
        return True

    def submit(self, outgoing: Outgoing, token: object, sink: Sink) -> None:
        size = sum(len(name) + len(str(value)) for name, value in outgoing.message.headers.items())
        if size > self._bytes_max:
            raise EncodeError(f"{size} bytes")
        self.taken.append(outgoing)
        sink([(token, self._outcomes.pop(0) if self._outcomes else CONFIRMED)])


def copy_of(headers: dict[str, HeaderValue]) -> Outgoing:
    message = Message(id="m", type="t", source="s", time=NOW, body=b"body", headers=headers)
    return retry_copy(
        message,
        queue="q",
        tier_seconds=1,
        failed=20,
        history=history_text(ATTEMPTS),
        now=NOW,
        first_deferred_at=NOW,
        first_unknown_at=None,
    )


async def sent_by(broker: Any, copy: Outgoing) -> Message:
    await Copies(broker, clock=SystemClock()).send(copy)
    (taken,) = broker.taken
    return taken.message


async def test_a_copy_that_fits_is_sent_as_it_is() -> None:
    """Nothing is cut that need not be."""
    copy = copy_of({"mine": "kept"})

    assert copy.message == await sent_by(NarrowBroker(), copy)


async def test_of_a_copy_that_does_not_fit_the_oldest_history_goes_first() -> None:
    """The newest attempts say most; the count is exact whatever is cut."""
    copy = copy_of({"mine": "x" * 400})

    message = await sent_by(NarrowBroker(1000), copy)

    kept = [attempt.error for attempt in history_of(message)]
    assert ["attempt 16", "attempt 17", "attempt 18", "attempt 19"] == kept[-4:]
    assert len(kept) < len(ATTEMPTS)
    assert ("x" * 400, 20) == (message.headers["mine"], message.headers[ATTEMPT])


async def test_what_steers_the_message_is_never_cut() -> None:
    """Without its count a message would be tried for ever, and without its first deferral it would never be parked."""
    copy = copy_of({"mine": "x" * 400})

    message = await sent_by(NarrowBroker(500), copy)

    assert {"mine", ATTEMPT, FIRST_DEFERRED_AT} == set(message.headers)


async def test_a_copy_that_fits_in_no_way_is_told_to_whoever_sends_it() -> None:
    """It becomes a dead letter then; here it would be tried for ever."""
    broker: Any = NarrowBroker(300)

    with pytest.raises(CopyRefused, match="bytes") as refusal:
        await sent_by(broker, copy_of({"mine": "x" * 400}))

    assert ("encode", []) == (refusal.value.reason, broker.taken)


async def test_a_copy_the_broker_refuses_for_good_is_told_to_whoever_sends_it() -> None:
    """One that closes the channel each time would stop its lane, and everybody's publishes, for ever."""
    broker: Any = NarrowBroker(outcomes=(Unknown("closed"), Refused(406, "too large")))

    with pytest.raises(CopyRefused, match="406 too large") as refusal:
        await Copies(broker, clock=SystemClock()).send(copy_of({}))

    assert "refused" == refusal.value.reason


async def test_a_copy_that_is_barred_is_tried_ever_more_slowly_and_told_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The delay queue is gone and being made again: the lane waits, and an hour of it must not fill the log."""
    broker: Any = NarrowBroker(outcomes=tuple(Barred("404 NOT_FOUND") for _ in range(6)))
    clock = ManualClock()

    async with clock.auto_advance():
        await Copies(broker, clock=clock).send(copy_of({}))

    assert 0.5 + 1 + 2 + 4 + 5 + 5 == clock.monotonic()
    waits, flows = [record.getMessage() for record in caplog.records]
    assert "retry.copy_waits destination=delay:1 queue=q outcome=Barred(detail='404 NOT_FOUND')" in waits
    assert "retry.copies_flow destination=delay:1" in flows


async def test_a_copy_whose_delivery_comes_again_by_itself_is_not_sent() -> None:
    """The broker took the delivery back while the copy waited: both would run, and both would fail and be copied."""
    broker: Any = NarrowBroker(outcomes=(Barred("404 NOT_FOUND"),))

    await Copies(broker, clock=SystemClock()).send(copy_of({}), is_moot=lambda: len(broker.taken) == 1)

    assert 1 == len(broker.taken)
