"""The sums of the demo find what is planted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from spoolproof.testing.demo.accounts import Accounts, Evidence, Letter, accounts_of
from spoolproof.testing.demo.ledger import Did, Line


def accepted(*order_ids: str) -> list[Line]:
    return [Line(1.0, id, did) for id in order_ids for did in (Did.SENT, Did.ACCEPTED)]


CLEAN = Evidence(
    lines=[
        *accepted("o-1", "o-2"),
        Line(2.0, "o-3", Did.SENT),
        Line(2.1, "o-3", Did.UNANSWERED, "ReadTimeout"),
        *accepted("o-3"),
    ],
    payments=[("o-1", "taken"), ("o-2", "refused"), ("o-3", "taken")],
    orders=[("o-1", "paid"), ("o-2", "refused"), ("o-3", "paid")],
    letters=[Letter("o-3", "shop.bank.BankUnreachable", "resolved", 1)],
)


def test_an_orderly_run_has_no_faults() -> None:
    """Otherwise the verdict is noise."""
    accounts = accounts_of(CLEAN)

    assert Accounts(accepted=3, paid=2, refused=1, dead_lettered=1, replayed=1) == accounts
    assert [] == accounts.faults()


def test_an_order_that_was_accepted_and_never_decided_is_lost() -> None:
    """The one thing that must not happen: it has to be seen when it does."""
    evidence = replace(CLEAN, payments=CLEAN.payments[1:])

    assert ("o-1",) == accounts_of(evidence).lost
    assert ["lost: 1 (o-1)"] == accounts_of(evidence).faults()


def test_a_decision_that_never_came_back_is_lost_too() -> None:
    """The event from payments to sales is as precious as the one before it."""
    evidence = replace(CLEAN, orders=[("o-1", "placed"), *CLEAN.orders[1:]])

    assert ("o-1",) == accounts_of(evidence).lost


def test_a_resolved_dead_letter_without_its_payment_is_a_loss() -> None:
    """A replay that only closes the letter has lost the message."""
    evidence = replace(CLEAN, payments=CLEAN.payments[:2])

    assert ("o-3",) == accounts_of(evidence).lost


def test_an_open_dead_letter_is_not_lost_but_is_a_fault_after_the_replay() -> None:
    """The message is safe; the run is not over."""
    evidence = replace(CLEAN, payments=CLEAN.payments[:2], letters=[replace(CLEAN.letters[0], state="open")])

    accounts = accounts_of(evidence)

    assert () == accounts.lost
    assert ("o-3",) == accounts.open_dead_letters


def test_a_second_payment_for_an_order_is_charged_twice() -> None:
    """The customer sees it before we do."""
    evidence = replace(CLEAN, payments=[*CLEAN.payments, ("o-1", "taken")])

    assert ("o-1",) == accounts_of(evidence).charged_twice
    assert ["charged twice: 1 (o-1)"] == accounts_of(evidence).faults()


@pytest.mark.parametrize(
    "planted",
    [{"payments": [*CLEAN.payments, ("o-9", "taken")]}, {"orders": [*CLEAN.orders, ("o-9", "paid")]}],
    ids=["payment", "order"],
)
def test_what_nobody_asked_for_is_invented(planted: dict[str, list[tuple[str, str]]]) -> None:
    """An order nobody sent can only come from us."""
    assert ("o-9",) == accounts_of(replace(CLEAN, **planted)).invented


def test_a_dead_letter_made_by_an_outage_is_a_fault_even_when_its_replay_succeeded() -> None:
    """S9: infrastructure that is away makes no dead letter."""
    evidence = replace(CLEAN, letters=[Letter("o-1", "spoolproof.errors.StoreUnavailable", "resolved", 1)])

    assert ("o-1",) == accounts_of(evidence).undue_dead_letters


def test_an_answer_that_is_neither_success_nor_503_is_a_fault() -> None:
    """A 500 tells customers to give up on an order that another try would place."""
    evidence = replace(CLEAN, lines=[*CLEAN.lines, Line(3.0, "o-1", Did.OTHERWISE, "500 Internal Server Error")])

    assert ("o-1 500 Internal Server Error",) == accounts_of(evidence).wrong_answers


def test_an_order_that_was_never_accepted_is_a_fault() -> None:
    """Customers try until the end of the run: whoever is still waiting was kept out for good."""
    evidence = replace(CLEAN, lines=[*CLEAN.lines, Line(3.0, "o-4", Did.SENT)])

    assert ("o-4",) == accounts_of(evidence).never_accepted
