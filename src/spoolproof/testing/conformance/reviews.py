"""The contract of `ports.reviews.Reviews`, and of what people do at once with one item of it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from spoolproof import limits
from spoolproof.errors import Conflict
from spoolproof.outbox.publish import Publisher
from spoolproof.outbox.transaction import UnitsOfWork
from spoolproof.ports.reviews import ReviewFilter, ReviewItem, Reviews, ReviewState
from spoolproof.ports.store import Store
from spoolproof.review.actions import Actions, Decision
from spoolproof.review.desk import Desk, Tools
from spoolproof.review.item import new_item
from spoolproof.review.opening import Opened, open_item
from spoolproof.testing.conformance._messages import CLOCK, IDS
from spoolproof.testing.conformance._store import StoreSuite, rolled_back

OWN, KIND = "conformance", "order.flagged"


class Broken(Exception):
    """An effect that fails."""


def a_desk(store: Store, done: list[str] | None = None) -> Desk:
    """Return a desk whose items can be approved, and refused by an effect that raises."""
    actions = Actions()

    async def approve(decision: Decision, tx: Any) -> None:
        await tx.publish({"subject": decision.item.subject}, type="order.approved")
        if done is not None:
            done.append(decision.item.subject)

    async def refuse(decision: Decision, tx: Any) -> None:
        await tx.publish({"subject": decision.item.subject}, type="order.refused")
        raise Broken

    actions.add(KIND, "approve", approve)
    actions.add(KIND, "refuse", refuse)
    actions.add(KIND, "refund", approve, four_eyes=True)
    units = UnitsOfWork(store, Publisher(store, source=OWN, clock=CLOCK, ids=IDS))
    return Desk(Tools(store=store, units=units, actions=actions, clock=CLOCK))


def a_question(subject: str = "o-1", **fields: Any) -> ReviewItem:
    """Return an item that nobody has seen."""
    usual: dict[str, Any] = {"id": IDS.message_id(), "service": OWN, "kind": KIND, "question": "May it go?"}
    actions = ("approve", "refuse", "refund")
    return new_item(**{**usual, "subject": subject, "actions": actions, "now": CLOCK.now(), **fields})


async def an_item(store: Store, subject: str = "o-1", **fields: Any) -> Opened:
    """Open an item."""
    async with store.transaction() as tx:
        return await open_item(store.port(Reviews), tx, a_question(subject, **fields))


@pytest.mark.asyncio
class ReviewsConformance(StoreSuite):
    """Needs the fixture `store`, made with the ports of `wiring`."""

    async def test_one_item_is_open_for_a_subject(self, store: Store) -> None:
        """Ten failures of one order are one question; the next one, after the answer, is another."""
        first = await an_item(store, evidence={"cents": 10_000})
        again = await an_item(store, evidence={"cents": 20_000})
        other = await an_item(store, "o-2")

        assert (True, False, True) == (first.is_new, again.is_new, other.is_new)
        assert first.id == again.id
        shown = await a_desk(store).show(first.id)
        assert (2, {"cents": 10_000}) == (shown["seen"], shown["evidence"])
        assert [("opened", None), ("seen", {"cents": 20_000})] == [
            (one["verb"], one["detail"]) for one in shown["trail"]
        ]
        await a_desk(store).resolve(first.id, "approve", actor="ann", reason="paid")
        assert (await an_item(store)).is_new

    async def test_an_item_is_there_if_and_only_if_its_transaction_commits(self, store: Store) -> None:
        """A question about what never happened wastes somebody's morning."""
        item = a_question()
        async with rolled_back(store) as tx:
            await open_item(store.port(Reviews), tx, item)

        assert await store.port(Reviews).get(item.id) is None
        assert [] == list(await store.port(Reviews).search(ReviewFilter()))

    async def test_of_two_who_claim_at_once_one_has_it(self, store: Store) -> None:
        """And the other is told who; when the claim has run out, or is given back, it is anybody's."""
        desk, id = a_desk(store), (await an_item(store)).id

        won = await asyncio.gather(*(desk.claim(id, actor=one) for one in ("ann", "bob")), return_exceptions=True)

        (lost,) = [one for one in won if isinstance(one, Conflict)]
        (claim,) = [one for one in won if isinstance(one, dict)]
        assert f"is claimed by {claim['claimed_by']} until" in str(lost)
        other = {"ann": "bob", "bob": "ann"}[claim["claimed_by"]]
        with pytest.raises(Conflict, match="is claimed by"):
            await desk.resolve(id, "approve", actor=other, reason="mine")
        with pytest.raises(Conflict, match="no longer claimed under this token"):
            await desk.release(id, actor=other, token="guessed")
        assert (await desk.release(id, actor=claim["claimed_by"], token=claim["token"]))["claimed_by"] is None
        assert other == (await desk.claim(id, actor=other))["claimed_by"]

    async def test_of_two_who_resolve_at_once_one_is_heard(self, store: Store) -> None:
        """The effect is there once, and with it what it published."""
        done: list[str] = []
        desk, id = a_desk(store, done), (await an_item(store)).id

        both = [desk.resolve(id, "approve", actor=one, reason="paid") for one in ("ann", "bob")]
        ended = await asyncio.gather(*both, return_exceptions=True)

        assert 1 == sum(isinstance(one, Conflict) for one in ended)
        assert ["o-1"] == done
        assert 1 == (await store.outbox.backlog()).rows

    async def test_a_decision_whose_effect_fails_is_none(self, store: Store) -> None:
        """Resolved without its effect, or the reverse, is what must never happen."""
        desk, id = a_desk(store), (await an_item(store)).id

        with pytest.raises(Broken):
            await desk.resolve(id, "refuse", actor="ann", reason="fraud")

        shown = await desk.show(id)
        assert ("open", ["opened"]) == (shown["state"], [one["verb"] for one in shown["trail"]])
        assert 0 == (await store.outbox.backlog()).rows

    async def test_four_eyes_are_those_of_two_people(self, store: Store) -> None:
        """Whoever proposed it, or asked for it, is not the second; other values are another proposal."""
        done: list[str] = []
        desk, id = a_desk(store, done), (await an_item(store, requested_by="cem")).id

        first = await desk.resolve(id, "refund", actor="ann", reason="broken", values={"cents": 5})
        assert ("open", "refund", "ann") == (first["state"], first["proposed"], first["proposed_by"])
        for actor, words in (("ann", "another person must agree"), ("cem", "another person decides")):
            with pytest.raises(Conflict, match=words):
                await desk.resolve(id, "refund", actor=actor, reason="again", values={"cents": 5})
        other = await desk.resolve(id, "refund", actor="bob", reason="less", values={"cents": 4})
        assert ("open", "bob") == (other["state"], other["proposed_by"])
        assert [] == done
        agreed = await desk.resolve(id, "refund", actor="ann", reason="yes", values={"cents": 4})

        assert ("resolved", ["o-1"]) == (agreed["state"], done)

    async def test_many_are_resolved_each_for_itself(self, store: Store) -> None:
        """A dry run changes nothing; what somebody has claimed stays theirs."""
        desk = a_desk(store)
        ids = [(await an_item(store, f"o-{n}")).id for n in range(3)]
        await desk.claim(ids[1], actor="bob")

        dry = await desk.bulk(KIND, "approve", actor="ann", reason="sale", dry_run=True)
        assert (3, 0, 3) == (dry["matched"], dry["resolved"], len((await desk.ls())["items"]))
        done = await desk.bulk(KIND, "approve", actor="ann", reason="sale")

        assert (2, [ids[1]]) == (done["resolved"], [one["id"] for one in done["refused"]])
        assert [ids[1]] == [one["id"] for one in (await desk.ls())["items"]]

    async def test_items_are_found_and_counted(self, store: Store) -> None:
        """Soonest due first, page by page; what is claimed apart."""
        desk, reviews = a_desk(store), store.port(Reviews)
        late = (await an_item(store, "o-1", priority="low")).id
        soon = (await an_item(store, "o-2", priority="critical")).id
        await desk.claim(late, actor="ann")

        page = await desk.ls(limit=1)
        rest = await desk.ls(limit=1, after=page["next"])

        assert [soon, late] == [page["items"][0]["id"], rest["items"][0]["id"]]
        assert [] == (await desk.ls(subject="o-3"))["items"] == (await desk.ls(overdue=True))["items"]
        in_an_hour = CLOCK.now() + timedelta(seconds=3601)
        counts = await reviews.counts(OWN, CLOCK.now())
        assert [(KIND, False, 1, 0), (KIND, True, 1, 0)] == [
            (one.kind, one.is_claimed, one.count, one.overdue) for one in counts
        ]
        assert [(False, 2, 1)] == [
            (one.is_claimed, one.count, one.overdue) for one in await reviews.counts(OWN, in_an_hour)
        ]
        assert sorted([late, soon]) == list(await reviews.ids("", 10))

    async def test_the_trail_is_whole_and_goes_with_its_item(self, store: Store) -> None:
        """A year after the decision; what is open stays."""
        desk, reviews = a_desk(store), store.port(Reviews)
        resolved, still_open = (await an_item(store)).id, (await an_item(store, "o-2")).id
        await desk.claim(resolved, actor="ann")
        await desk.resolve(resolved, "approve", actor="ann", reason="paid")
        assert {"checked": 2, "faults": []} == await desk.verify()

        seconds = {limits.REVIEW_RETENTION_SECONDS: -1.0}
        await store.retention.prune(
            lambda rule: seconds.get(rule.seconds, 1e9) if isinstance(rule.seconds, float) else 1e9, limit=10
        )

        assert await reviews.get(resolved) is None
        (kept,) = await reviews.search(ReviewFilter(state=ReviewState.OPEN))
        assert still_open == kept.id
        assert {"checked": 1, "faults": []} == await desk.verify()
