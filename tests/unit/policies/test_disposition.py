"""What becomes of the work behind a call that failed for good: the table, row by row.

Two mistakes would cost most: an outage that burns attempts of every message it meets, and a payment made twice because
nobody was asked whether the first one went through.
"""

from __future__ import annotations

from itertools import product

import pytest

from spoolproof.errors import Action
from spoolproof.policies.judging.report import disposition_of
from spoolproof.policies.judging.verdict import SUCCESS, Kind, verdict_of

OUTAGES = [Kind.TRANSIENT, Kind.OVERLOADED, Kind.TIMEOUT, Kind.DEADLINE]
NOT_SUCCESSFUL = [kind for kind in Kind if kind is not Kind.CANCELLED]


def _action(kind: Kind, *, unknown: bool, idempotent: bool = True, closed: bool = True) -> Action | None:
    found = disposition_of(
        verdict_of(kind, is_unknown=unknown, reason="why"),
        is_unknown_any=unknown,
        is_idempotent=idempotent,
        is_breaker_closed=closed,
    )
    return None if found is None else found.action


@pytest.mark.parametrize(("kind", "closed"), list(product(NOT_SUCCESSFUL, [True, False])))
def test_an_unknown_outcome_of_a_call_that_must_not_be_made_twice_asks_a_person(kind: Kind, closed: bool) -> None:
    """Whatever the kind, and whatever other traffic says: only a person can find out."""
    assert Action.PARK is _action(kind, unknown=True, idempotent=False, closed=closed)


@pytest.mark.parametrize("kind", NOT_SUCCESSFUL)
def test_an_unknown_outcome_of_an_earlier_attempt_counts_too(kind: Kind) -> None:
    """The last attempt was refused, the first may have gone through: the call is unknown."""
    found = disposition_of(verdict_of(kind), is_unknown_any=True, is_idempotent=False, is_breaker_closed=True)

    assert found is not None
    assert Action.PARK is found.action


@pytest.mark.parametrize(
    ("kind", "unknown", "closed", "action"),
    [
        (Kind.LOCAL, False, True, Action.DEFER),
        (Kind.LOCAL, False, False, Action.DEFER),
        (Kind.RATE_LIMITED, False, True, Action.DEFER),
        (Kind.RATE_LIMITED, False, False, Action.DEFER),
        (Kind.TRANSIENT, False, True, Action.DEFER),
        (Kind.OVERLOADED, False, True, Action.DEFER),
        (Kind.TRANSIENT, True, True, Action.RETRY),
        (Kind.OVERLOADED, True, True, Action.RETRY),
        (Kind.TIMEOUT, True, True, Action.RETRY),
        (Kind.DEADLINE, True, True, Action.RETRY),
        (Kind.DEADLINE, False, True, Action.RETRY),
        (Kind.BUG, False, True, Action.RETRY),
        (Kind.BUG, True, False, Action.RETRY),
        (Kind.PERMANENT, False, True, Action.DEAD_LETTER),
        (Kind.PERMANENT, False, False, Action.DEAD_LETTER),
        (Kind.PERMANENT, True, True, Action.DEAD_LETTER),
    ],
)
def test_a_call_that_may_be_repeated_has_the_disposition_of_the_table(
    kind: Kind, unknown: bool, closed: bool, action: Action
) -> None:
    assert action is _action(kind, unknown=unknown, closed=closed)


@pytest.mark.parametrize("kind", OUTAGES)
def test_an_outage_that_other_traffic_confirms_counts_no_attempt(kind: Kind) -> None:
    """The breaker is not closed, so this message is not the cause."""
    assert Action.DEFER is _action(kind, unknown=True, closed=False)


@pytest.mark.parametrize(("unknown", "idempotent", "closed"), list(product([True, False], repeat=3)))
def test_a_cancelled_call_has_no_disposition(unknown: bool, idempotent: bool, closed: bool) -> None:
    """Whoever cancelled decides."""
    assert _action(Kind.CANCELLED, unknown=unknown, idempotent=idempotent, closed=closed) is None


def test_a_success_has_no_disposition_even_after_an_unknown_attempt() -> None:
    found = disposition_of(SUCCESS, is_unknown_any=True, is_idempotent=False, is_breaker_closed=True)

    assert found is None


@pytest.mark.parametrize("kind", [Kind.LOCAL, Kind.RATE_LIMITED, Kind.TRANSIENT])
def test_retry_after_and_the_reason_are_handed_on(kind: Kind) -> None:
    verdict = verdict_of(kind, retry_after_seconds=7.0, reason="HTTP 429")

    found = disposition_of(verdict, is_unknown_any=False, is_idempotent=False, is_breaker_closed=True)

    assert found is not None
    assert (7.0, "HTTP 429") == (found.after_seconds, found.reason)
