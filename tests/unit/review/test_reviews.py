"""Questions of a running service: opened in a handler, parked by one, escalated by time."""

from __future__ import annotations

from typing import Any

import pytest

from spoolproof import Delivery, InvalidMessage, Park, RegistrationError, Service, Transaction
from spoolproof.errors import Conflict
from spoolproof.message import message_key
from spoolproof.review.actions import Decision

TYPE = "shop.order.placed"


def a_shop() -> Service:
    """Return a service whose handler parks what it is told to, and else opens a question."""
    service = Service("shop")

    @service.on(TYPE)
    async def place(order: dict[str, Any], delivery: Delivery, tx: Transaction) -> Park | None:
        await tx.publish({"id": order["id"]}, type="shop.order.seen")
        if order["cents"] < 0:
            return Park("What does a negative price mean?")
        await service.reviews.open("order.flagged", order["id"], "May it go?", evidence=order)
        return None

    @service.reviews.action("order.flagged", "approve")
    async def approve(decision: Decision, tx: Transaction) -> None:
        await tx.publish({"id": decision.item.subject}, type="shop.order.approved")

    return service


@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_a_question_is_asked_and_answered(store: Any) -> None:
    """Opened in the handler's own transaction, without being told; the effect publishes with the decision."""
    async with a_shop().test(store=store) as app:
        await app.publish({"id": "o-1", "cents": 5}, type=TYPE)
        await app.settled()
        (item,) = (await app.service.reviews.ls())["items"]
        await app.service.reviews.resolve(item["id"], "approve", actor="ann", reason="paid")
        await app.settled()

        assert ("o-1", ("approve",), "normal") == (item["subject"], item["actions"], item["priority"])
        assert [{"id": "o-1"}] == app.published("shop.order.approved")
        assert {"checked": 1, "faults": []} == await app.service.reviews.verify()


@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_a_renamed_handler_parks_and_replays_under_all_its_names(store: Any) -> None:
    """The release before looks under its own name; and a replay that leaves one of them would be a duplicate."""
    service = Service("shop")
    is_decided = False

    @service.on("order", queue="shop.new", formerly=["shop.old"])
    async def new(order: dict[str, int], tx: Transaction) -> None:
        if not is_decided:
            raise Park("May it go?")
        await tx.publish(order, type="shop.order.seen")

    async with service.test(store=store) as app:
        for destination in ("events", "queue:shop.old"):
            await app.publish({"n": 1}, type="order", id="message-1", destination=destination)
            await app.settled()
        (item,) = (await service.reviews.ls())["items"]
        (message, *_) = app.messages
        key = message_key(message)
        assert key is not None
        assert await service.runtime.store.inbox.contains("shop.old", key)

        is_decided = True
        await service.reviews.resolve(item["id"], "replay", actor="ann", reason="it may")
        await app.settled()

        assert [{"n": 1}] == app.published("shop.order.seen")


@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_a_parked_message_waits_for_a_person(store: Any) -> None:
    """Its effects are undone, its redelivery is a duplicate, and a replay runs it once more under the same id."""
    async with a_shop().test(store=store) as app:
        reviews = app.service.reviews
        for _ in range(2):
            await app.publish({"id": "o-1", "cents": -5}, type=TYPE, id="message-1")
            await app.settled()

        (item,) = (await reviews.ls())["items"]
        assert ("message", "What does a negative price mean?", 1) == (item["kind"], item["question"], item["seen"])
        assert [] == app.published("shop.order.seen")
        assert () == tuple(app.dead_letters)
        shown = await reviews.show(item["id"])
        assert ("message-1", '{"id":"o-1","cents":-5}') == (shown["message"]["id"], shown["message"]["body"])

        await reviews.resolve(item["id"], "replay", actor="ann", reason="try again")
        await app.settled()
        (again,) = (await reviews.ls())["items"]
        assert again["id"] != item["id"], "it was parked once more"
        with pytest.raises(InvalidMessage, match="give the whole body"):
            await reviews.resolve(again["id"], "edit", actor="ann", reason="typo")
        edited = {"body": {"id": "o-1", "cents": 5}}
        await reviews.resolve(again["id"], "edit", actor="ann", reason="typo", values=edited)
        await app.settled()

        assert [{"id": "o-1"}] == app.published("shop.order.seen")
        (flagged,) = (await reviews.ls())["items"]
        assert "order.flagged" == flagged["kind"]
        await app.publish({"id": "o-1", "cents": -5}, type=TYPE, id="message-1")
        await app.settled()
        assert 1 == len((await reviews.ls())["items"]), "the one it was made from stays handled"


