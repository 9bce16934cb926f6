"""A bulk replay in a whole service: the canary first, the rest if it succeeds, and who may ask for what."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from spoolproof import Service, event
from spoolproof.errors import Conflict, InvalidMessage, NotFound
from spoolproof.testing.app import App
from spoolproof.testing.clock import ManualClock

WHO = {"actor": "ann", "reason": "the bank is back"}


@event("order.placed")
class OrderPlaced(msgspec.Struct):
    n: int


class Bank:
    """What the handler needs. is_open: by number of the order; slow: how long a payment hangs, in seconds."""

    def __init__(self) -> None:
        self.broken = True
        self.slow = 0.0
        self.paid: list[int] = []

    def service(self, clock: ManualClock) -> Service:
        service = Service("shop")

        @service.on(OrderPlaced, queue="pay", attempts=1, concurrency=1, timeout=300)
        async def pay(order: OrderPlaced) -> None:
            if self.slow:
                await clock.sleep(self.slow)
            if self.broken:
                raise RuntimeError("the bank is closed")
            self.paid.append(order.n)

        return service


async def given_up(app: App, count: int) -> None:
    for n in range(count):
        await app.publish(OrderPlaced(n))
    await app.settled()
    assert count == len(app.dead_letters)


async def until_ended(app: App, id: str) -> dict[str, Any]:
    for _ in range(120):
        await app.advance(1.0)
        found = await app.service.dead_letters.bulk(id)
        if found["ended_at"] is not None:
            return found
    raise AssertionError(found)


async def test_the_rest_follows_once_the_canary_has_succeeded() -> None:
    """And no faster than 50 a second."""
    clock, bank = ManualClock(), Bank()
    async with bank.service(clock).test(clock=clock) as app:
        await given_up(app, 60)
        bank.broken = False
        assert 60 == await app.service.dead_letters.matching("replay", consumer="pay")

        started = await app.service.dead_letters.start_bulk("replay", **WHO, consumer="pay")
        await app.advance(1.0)
        first = len(bank.paid)
        ended = await until_ended(app, started["id"])

    assert (60, 1) == (started["total"], first)
    assert ("done", 60, 0, {"resolved": 60}) == tuple(ended[name] for name in ("state", "moved", "skipped", "outcomes"))
    assert list(range(60)) == sorted(bank.paid)


async def test_a_canary_that_fails_leaves_the_rest_alone_and_says_so() -> None:
    """What is still broken must not be hit a thousand times to find that out."""
    clock, bank = ManualClock(), Bank()
    async with bank.service(clock).test(clock=clock) as app:
        await given_up(app, 5)
        desk = app.service.dead_letters
        started = await desk.start_bulk("replay", **WHO)
        stopped = await until_ended(app, started["id"])
        replays = [letter["replays"] for letter in (await desk.ls())["dead_letters"]]

        bank.broken = False
        await desk.resume(started["id"], **WHO)
        ended = await until_ended(app, started["id"])

    assert ("stopped", 1, 4) == (stopped["state"], stopped["moved"], stopped["left"])
    assert "failed again: RuntimeError: the bank is closed" in stopped["history"][-1].detail
    assert [0, 0, 0, 0, 1] == sorted(replays)
    assert ("done", 5) == (ended["state"], ended["moved"])
    assert 4 == len(bank.paid)  # the first canary is open again: a bulk sends nothing twice


async def test_a_canary_that_hangs_is_given_a_minute() -> None:
    """Nobody knows what it does there; the others would do it too."""
    clock, bank = ManualClock(), Bank()
    async with bank.service(clock).test(clock=clock) as app:
        await given_up(app, 3)
        bank.broken, bank.slow = False, 200.0
        started = await app.service.dead_letters.start_bulk("replay", **WHO)
        for _ in range(70):
            await clock.advance(1.0)
        found = await app.service.dead_letters.bulk(started["id"])
        bank.slow = 0.0
        await app.advance(200.0)

    assert ("stopped", 1) == (found["state"], found["moved"])
    assert "did not succeed within 60 s" in found["history"][-1].detail
    assert 1 == len(bank.paid)


async def test_a_bulk_that_is_cancelled_in_the_middle_adds_up() -> None:
    """What was moved is moved; the others are as they were."""
    clock, bank = ManualClock(), Bank()
    async with bank.service(clock).test(clock=clock) as app:
        await given_up(app, 120)
        bank.broken = False
        desk = app.service.dead_letters
        started = await desk.start_bulk("replay", **WHO, canary=False)
        await app.advance(1.0)
        cancelled = await desk.cancel(started["id"], actor="bob", reason="wrong ones")
        await app.advance(10.0)
        now = await desk.bulk(started["id"])
        groups = await desk.groups()
        with pytest.raises(Conflict, match="cancelled"):
            await desk.cancel(started["id"], **WHO)

    assert ("cancelled", 50, 70) == (cancelled["state"], cancelled["moved"], cancelled["left"])
    assert (50, 70) == (now["moved"], groups["open"])
    assert 50 == len(bank.paid)


async def test_what_is_asked_for_wrongly_is_refused_at_once() -> None:
    """Before anything is written."""
    clock = ManualClock()
    async with Bank().service(clock).test(clock=clock) as app:
        desk = app.service.dead_letters
        for wrong in ({"verb": "delete", **WHO}, {"verb": "replay", "actor": " ", "reason": "x"}):
            with pytest.raises(InvalidMessage):
                await desk.start_bulk(**wrong)
        with pytest.raises(InvalidMessage, match="queue:NAME"):
            await desk.start_bulk("replay", **WHO, to="events")
        for verb in (desk.bulk("nothing"), desk.cancel("nothing", **WHO), desk.resume("nothing", **WHO)):
            with pytest.raises(NotFound):
                await verb
        assert {"bulks": []} == await desk.bulks()
