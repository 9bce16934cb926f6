"""The sums at the end, and what they must be. Pure: from a ledger and tables to a verdict.

lost = accepted − (decided at payments and known at sales ∪ dead letters). doubled = payments beyond one per order.
invented = orders and payments nobody asked for. A dead letter is due only when the bank was unreachable: one that an
outage made is a fault of ours, also when a replay would repair it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from spoolproof.testing.demo.ledger import Did, Line

BANK_ERROR = "BankUnreachable"  #: what a due dead letter failed with
STATUS_OF_OUTCOME = {"taken": "paid", "refused": "refused"}  #: the word of payments → the word of sales


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter. order_id: read from its body. replays: how often an operator sent it again."""

    order_id: str
    error_class: str
    state: str
    replays: int

    @property
    def is_closed(self) -> bool:
        """Whether nobody need look at it any more."""
        return self.state == "resolved"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was found at the end. payments: (order id, outcome) per row; orders: (order id, status) per row of sales."""

    lines: Sequence[Line]
    payments: Sequence[tuple[str, str]]
    orders: Sequence[tuple[str, str]]
    letters: Sequence[Letter]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounts:
    """The sums, each with the order ids behind it."""

    accepted: int
    paid: int
    refused: int
    dead_lettered: int
    replayed: int
    lost: tuple[str, ...] = ()
    charged_twice: tuple[str, ...] = ()
    invented: tuple[str, ...] = ()
    undue_dead_letters: tuple[str, ...] = ()
    open_dead_letters: tuple[str, ...] = ()
    never_accepted: tuple[str, ...] = ()
    wrong_answers: tuple[str, ...] = field(default=())

    def faults(self) -> list[str]:
        """Return what is wrong, one sentence each; empty when all is well."""
        checks = {
            "lost": self.lost,
            "charged twice": self.charged_twice,
            "invented": self.invented,
            "dead letters that no unreachable bank explains": self.undue_dead_letters,
            "dead letters still open after their replay": self.open_dead_letters,
            "orders never accepted": self.never_accepted,
            "answers other than 200, 201 and 503": self.wrong_answers,
        }
        return [f"{what}: {_some(found)}" for what, found in checks.items() if found]


def settled(evidence: Evidence) -> set[str]:
    """Return the orders that came to an end: decided at payments and known at sales, or a dead letter."""
    known = dict(evidence.orders)
    decided = {id for id, outcome in evidence.payments if known.get(id) == STATUS_OF_OUTCOME[outcome]}
    return decided | {letter.order_id for letter in evidence.letters if not letter.is_closed}


def accounts_of(evidence: Evidence) -> Accounts:
    """Add everything up."""
    sent = {line.order_id for line in evidence.lines if line.did is Did.SENT}
    accepted = {line.order_id for line in evidence.lines if line.did is Did.ACCEPTED}
    charges = Counter(id for id, _ in evidence.payments)
    outcomes = Counter(dict(evidence.payments).values())
    rows = Counter(id for id, _ in evidence.orders)
    return Accounts(
        accepted=len(accepted),
        paid=outcomes["taken"],
        refused=outcomes["refused"],
        dead_lettered=len(evidence.letters),
        replayed=sum(letter.replays > 0 for letter in evidence.letters),
        lost=tuple(sorted(accepted - settled(evidence))),
        charged_twice=tuple(sorted(id for id, count in charges.items() if count > 1)),
        invented=tuple(sorted((set(charges) | set(rows)) - sent) + sorted(id for id, n in rows.items() if n > 1)),
        undue_dead_letters=tuple(
            sorted(letter.order_id for letter in evidence.letters if not letter.error_class.endswith(BANK_ERROR))
        ),
        open_dead_letters=tuple(sorted(letter.order_id for letter in evidence.letters if not letter.is_closed)),
        never_accepted=tuple(sorted(sent - accepted)),
        wrong_answers=tuple(f"{line.order_id} {line.detail}" for line in evidence.lines if line.did is Did.OTHERWISE),
    )


def _some(found: Sequence[str], most: int = 5) -> str:
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return f"{len(found)} ({', '.join(found[:most])}{more})"
