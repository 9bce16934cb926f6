"""Asking for an answer, in one service on the memory store and broker."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from typing import Any

import msgspec
import pytest

from spoolproof import CodecError, DeadLetter, InvalidMessage, RequestTimeout, Service, Transaction, event
from spoolproof.errors import SettingsError
from spoolproof.message import REPLY_TO
from spoolproof.requests.events import AnsweredLate
from spoolproof.requests.part import RequestsPart
from spoolproof.telemetry.events import Event, listening


@event("shop.price.asked")
class PriceAsked(msgspec.Struct):
    article: str


@event("shop.price")
class Price(msgspec.Struct):
    cents: int


PRICE = Price(1250)


class Shop:
    """A service that answers what a test says, after as many failures as it says."""

    def __init__(self, answer: Any = PRICE, **options: Any) -> None:
        self.service = Service("shop")
        self.answer, self.failures, self.runs = answer, 0, 0
        self.may_end = asyncio.Event()
        self.may_end.set()

        @self.service.on(PriceAsked, delays=(1,), **options)
        async def price(asked: PriceAsked, tx: Transaction) -> Any:
            self.runs += 1
            await self.may_end.wait()
            if self.runs <= self.failures:
                raise RuntimeError("not now")
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer


async def test_the_answer_is_what_the_handler_returns() -> None:
    shop = Shop()
    async with shop.service.test() as app:
        assert Price(1250) == await shop.service.request(PriceAsked("a"), timeout=5, reply=Price)
        asked, answered = app.messages
        assert (asked.id, asked.id) == (answered.causation_id, answered.correlation_id)
        assert asked.expires_at is not None


@pytest.mark.parametrize(("answer", "heard"), [({"cents": 7}, {"cents": 7}), (None, {}), (Price(3), {"cents": 3})])
async def test_an_answer_without_a_class_is_a_dict(answer: Any, heard: dict[str, int]) -> None:
    shop = Shop(answer)
    async with shop.service.test():
        assert heard == await shop.service.request(PriceAsked("a"), timeout=5)


async def test_many_ask_at_once_and_each_hears_its_own() -> None:
    service = Service("shop")

    @service.on("double")
    async def double(payload: dict[str, int]) -> dict[str, int]:
        return {"n": 2 * payload["n"]}

    async with service.test():
        asking = [service.request({"n": n}, type="double", timeout=5) for n in range(100)]
        assert [{"n": 2 * n} for n in range(100)] == await asyncio.gather(*asking)


async def test_a_handler_that_fails_first_answers_once_when_it_succeeds() -> None:
    shop = Shop()
    shop.failures = 2
    async with shop.service.test() as app:
        asking = asyncio.create_task(shop.service.request(PriceAsked("a"), timeout=60, reply=Price))
        await app.advance(10)
        assert Price(1250) == await asking
        assert 3 == shop.runs
        assert ["shop.price.asked", "shop.price"] == [message.type for message in app.messages]


async def test_a_dead_letter_answers_nothing_and_the_timeout_says_what_is_known() -> None:
    shop = Shop(DeadLetter("sold out"))
    async with shop.service.test() as app:
        asking = asyncio.create_task(shop.service.request(PriceAsked("a"), timeout=5, reply=Price))
        await app.advance(6)
        with pytest.raises(
            RequestTimeout, match=r"shop\.price\.asked .* within 5 s. It was stored, .* unknown"
        ) as caught:
            await asking
        assert isinstance(caught.value, TimeoutError)
        (letter,) = app.dead_letters
        assert caught.value.id == letter.message.id
        assert REPLY_TO not in letter.message.headers
        assert ["shop.price.asked"] == [message.type for message in app.messages]


async def test_a_late_answer_is_told_once_and_the_effects_stand() -> None:
    shop = Shop()
    shop.may_end.clear()
    told: list[Event] = []
    async with shop.service.test() as app:
        with listening(told.append):
            asking = asyncio.create_task(shop.service.request(PriceAsked("a"), timeout=5, reply=Price))
            while not shop.runs:
                await asyncio.sleep(0)
            await app.clock.advance(6)
            with pytest.raises(RequestTimeout):
                await asking
            shop.may_end.set()
            await app.settled()
        assert 1 == Counter(type(one) for one in told)[AnsweredLate]
        assert not app.dead_letters
        assert {"answered": 0, "timeout": 1} == shop.service.runtime.part(RequestsPart).outcomes


async def test_no_handler_begins_what_nobody_waits_for_any_more() -> None:
    shop = Shop(concurrency=1)
    shop.may_end.clear()
    async with shop.service.test() as app:
        asking = [asyncio.create_task(shop.service.request(PriceAsked("a"), timeout=5)) for _ in range(2)]
        while not shop.runs:
            await asyncio.sleep(0)
        await app.clock.advance(6)
        shop.may_end.set()
        await app.settled()
        await asyncio.gather(*asking, return_exceptions=True)
        assert 1 == shop.runs
        assert ["expired"] == [letter.reason for letter in app.dead_letters]


async def test_an_answer_of_another_kind_is_an_error_of_who_asked() -> None:
    shop = Shop({"cents": 3})
    async with shop.service.test():
        with pytest.raises(CodecError, match=r"answered with 'shop\.price\.asked\.reply', not with 'shop\.price'"):
            await shop.service.request(PriceAsked("a"), timeout=5, reply=Price)


async def test_what_cannot_be_sent_as_an_answer_fails_the_handler() -> None:
    shop = Shop(answer=7, attempts=1)
    async with shop.service.test() as app:
        asking = asyncio.create_task(shop.service.request(PriceAsked("a"), timeout=5))
        await app.advance(6)
        with pytest.raises(RequestTimeout):
            await asking
        (letter,) = app.dead_letters
        assert "int has no wire name" in letter.error


async def test_a_handler_without_a_transaction_may_ask() -> None:
    shop = Shop()
    heard: list[Price] = []

    @shop.service.on("ask")
    async def ask(payload: dict[str, int]) -> None:
        heard.append(await shop.service.request(PriceAsked("a"), timeout=5, reply=Price))

    async with shop.service.test() as app:
        await app.publish({}, type="ask")
        await app.settled()
        assert [Price(1250)] == heard


async def test_a_handler_with_a_transaction_is_told_why_it_may_not() -> None:
    """It would hold the one writer that its answer needs."""
    shop = Shop()

    @shop.service.on("ask", attempts=1)
    async def ask(payload: dict[str, int], tx: Transaction) -> None:
        await shop.service.request(PriceAsked("a"), timeout=5)

    async with shop.service.test() as app:
        await app.publish({}, type="ask")
        await app.settled()
        assert ["spoolproof.errors.TransactionError"] == [letter.error_class for letter in app.dead_letters]
        assert not shop.runs


@pytest.mark.parametrize(
    ("options", "named"),
    [({"timeout": 0}, "timeout"), ({"timeout": 3601}, "timeout"), ({"timeout": 5, "delay": 3}, "delay"),
     ({"timeout": 5, "expires": 3}, "expires")],
)  # fmt: skip
async def test_a_wrong_option_is_named(options: Any, named: str) -> None:
    shop = Shop()
    async with shop.service.test():
        with pytest.raises(InvalidMessage, match=named):
            await shop.service.request(PriceAsked("a"), **options)


async def test_a_broker_without_own_queues_is_refused_before_anything_is_sent() -> None:
    shop = Shop()
    async with shop.service.test() as app:
        part = shop.service.runtime.part(RequestsPart)
        part._broker.capabilities = dataclasses.replace(part._broker.capabilities, has_own_queues=False)
        with pytest.raises(SettingsError, match="SPOOLPROOF_BROKER"):
            await shop.service.request(PriceAsked("a"), timeout=5)
        assert not app.messages


async def test_a_service_that_stops_keeps_nobody_waiting() -> None:
    shop = Shop()
    shop.may_end.clear()
    async with shop.service.test():
        asking = asyncio.create_task(shop.service.request(PriceAsked("a"), timeout=5))
        while not shop.runs:
            await asyncio.sleep(0)
    with pytest.raises(RequestTimeout, match="the service stopped"):
        await asking