async def test_what_is_discarded_stays_handled() -> None:
    async with a_shop().test() as app:
        await app.publish({"id": "o-1", "cents": -5}, type=TYPE, id="message-1")
        await app.settled()
        (item,) = (await app.service.reviews.ls())["items"]
        await app.service.reviews.resolve(item["id"], "discard", actor="ann", reason="a test order")
        await app.publish({"id": "o-1", "cents": -5}, type=TYPE, id="message-1")
        await app.settled()

        assert [] == (await app.service.reviews.ls())["items"]


async def test_what_nobody_decides_grows_more_urgent() -> None:
    """By time alone nothing is decided: priority, due time, trail and health tell."""
    async with a_shop().test() as app:
        await app.service.reviews.open("order.flagged", "o-1", "May it go?", due=60, priority="low")
        await app.advance(30)
        assert 0 == (await app.service.reviews.ls())["items"][0]["level"]
        await app.advance(60)
        (item,) = (await app.service.reviews.ls())["items"]

        assert (1, "normal", False, "open") == (item["level"], item["priority"], item["is_overdue"], item["state"])
        trail = (await app.service.reviews.show(item["id"]))["trail"]
        assert [("opened", "spoolproof"), ("escalated", "spoolproof")] == [(one["verb"], one["actor"]) for one in trail]


async def test_health_tells_of_too_many_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPOOLPROOF_REVIEW_OPEN_MAX", "1")
    async with a_shop().test() as app:
        for n in range(2):
            await app.service.reviews.open("order.flagged", f"o-{n}", "May it go?")
        await app.advance(30)

        assert "review: 2 items are open, more than 1; spoolproof review ls" in [
            issue for part in app.service.runtime.parts for issue in part.report().issues
        ]


async def test_bad_input_is_refused_at_the_edge() -> None:
    """Each error names the value, the argument and what to do."""
    service = a_shop()
    with pytest.raises(RegistrationError, match="has an effect already"):
        service.reviews.action("order.flagged", "approve")(_effect)
    with pytest.raises(RegistrationError, match="write `async def effect"):
        service.reviews.action("order.flagged", "other")(lambda decision, tx: None)  # type: ignore[arg-type, return-value]
    async with service.test() as app:
        reviews = app.service.reviews
        for change, words in (
            ({"kind": "order.unknown"}, "register each"),
            ({"actions": ["explode"]}, "explode"),
            ({"subject": ""}, "subject=''"),
            ({"question": " "}, "question=' '"),
            ({"evidence": object()}, "is no JSON"),
            ({"evidence": "x" * 70_000}, "at most 65536 bytes"),
            ({"priority": "urgent"}, "one of low, normal, high, critical"),
            ({"due": -1}, "due=-1"),
        ):
            with pytest.raises(InvalidMessage, match=words):
                await reviews.open(**{"kind": "order.flagged", "subject": "o-1", "question": "May it go?", **change})
        opened = await reviews.open("order.flagged", "o-1", "May it go?")
        with pytest.raises(InvalidMessage, match="offers approve"):
            await reviews.resolve(opened.id, "explode", actor="ann", reason="why not")
        with pytest.raises(InvalidMessage, match="actor=''"):
            await reviews.resolve(opened.id, "approve", actor="", reason="paid")
        await reviews.resolve(opened.id, "approve", actor="ann", reason="paid")
        with pytest.raises(Conflict, match="was resolved with 'approve' by ann"):
            await reviews.claim(opened.id, actor="bob")


async def _effect(decision: Decision, tx: Transaction) -> None:
    """Do nothing."""
