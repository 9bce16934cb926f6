"""A stand-in for the product service, which knows what is left of what. Nothing of Spoolproof in it.

uvicorn shop.products:app --port 8001
"""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, HTTPException, Query
from pydantic import BaseModel

IN_STOCK = {"lamp": 100_000, "chair": 12, "clock": 0}

app = FastAPI(title="products")


class Availability(BaseModel):
    product_id: str
    quantity: int
    is_available: bool


@app.get("/products/{product_id}/availability")
async def show_availability(product_id: str, quantity: Annotated[int, Query(ge=1)] = 1) -> Availability:
    """Say whether `quantity` of a product can be had, and how many are left."""
    if product_id not in IN_STOCK:
        raise HTTPException(404, f"there is no product {product_id!r}")
    left = IN_STOCK[product_id]
    return Availability(product_id=product_id, quantity=left, is_available=quantity <= left)


@app.get("/health")
async def show_health() -> dict[str, str]:
    return {"status": "ok"}
