"""What follows a failed attempt, as a table."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from spoolproof import DeadLetter, Defer, RetryLater
from spoolproof.consumer.failure import Decision, GiveUp, RunAgain, SendCopy, decide, deferred_since
from spoolproof.errors import Action, BreakerOpen, BulkheadFull, Disposition, RateLimited
from spoolproof.policies.judging.report import Report, attach
from spoolproof.policies.judging.verdict import Kind, verdict_of

DELAYS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0)
BUG = ValueError("bug")


@pytest.mark.parametrize(
    ("error", "attempt", "decision"),
    [
        (BUG, 1, RunAgain(0.1, counts=True)),
        (BUG, 2, SendCopy(1, counts=True)),
        (BUG, 3, SendCopy(5, counts=True)),
        (BUG, 7, SendCopy(900, counts=True)),
        (BUG, 8, GiveUp("handler")),
        (BUG, 9, GiveUp("handler")),
        (TimeoutError(), 1, RunAgain(0.1, counts=True)),
        (DeadLetter("never"), 1, GiveUp("handler")),
        (RetryLater(0), 1, SendCopy(1, counts=True)),
        (RetryLater(7), 1, SendCopy(15, counts=True)),
        (RetryLater(21600), 1, SendCopy(21600, counts=True)),
        (RetryLater(10**6), 1, SendCopy(21600, counts=True, later_seconds=10**6)),
        (RetryLater(7), 8, GiveUp("handler")),
        (Defer(0.5), 1, RunAgain(0.5, counts=False)),
        (Defer(2), 8, RunAgain(2.0, counts=False)),
        (Defer(3), 8, SendCopy(5, counts=False)),
    ],
)
def test_each_failure_has_one_consequence(error: Exception, attempt: int, decision: Decision) -> None:
    """S9: what is deferred is never counted, also at the last attempt."""
    assert decision == decide(error, attempt, attempts=8, delays_seconds=DELAYS)


def test_a_short_list_of_delays_repeats_its_last() -> None:
    """`delays=(1,)` with 8 attempts must not run out of delays."""
    assert SendCopy(1, counts=True) == decide(BUG, 7, attempts=8, delays_seconds=(1.0,))


def test_a_single_attempt_goes_straight_to_the_dead_letters() -> None:
    """`attempts=1` means once."""
    assert GiveUp("handler") == decide(BUG, 1, attempts=1, delays_seconds=DELAYS)


DAY = 86_400.0
OPEN = BreakerOpen(policy="psp", state="open", reason="x", retry_after_seconds=4.2)
HALF_OPEN = BreakerOpen(policy="psp", state="half_open", reason="x", retry_after_seconds=0.1)
RAMPING = BreakerOpen(policy="psp", state="closed", reason="x", retry_after_seconds=0.1)
FULL = BulkheadFull(policy="psp", running=1, queued=1, retry_after_seconds=1.0)
COOLING = RateLimited(policy="psp", retry_after_seconds=57.0, by="cooldown")


def seen(
    action: Action,
    after_seconds: float | None = None,
    reason: str = "did it happen?",
    *,
    is_breaker_closed: bool = True,
) -> Exception:
    """Return an error that a policy has seen and judged."""
    error = ConnectionError("refused")
    disposition = Disposition(action, reason, after_seconds)
    kept = Report(
        verdict_of(Kind.TRANSIENT),
        attempts=3,
        elapsed_seconds=1.0,
        stop_reason="",
        disposition=disposition,
        is_breaker_closed=is_breaker_closed,
    )
    attach(error, kept, "", "")
    return error


@pytest.mark.parametrize(
    ("error", "attempt", "deferred_seconds", "decision"),
    [
        (seen(Action.DEFER), 8, 0.0, RunAgain(1.0, counts=False)),
        (seen(Action.DEFER), 1, 1.5, RunAgain(1.5, counts=False)),
        (seen(Action.DEFER), 1, 4.0, SendCopy(5, counts=False)),
        (seen(Action.DEFER), 1, 50.0, SendCopy(60, counts=False)),
        (seen(Action.DEFER), 1, DAY - 1, SendCopy(300, counts=False)),
        (seen(Action.DEFER, 40.0), 1, 3.0, SendCopy(60, counts=False)),
        (seen(Action.DEFER, 0.5), 1, 0.0, RunAgain(0.5, counts=False)),
        (seen(Action.RETRY), 1, 0.0, RunAgain(0.1, counts=True)),
        (seen(Action.RETRY), 3, 0.0, SendCopy(5, counts=True)),
        (seen(Action.RETRY, 7.0), 1, 0.0, SendCopy(15, counts=True)),
        (seen(Action.RETRY, 7.0), 8, 0.0, GiveUp("handler")),
        (seen(Action.DEAD_LETTER), 1, 0.0, GiveUp("permanent")),
        (seen(Action.PARK), 1, 0.0, GiveUp("park", "did it happen?")),
        (OPEN, 8, 0.0, SendCopy(5, counts=False)),
        (OPEN, 8, 2 * DAY, SendCopy(300, counts=False)),
        (HALF_OPEN, 8, 0.0, RunAgain(0.1, counts=False)),
        (HALF_OPEN, 8, 2 * DAY, SendCopy(300, counts=False)),
        (RAMPING, 8, 2 * DAY, SendCopy(300, counts=False)),
        (seen(Action.DEFER, is_breaker_closed=False), 1, 2 * DAY, SendCopy(300, counts=False)),
        (FULL, 8, 0.0, RunAgain(1.0, counts=False)),
    ],
)
def test_what_a_policy_said_of_the_work_is_done(
    error: Exception, attempt: int, deferred_seconds: float, decision: Decision
) -> None:
    """Q27: an outage burns no attempt, and waits double so that a long one is not hammered."""
    assert decision == decide(error, attempt, attempts=8, delays_seconds=DELAYS, deferred_seconds=deferred_seconds)


def test_a_message_deferred_for_a_day_without_an_outage_is_parked() -> None:
    """That long with every breaker closed, it is the message; and a person must know what is asked."""
    decision = decide(seen(Action.DEFER), 1, attempts=8, delays_seconds=DELAYS, deferred_seconds=DAY)

    assert isinstance(decision, GiveUp)
    assert "park" == decision.reason
    assert "24 h" in decision.detail


def test_a_message_of_a_gated_queue_waits_in_its_queue_while_the_gate_is_shut() -> None:
    """The gate holds it there; in a delay queue it would wait on after the dependency is back (an hour later, too)."""
    error = seen(Action.DEFER, 60.0)

    for deferred_seconds in (0.0, DAY):
        decision = decide(error, 1, attempts=8, delays_seconds=DELAYS, deferred_seconds=deferred_seconds, gate="open")
        assert SendCopy(1, counts=False) == decision


@pytest.mark.parametrize(
    ("error", "decision"),
    [
        (HALF_OPEN, RunAgain(1.0, counts=False)),
        (OPEN, SendCopy(300, counts=False)),
        (COOLING, SendCopy(300, counts=False)),
        (seen(Action.RETRY), RunAgain(0.1, counts=True)),
    ],
)
def test_a_message_keeps_its_place_while_others_probe(error: Exception, decision: Decision) -> None:
    """A gate that lets single messages through holds none: what is put back for a second is followed by all the rest.
    What waits for something else waits as on any queue."""
    assert decision == decide(error, 1, attempts=8, delays_seconds=DELAYS, deferred_seconds=300.0, gate="half_open")


@pytest.mark.parametrize("gate", ["half_open", "open"])
def test_a_handler_cut_off_in_an_outage_is_not_the_messages_fault(gate: str) -> None:
    """S9: its own limit is shorter than that of the policy, so no policy could say that the dependency hangs."""
    assert SendCopy(1, counts=False) == decide(TimeoutError(), 8, attempts=8, delays_seconds=DELAYS, gate=gate)


NOW = datetime(2026, 1, 2, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=3)
OUTAGE = seen(Action.DEFER, is_breaker_closed=False)


@pytest.mark.parametrize(
    ("error", "before", "gate", "since"),
    [
        (FULL, None, "closed", NOW),
        (FULL, LONG_AGO, "closed", LONG_AGO),
        (Defer(5), LONG_AGO, "closed", LONG_AGO),
        (OUTAGE, None, "closed", NOW),
        (OUTAGE, NOW - timedelta(seconds=7), "closed", NOW - timedelta(seconds=7)),
        (OUTAGE, LONG_AGO, "half_open", NOW - timedelta(seconds=300)),
        (OPEN, LONG_AGO, "closed", NOW - timedelta(seconds=300)),
        (OUTAGE, LONG_AGO, "open", None),
    ],
)
def test_an_outage_makes_no_message_old(
    error: Exception, before: datetime | None, gate: str, since: datetime | None
) -> None:
    """One that outlived a day of it would be parked at the first full bulkhead after it."""
    assert since == deferred_since(error, before, NOW, gate=gate)


def test_what_a_handler_says_outweighs_what_a_policy_said() -> None:
    """`raise Defer(…) from error`: the author has looked at it."""
    outcome = Defer(60)
    outcome.__cause__ = seen(Action.PARK)

    assert SendCopy(60, counts=False) == decide(outcome, 1, attempts=8, delays_seconds=DELAYS)
