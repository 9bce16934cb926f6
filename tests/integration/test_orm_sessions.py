"""A handler's `AsyncSession`: the user's models in the transaction that the inbox row is in, on both stores."""

from __future__ import annotations

import asyncio
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from sqlalchemy import JSON, TIMESTAMP, Numeric, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.schema import ForeignKey

from spoolproof import Delivery, RegistrationError, Service, Transaction, event
from spoolproof.settings import Settings

pytestmark = pytest.mark.integration


class Base(DeclarativeBase):
    pass


class Payment(Base):
    __tablename__ = "payment"
    id: Mapped[str] = mapped_column(primary_key=True)
    details: Mapped[dict[str, Any]] = mapped_column(JSON)
    on: Mapped[date]
    at: Mapped[datetime] = mapped_column(TIMESTAMP)
    cents: Mapped[Decimal] = mapped_column(Numeric(12, 2))
    lines: Mapped[list[Line]] = relationship(lazy="selectin")


class Line(Base):
    __tablename__ = "line"
    id: Mapped[int] = mapped_column(primary_key=True)
    payment_id: Mapped[str] = mapped_column(ForeignKey("payment.id"))
    text: Mapped[str]


VALUES: dict[str, Any] = {
    "details": {"n": [1, None]},
    "on": date(2026, 5, 4),
    "at": datetime(2026, 5, 4, 3, 2, 1, 5),
    "cents": Decimal("12.50"),
}


class OwnSession(AsyncSession):
    """What SQLModel and many projects do."""


@event("order.placed")
class OrderPlaced(msgspec.Struct):
    id: str


@event("payment.taken", may_be_unrouted=True)
class PaymentTaken(msgspec.Struct):
    order_id: str


def shop(settings: Settings | None, log: list[str]) -> Service:
    service = Service("shop", settings=settings)

    @service.on(OrderPlaced, delays=(1,))
    async def pay(order: OrderPlaced, session: AsyncSession, delivery: Delivery, tx: Transaction) -> None:
        session.add(Payment(id=order.id, **VALUES, lines=[Line(text="a"), Line(text="b")]))
        await session.flush()
        await tx.publish(PaymentTaken(order.id))
        if delivery.attempt < 3:
            await session.commit()  # of its part; the attempt has the last word
            raise RuntimeError("all of it rolls back")
        try:
            async with session.begin_nested():
                session.add(Payment(id=order.id, **VALUES))
                await session.flush()
        except IntegrityError:
            log.append("refused")
        (found,) = await tx.fetch("select id from payment where id = $1", order.id)  # one transaction
        log.append(found["id"])

    @service.on(PaymentTaken)
    async def look(payment: PaymentTaken, session: OwnSession) -> None:
        assert type(session) is OwnSession
        (found,) = (await session.scalars(select(Payment))).all()
        assert VALUES == {name: getattr(found, name) for name in VALUES}
        log.append(f"{found.id} {[line.text for line in found.lines]}")

    @service.on_start
    async def tables() -> None:
        async with service.transaction() as tx, tx.inner.session(AsyncSession) as session:
            await (await session.connection()).run_sync(Base.metadata.create_all)

    return service


EXPECTED = ["refused", "o-1", "o-1 ['a', 'b']"]


async def test_on_sqlite_a_session_shares_the_fate_of_its_attempt() -> None:
    """Rows, inbox row and events are one commit; a commit of the session is not that."""
    log: list[str] = []
    async with shop(None, log).test(store="sqlite") as app:
        await app.publish(OrderPlaced("o-1"))
        await app.advance(2)

        assert EXPECTED == log
        assert [PaymentTaken("o-1")] == app.published(PaymentTaken)
        async with app.transaction() as tx:
            assert 2 == len(await tx.fetch("select * from line"))


@pytest.mark.servers
async def test_on_postgresql_a_session_shares_the_fate_of_its_attempt(postgres_url: str) -> None:
    """The connection goes back to the pool as it came: JSON of later handlers is still read."""
    log: list[str] = []
    service = shop(Settings(store=postgres_url, broker="memory://", migrate="auto"), log)
    async with service.lifespan(), asyncio.timeout(30):
        await service.publish(OrderPlaced("o-1"))
        while len(log) < 3:
            await asyncio.sleep(0.01)

        assert EXPECTED == log
        async with service.transaction() as tx:
            (row,) = await tx.fetch("select details::jsonb as details from payment")
            assert {"n": [1, None]} == row["details"]


async def test_a_session_that_nobody_can_give_is_found_at_the_start() -> None:
    service = Service("shop")

    @service.on(OrderPlaced)
    def plain(order: OrderPlaced, session: AsyncSession) -> None: ...

    with pytest.raises(RegistrationError, match="cannot be used by a plain function"):
        await service.start()
    with pytest.raises(RegistrationError, match="dedupe='none' opens no transaction"):

        @service.on(OrderPlaced, dedupe="none")
        async def none(order: OrderPlaced, session: AsyncSession) -> None: ...
