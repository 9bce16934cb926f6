"""The shop that answers requests, until it is ended. Its effects and its queue are files in the working directory."""

from __future__ import annotations

import asyncio

import msgspec

from spoolproof import Service, Transaction, event


@event("shop.price.asked")
class PriceAsked(msgspec.Struct):
    article: str


service = Service("shop")


@service.on(PriceAsked)
async def price(asked: PriceAsked, tx: Transaction) -> dict[str, int]:
    await tx.execute("create table if not exists effect (article text)")
    await tx.execute("insert into effect (article) values ($1)", asked.article)
    return {"cents": len(asked.article)}


async def main() -> None:
    await service.start()
    await asyncio.Event().wait()


asyncio.run(main())
