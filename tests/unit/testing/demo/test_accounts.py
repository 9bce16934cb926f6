"""The sums of the demo find what is planted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from spoolproof.testing.demo.accounts import Accounts, Evidence, Letter, accounts_of
from spoolproof.testing.demo.ledger import Did, Line


def answered(did: Did, *order_ids: str) -> list[Line]:
    return [Line(1.0, id, one) for id in order_ids for one in (Did.SENT, did)]


CLEAN = Evidence(
    lines=[
        *answered(Did.ACCEPTED, "o-1", "o-2"),
        Line(2.0, "o-3", Did.SENT),
        Line(2.1, "o-3", Did.UNANSWERED, "ReadTimeout"),
        *answered(Did.ACCEPTED, "o-3"),
        *answered(Did.DECLINED, "o-4"),
    ],
    orders=[("o-1", "pending_shipment"), ("o-2", "cancelled"), ("o-3", "pending_shipment")],
    sagas=[("o-1", "completed"), ("o-2", "compensated"), ("o-3", "completed"), ("o-4", "compensated")],
    movements=[("o-1", 100), ("o-2", 250), ("o-2", -250), ("o-3", 300)],
    deliveries=[("o-1", "CREATED"), ("o-2", "CANCELLED"), ("o-3", "CREATED")],
    receipts=[("o-1",), ("o-3",)],
    letters=[Letter("o-3", "shop.payments.PrinterAway", "resolved", 1)],
    reviews=["staff", "sales: recheck"],
)


def test_an_orderly_run_has_no_faults() -> None:
    """Otherwise the verdict is noise."""
    accounts = accounts_of(CLEAN)

    assert [] == accounts.faults()
    assert (
        Accounts(
            accepted=3,
            declined=1,
            completed=2,
            compensated=2,
            in_review=0,
            reviews_opened=2,
            reviews_open=0,
            reviews_by_staff=1,
            dead_lettered=1,
            replayed=1,
        )
        == accounts
    )


@pytest.mark.parametrize(
    ("fault", "planted"),
    [
        ("lost: 1 (o-3)", {"receipts": [("o-1",)]}),  # a replay that only closes the letter has lost the message
        ("lost: 1 (o-2)", {"orders": [CLEAN.orders[0], CLEAN.orders[2]]}),
        ("lost: 1 (o-2)", {"sagas": [one for one in CLEAN.sagas if one[0] != "o-2"]}),
        ("charged twice: 1 (o-1)", {"movements": [*CLEAN.movements, ("o-1", 100)]}),
        ("delivered twice: 1 (o-1)", {"deliveries": [*CLEAN.deliveries, ("o-1", "CREATED")]}),
        ("half done: 1 (o-1)", {"movements": CLEAN.movements[1:]}),  # delivered for nothing
        ("half done: 1 (o-1)", {"deliveries": CLEAN.deliveries[1:]}),  # paid for nothing
        ("half done: 1 (o-2)", {"movements": [one for one in CLEAN.movements if one[1] > 0]}),  # never given back
        ("half done: 1 (o-2)", {"deliveries": [("o-2", "CREATED"), CLEAN.deliveries[0], CLEAN.deliveries[2]]}),
        ("half done: 1 (o-3)", {"receipts": [*CLEAN.receipts, ("o-3",)]}),
        ("sagas that are not over: 1 (o-4)", {"sagas": [*CLEAN.sagas[:3], ("o-4", "in_review")]}),
        ("invented: 1 (o-9)", {"movements": [*CLEAN.movements, ("o-9", 1)]}),
        ("invented: 1 (o-9)", {"orders": [*CLEAN.orders, ("o-9", "cancelled")]}),
        ("orders never answered: 1 (o-5)", {"lines": [*CLEAN.lines, Line(3.0, "o-5", Did.SENT)]}),
    ],
)
def test_what_is_wrong_is_found_and_nothing_else(fault: str, planted: dict[str, Any]) -> None:
    """The customer sees it before we do."""
    found = accounts_of(replace(CLEAN, **planted)).faults()

    assert fault in found
    assert [] == [one for one in found if one != fault and "half done" not in one]


def test_an_open_dead_letter_is_not_lost_but_is_a_fault_after_the_replay() -> None:
    """The message is safe; the run is not over."""
    evidence = replace(CLEAN, receipts=CLEAN.receipts[:1], letters=[replace(CLEAN.letters[0], state="open")])

    assert ["dead letters still open after their replay: 1 (o-3)"] == accounts_of(evidence).faults()


def test_a_dead_letter_made_by_an_outage_is_a_fault_even_when_its_replay_succeeded() -> None:
    """S9: infrastructure that is away makes no dead letter."""
    evidence = replace(CLEAN, letters=[Letter("o-1", "spoolproof.errors.StoreUnavailable", "resolved", 1)])

    assert ("o-1",) == accounts_of(evidence).undue_dead_letters


def test_an_answer_that_is_neither_success_nor_503_is_a_fault() -> None:
    """A 500 tells customers to give up on an order that another try would place."""
    evidence = replace(CLEAN, lines=[*CLEAN.lines, Line(3.0, "o-1", Did.OTHERWISE, "500 Internal Server Error")])

    assert ("o-1 500 Internal Server Error",) == accounts_of(evidence).wrong_answers
