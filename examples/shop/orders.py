"""The tables of sales, and what its API takes and shows."""

from __future__ import annotations

import uuid

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "shop_order"

    id: Mapped[str] = mapped_column(primary_key=True)
    idempotency_key: Mapped[str] = mapped_column(unique=True)
    customer: Mapped[str]
    product_id: Mapped[str]
    quantity: Mapped[int]
    total_cents: Mapped[int]
    status: Mapped[str] = mapped_column(default="placed")
    requires_manual_review: Mapped[bool] = mapped_column(default=False)
    review_reason: Mapped[str] = mapped_column(default="")
    delivery_id: Mapped[str | None] = mapped_column(default=None)
    delivery_attempts: Mapped[int] = mapped_column(default=0)


class Flag(Base):
    """An entry in the record of flagged orders; it stays when the flag goes."""

    __tablename__ = "order_flag"

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[str]
    reason: Mapped[str]


class NewOrder(BaseModel):
    order_id: str = Field(default_factory=lambda: str(uuid.uuid4()), min_length=1, max_length=100)
    customer: str = Field(min_length=1, max_length=200)
    product_id: str = Field("lamp", min_length=1, max_length=100)
    quantity: int = Field(1, ge=1, le=1000)
    total_cents: int = Field(gt=0, le=2**31 - 1)


class OrderView(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: str
    customer: str
    product_id: str
    quantity: int
    total_cents: int
    status: str
    requires_manual_review: bool
    review_reason: str
    delivery_id: str | None
    delivery_attempts: int
