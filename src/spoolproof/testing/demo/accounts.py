"""The sums at the end, and what they must be. Pure: from a ledger and tables to a verdict.

Whatever happened, each order that was accepted is whole: either it is confirmed, with its money taken once, one parcel
and one receipt, or it is cancelled, with neither money nor parcel. Anything else is half done. Its saga says which of
the two it is; one that is not over at the end is a fault. lost: accepted, and no order or no saga knows of it, or its
receipt never came. invented: what nobody asked for. A dead letter is due only when the printer was away: one that an
outage made is a fault of ours, also when a replay would repair it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from spoolproof.testing.demo.ledger import Did, Line

DUE_ERROR = "PrinterAway"  #: what a due dead letter failed with
COMPLETED, COMPENSATED = "completed", "compensated"


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
    """What was found at the end, by order id. orders: status at sales. sagas: state. movements: cents, a row each time
    money moved. deliveries: state. receipts: a row each. reviews: who resolved each item; "" while it is open."""

    lines: Sequence[Line]
    orders: Sequence[tuple[str, str]]
    sagas: Sequence[tuple[str, str]]
    movements: Sequence[tuple[str, int]]
    deliveries: Sequence[tuple[str, str]]
    receipts: Sequence[tuple[str]]
    letters: Sequence[Letter]
    reviews: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounts:
    """The sums, each with the order ids behind it. declined: told at once that there is nothing left."""

    accepted: int
    declined: int
    completed: int
    compensated: int
    in_review: int
    reviews_opened: int
    reviews_open: int
    reviews_by_staff: int
    dead_lettered: int
    replayed: int
    lost: tuple[str, ...] = ()
    charged_twice: tuple[str, ...] = ()
    delivered_twice: tuple[str, ...] = ()
    half_done: tuple[str, ...] = ()
    unfinished: tuple[str, ...] = ()
    invented: tuple[str, ...] = ()
    undue_dead_letters: tuple[str, ...] = ()
    open_dead_letters: tuple[str, ...] = ()
    never_answered: tuple[str, ...] = ()
    wrong_answers: tuple[str, ...] = field(default=())

    def faults(self) -> list[str]:
        """Return what is wrong, one sentence each; empty when all is well."""
        checks = {
            "lost": self.lost,
            "charged twice": self.charged_twice,
            "delivered twice": self.delivered_twice,
            "half done": self.half_done,
            "sagas that are not over": self.unfinished,
            "invented": self.invented,
            "dead letters that no broken printer explains": self.undue_dead_letters,
            "dead letters still open after their replay": self.open_dead_letters,
            "orders never answered": self.never_answered,
            "answers other than 200, 201, 202, 409 and 503": self.wrong_answers,
        }
        return [f"{what}: {_some(found)}" for what, found in checks.items() if found]


def unfinished(evidence: Evidence) -> set[str]:
    """Return the orders whose saga is neither completed nor compensated."""
    return {id for id, state in evidence.sagas if state not in (COMPLETED, COMPENSATED)}


def without_receipt(evidence: Evidence) -> set[str]:
    """Return the orders that were confirmed and have neither a receipt nor a dead letter that explains it."""
    has_one = {id for (id,) in evidence.receipts} | {one.order_id for one in evidence.letters if not one.is_closed}
    return {id for id, state in evidence.sagas if state == COMPLETED} - has_one


def accounts_of(evidence: Evidence, staff: str = "staff") -> Accounts:
    """Add everything up. staff: who decided in the name of the people."""
    sent, accepted, declined = (_those(evidence, did) for did in (Did.SENT, Did.ACCEPTED, Did.DECLINED))
    status, sagas = dict(evidence.orders), dict(evidence.sagas)
    charges = Counter[str]()
    for id, cents in evidence.movements:
        charges[id] += 1 if cents > 0 else -1
    parcels = Counter(id for id, state in evidence.deliveries if state != "CANCELLED")
    receipts = Counter(id for (id,) in evidence.receipts)
    rows = Counter(id for id, _ in evidence.orders)
    states = Counter(sagas.values())
    return Accounts(
        accepted=len(accepted),
        declined=len(declined),
        completed=states[COMPLETED],
        compensated=states[COMPENSATED],
        in_review=states["in_review"],
        reviews_opened=len(evidence.reviews),
        reviews_open=sum(not who for who in evidence.reviews),
        reviews_by_staff=sum(who == staff for who in evidence.reviews),
        dead_lettered=len(evidence.letters),
        replayed=sum(letter.replays > 0 for letter in evidence.letters),
        lost=tuple(sorted((accepted - (set(status) & set(sagas))) | without_receipt(evidence))),
        charged_twice=tuple(sorted(id for id, count in charges.items() if count > 1)),
        delivered_twice=tuple(sorted(id for id, count in parcels.items() if count > 1)),
        half_done=tuple(
            sorted(
                id
                for id, state in sagas.items()
                if not _is_whole(state, status.get(id), charges[id], parcels[id], receipts[id])
            )
        ),
        unfinished=tuple(sorted(unfinished(evidence))),
        invented=tuple(
            sorted((set(charges) | set(parcels) | set(receipts) | set(rows) | set(sagas)) - sent)
            + sorted(id for id, count in rows.items() if count > 1)
        ),
        undue_dead_letters=tuple(
            sorted(letter.order_id for letter in evidence.letters if not letter.error_class.endswith(DUE_ERROR))
        ),
        open_dead_letters=tuple(sorted(letter.order_id for letter in evidence.letters if not letter.is_closed)),
        never_answered=tuple(sorted(sent - accepted - declined)),
        wrong_answers=tuple(f"{line.order_id} {line.detail}" for line in evidence.lines if line.did is Did.OTHERWISE),
    )


def _those(evidence: Evidence, did: Did) -> set[str]:
    return {line.order_id for line in evidence.lines if line.did is did}


def _is_whole(saga: str, status: str | None, charges: int, parcels: int, receipts: int) -> bool:
    if saga == COMPLETED:
        return (status, charges, parcels, receipts <= 1) == ("pending_shipment", 1, 1, True)
    if saga == COMPENSATED:  # one that was refused before there was an order has none
        return status in (None, "cancelled") and (charges, parcels, receipts) == (0, 0, 0)
    return True  # its saga says where it is


def _some(found: Sequence[str], most: int = 5) -> str:
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return f"{len(found)} ({', '.join(found[:most])}{more})"
