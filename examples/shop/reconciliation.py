"""What sales checks again later: availability that was assumed, and orders of which the delivery service knows more."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence

from shop import dependencies
from shop.events import AvailabilityAssumed, OrderMoved
from shop.orders import Status, find, move, now, service
from shop.saga import AVAILABILITY
from spoolproof import Transaction
from spoolproof.errors import Conflict
from spoolproof.ports.reconciliations import Difference
from spoolproof.saga import Refused

# --- availability that was assumed ------------------------------------------------------------------------------------


@service.reconciliation.check("order.availability", retry="5m", waits_for="product-service")
async def recheck(order_id: str) -> bool:
    """Approve the open question if the product service says so; else say there what it said, and ask again later."""
    subject = f"shop.order/{AVAILABILITY}/{order_id}"
    items = (await service.reviews.ls(kind="saga.approval", subject=subject))["items"]
    if not items:
        return True  # a person was faster, or the saga is over
    async with service.transaction() as tx:
        found = await find(tx, order_id)
    assert found is not None
    try:
        async with dependencies.products.permit():
            stock = await dependencies.stock_of(found["product_id"], found["quantity"])
        said = f"{stock.quantity} of {found['product_id']!r} are left"
    except Refused as error:
        stock, said = dependencies.Stock(quantity=0), str(error)
    if stock.quantity >= found["quantity"]:
        try:
            await service.reviews.resolve(items[0]["id"], "approve", actor="sales: recheck", reason=said)
        except Conflict:
            return False  # a person has it in hand
        return True
    async with service.transaction() as tx:
        await tx.execute("update shop_order set review_reason = $2 where id = $1", order_id, said)
    return False


@service.on(AvailabilityAssumed, OrderMoved)
async def note(event: AvailabilityAssumed | OrderMoved, tx: Transaction) -> None:
    """Keep what happened to an order; it stays when the flag goes."""
    await tx.execute("insert into order_history values ($1, $2)", event.order_id, repr(event))


# --- the status of orders ---------------------------------------------------------------------------------------------

NONE = "NONE"  #: the delivery service has no delivery of an order
FINAL = ", ".join(f"'{one}'" for one in (Status.DELIVERED, Status.RETURNED, Status.CANCELLED))
CANDIDATES = {  # $2: now; the id is the last of the page before
    "no movement for 24 h": "status in ('pending_payment', 'pending_shipment') and changed_at < $2 - 86400",
    "a delivery, and no news of it for 6 h": f"delivery_id is not null and status not in ({FINAL}) "
    "and heard_at < $2 - 21600",
    "flagged": "requires_manual_review",
}

status = service.reconciliation.reconciler(
    "order.status",
    every=os.environ.get("RECONCILE_EVERY", "5m"),
    mapping={
        NONE: Status.PENDING_PAYMENT,
        "CREATED": Status.PENDING_SHIPMENT,
        "IN_TRANSIT": Status.SHIPPED,
        "DELIVERED": Status.DELIVERED,
        "RETURNED": Status.RETURNED,
        "CANCELLED": Status.CANCELLED,
    },
    transitions={
        Status.PENDING_SHIPMENT: {Status.SHIPPED, Status.DELIVERED, Status.CANCELLED},
        Status.SHIPPED: {Status.DELIVERED, Status.RETURNED},
    },
)


@status.candidates
async def candidates(after: str | None) -> AsyncIterator[str]:
    conditions = " or ".join(f"({condition})" for condition in CANDIDATES.values())
    async with service.transaction() as tx:
        rows = await tx.fetch(
            f"select id from shop_order where id > $1 and ({conditions}) order by id limit 200",
            after or "",
            now(),
        )
    for row in rows:
        yield row["id"]


@status.ours
async def read_ours(keys: Sequence[str]) -> AsyncIterator[tuple[str, str]]:
    async with service.transaction() as tx:
        for key in keys:
            found = await find(tx, key)
            if found is not None:
                yield key, found["status"]


@status.theirs
async def read_theirs(keys: Sequence[str]) -> AsyncIterator[tuple[str, str]]:
    for key in keys:
        async with dependencies.delivery.permit():
            delivery = await dependencies.delivery_of(key)
        async with service.transaction() as tx:
            await tx.execute("update shop_order set heard_at = $2 where id = $1", key, now())
        yield key, NONE if delivery is None else delivery.state


@status.repair
async def repair(found: Difference, tx: Transaction) -> bool:
    if not await move(tx, found.key, str(found.ours), str(found.to)):  # it has moved since it was read
        return False
    await tx.publish(OrderMoved(found.key, str(found.to)), key=found.key)
    return True
