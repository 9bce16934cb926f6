"""Two services, and one asks the other: over files, and over RabbitMQ."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from spoolproof import RequestTimeout, Service, Transaction, event
from spoolproof.ports.broker import BrokerStatus, ConnectionState
from spoolproof.requests.part import RequestsPart
from spoolproof.settings import load_settings

pytestmark = [pytest.mark.integration]


@event("shop.price.asked", may_be_unrouted=True)
class PriceAsked(msgspec.Struct):
    article: str


@event("shop.price")
class Price(msgspec.Struct):
    cents: int


def make_shop() -> Service:
    service = Service("shop")

    @service.on(PriceAsked)
    async def price(asked: PriceAsked, tx: Transaction) -> Price:
        await tx.execute("insert into effect (article) values ($1)", asked.article)
        return Price(len(asked.article))

    return service


@pytest.fixture(params=["embedded", pytest.param("rabbitmq", marks=pytest.mark.servers)])
async def services(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Service, Service]]:
    """The shop that answers and a till that asks, each on a store of its own."""
    broker = f"embedded:///{tmp_path}/broker.db"
    if request.param == "rabbitmq":
        broker = request.getfixturevalue("rabbitmq_url")
    shop, till = make_shop(), Service("till")
    for service in (shop, till):
        service._given_settings = load_settings(store=f"sqlite:///{tmp_path}/{service.name}.db", broker=broker)
        await service.start()
    async with shop.transaction() as tx:
        await tx.execute("create table effect (article text)")
    async with asyncio.timeout(20):
        while any(_is_away(service.broker.status) for service in (shop, till)):
            await asyncio.sleep(0.05)
    yield shop, till
    for service in (till, shop):
        await service.stop()


def _is_away(status: BrokerStatus) -> bool:
    return status.state is not ConnectionState.CONNECTED


async def effects(shop: Service) -> list[str]:
    async with shop.transaction() as tx:
        return [str(row["article"]) for row in await tx.fetch("select article from effect order by article")]


async def test_one_service_asks_another(services: tuple[Service, Service]) -> None:
    shop, till = services
    articles = ["x" * n for n in range(1, 31)]
    answers = await asyncio.gather(
        *(till.request(PriceAsked(article), timeout=20, reply=Price) for article in articles)
    )
    assert [Price(n) for n in range(1, 31)] == answers
    assert articles == await effects(shop)
    assert {"answered": 30, "timeout": 0} == till.runtime.part(RequestsPart).outcomes


async def test_a_lost_connection_costs_time_and_no_answer(services: tuple[Service, Service]) -> None:
    """The request is in the outbox, the answer in the shop's: both wait for the broker, and the queue is there."""
    shop, till = services
    connections = getattr(till.runtime.broker.inner, "_connections", ())
    if not connections:
        pytest.skip("files have no connection that could be lost")
    assert Price(1) == await till.request(PriceAsked("a"), timeout=20, reply=Price)
    asking = asyncio.create_task(till.request(PriceAsked("bb"), timeout=30, reply=Price))
    for connection in connections:
        connection.abort("cut by a test")
    assert Price(2) == await asking
    assert ["a", "bb"] == await effects(shop)


async def test_nobody_answers_and_the_error_says_so(services: tuple[Service, Service]) -> None:
    _, till = services
    with pytest.raises(RequestTimeout, match=r"till\.nothing .* no answer within 0\.5 s"):
        await till.request({}, type="till.nothing", timeout=0.5)
