"""Every state of ours against every state of theirs: repaired is only what is declared."""

from __future__ import annotations

from enum import StrEnum

from spoolproof.ports.reconciliations import State, Verdict
from spoolproof.reconciliation.compare import Rules, difference_of


class Order(StrEnum):
    PENDING = "pending"
    SHIPPED = "shipped"
    DELIVERED = "delivered"
    RETURNED = "returned"
    CANCELLED = "cancelled"


class Delivery(StrEnum):
    CREATED = "created"
    IN_TRANSIT = "in_transit"
    DELIVERED = "arrived"
    RETURNED = "sent_back"
    LOST = "lost"  #: means nothing in our words


MAPPING: dict[State, State] = {
    Delivery.CREATED: Order.PENDING,
    Delivery.IN_TRANSIT: Order.SHIPPED,
    Delivery.DELIVERED: Order.DELIVERED,
    Delivery.RETURNED: Order.RETURNED,
}
TRANSITIONS: dict[State, frozenset[State]] = {
    Order.PENDING: frozenset({Order.SHIPPED, Order.DELIVERED, Order.CANCELLED}),
    Order.SHIPPED: frozenset({Order.DELIVERED, Order.RETURNED}),
}
REPAIRED = {
    (Order.PENDING, Delivery.IN_TRANSIT),
    (Order.PENDING, Delivery.DELIVERED),
    (Order.SHIPPED, Delivery.DELIVERED),
    (Order.SHIPPED, Delivery.RETURNED),
}


def test_only_declared_transitions_are_repaired() -> None:
    """RC2: all 36 pairs, nobody included. Two declared moves in a row are none."""
    rules = Rules(mapping=MAPPING, transitions=TRANSITIONS, changes_max=9, share_max=1.0)
    found = {
        (ours, theirs): difference_of("k", ours, theirs, rules)
        for ours in (*Order, None)
        for theirs in (*Delivery, None)
        if ours is not None or theirs is not None
    }

    repairs = {pair for pair, one in found.items() if one is not None and one.verdict is Verdict.REPAIR}
    assert REPAIRED == repairs
    assert all(one is None or one.to == MAPPING.get(theirs) for (_, theirs), one in found.items() if theirs)
    for (ours, theirs), one in found.items():
        if theirs is None:
            wanted: Verdict | None = Verdict.MISSING_THERE
        elif ours is None:
            wanted = Verdict.MISSING_HERE
        elif theirs not in MAPPING:
            wanted = Verdict.UNMAPPED
        elif MAPPING[theirs] is ours:
            wanted = None
        else:
            wanted = Verdict.REPAIR if (ours, theirs) in REPAIRED else Verdict.UNDECLARED
        assert wanted is (None if one is None else one.verdict), (ours, theirs)
