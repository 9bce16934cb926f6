"""The relay's rule book, as a table."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from spoolproof.message import Message, Outgoing
from spoolproof.outbox.fate import DeferRow, Fate, GiveUp, Keep, Remove, fate_of
from spoolproof.ports.broker import CONFIRMED, NACKED, Barred, Failed, PublishOutcome, Refused, Returned, Unknown
from spoolproof.ports.outbox import OutboxRow, RowRef

RETURNED = Returned("312 NO_ROUTE")


def row(attempts: int = 0, *, may_be_unrouted: bool = False) -> OutboxRow:
    message = Message(id="1", type="t", source="s", time=datetime(2026, 1, 1, tzinfo=UTC), body=b"")
    return OutboxRow(RowRef(0, 1), Outgoing(message=message, may_be_unrouted=may_be_unrouted), attempts)


@pytest.mark.parametrize(
    ("a_row", "outcome", "is_paused", "fate"),
    [
        (row(), CONFIRMED, False, Remove()),
        (row(5), CONFIRMED, True, Remove()),
        (row(0), RETURNED, False, DeferRow(1.0, "312 NO_ROUTE")),
        (row(4), RETURNED, False, DeferRow(300.0, "312 NO_ROUTE")),
        (row(5), RETURNED, False, GiveUp("unroutable", "312 NO_ROUTE")),
        (row(5), RETURNED, True, Keep()),
        (row(may_be_unrouted=True), RETURNED, False, Remove()),
        (row(), NACKED, False, Keep("destination")),
        (row(9), NACKED, False, Keep("destination")),
        (row(9), Barred("403 ACCESS_REFUSED"), False, Keep("type")),
        (row(9, may_be_unrouted=True), Barred("our queue is missing"), False, Keep("type")),
        (row(), Unknown("connection lost"), False, Keep()),
        (row(9), Unknown("no answer"), True, Keep()),
        (row(), Failed("answered 500", spread=1.1), False, DeferRow(5.5, "answered 500")),
        (row(1), Failed("answered 500"), False, DeferRow(300.0, "answered 500")),
        (row(8), Failed("answered 500"), False, DeferRow(86_400.0, "answered 500")),
        (row(9), Failed("answered 500"), False, GiveUp("webhook", "answered 500")),
        (row(0), Failed("answered 410", is_final=True), False, GiveUp("webhook", "answered 410")),
        (row(0), Failed("answered 503", at_least_seconds=1_800.0), False, DeferRow(1_800.0, "answered 503")),
        (row(8), Failed("answered 503", at_least_seconds=1_800.0), False, DeferRow(86_400.0, "answered 503")),
        (row(), Refused(403, "ACCESS_REFUSED"), False, GiveUp("refused", "403 ACCESS_REFUSED")),
    ],
)
def test_each_answer_has_one_fate(a_row: OutboxRow, outcome: PublishOutcome, is_paused: bool, fate: Fate) -> None:
    """L1, L2, S9: only a confirm without a return removes; infrastructure costs no attempt."""
    assert fate == fate_of(a_row, outcome, is_paused=is_paused)
