"""Batches: every item ends in exactly one reported state, whatever the others do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from spoolproof import DeadLetter, InvalidMessage, Park, RegistrationError, RetryLater, Service, Transaction
from spoolproof.clock import SystemClock
from spoolproof.consumer.jobs import BatchFailed, BatchFinished, BatchInvalid, BatchTooLarge, JobContext, Problem
from spoolproof.consumer.jobs.desk import message_of
from spoolproof.consumer.jobs.report import BatchReport
from spoolproof.dead_letters.record import consumer_dead_letter
from spoolproof.errors import Conflict, InvariantViolated, NotFound
from spoolproof.ids import Ids
from spoolproof.policies import Registry
from spoolproof.ports.batches import Batch, Batches, BatchState, Item, ItemState
from spoolproof.testing.clock import ManualClock

WHO: dict[str, Any] = {"actor": "ann", "reason": "mended"}


class Image(msgspec.Struct, frozen=True):
    width: int
    how: str = "well"


@dataclass
class Plain:
    n: int


class Shop:
    """A service with jobs that end as their items say."""

    def __init__(self, effect: str = "once") -> None:
        self.service = Service("shop", policies=Registry({}))
        self.ran: list[tuple[str, str, int]] = []
        self.finished: list[BatchFinished] = []
        self.is_mended = False

        @self.service.batches.job("image.resize", effect=effect, validate=self.problems, item_id=self.id_of)
        async def resize(item: Image, job: JobContext) -> dict[str, int]:
            self.ran.append((job.item_id, job.key, job.attempt))
            if not self.is_mended:
                await self.fail(item.how)
            return {"width": item.width}

        @self.service.on(BatchFinished)
        async def over(finished: BatchFinished) -> None:
            self.finished.append(finished)

    @staticmethod
    def problems(item: Image) -> list[Problem | str]:
        if item.how == "raise":
            raise RuntimeError("the validator is broken")
        return [Problem("is not positive", "width")] if item.width < 1 else []

    @staticmethod
    def id_of(item: Image) -> str:
        return f"i-{item.width}"

    @staticmethod
    async def fail(how: str) -> None:
        if how == "never":
            raise DeadLetter("no image at https://ann:secret@files/1?token=x")
        if how == "unknown":
            raise ConnectionResetError("cut off")
        if how == "later":
            raise RetryLater(15)
        if how == "tomorrow":
            raise RetryLater(3600)
        if how == "asked":
            raise Park("Is it ours?")
        if how == "bug":
            raise KeyError("colour")

    async def states(self, id: str) -> dict[str, list[str]]:
        report = await self.service.batches.get(id)
        return {state: [item.id for item in report.items if item.state == state] for state in ItemState}


EVERY = [Image(1), {"width": 2}, Image(3, "never"), {"width": "4"}, Image(5, "unknown"), Image(6, "later"), Image(-7)]


@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_a_batch_with_every_state_at_once_adds_up(store: Any) -> None:
    """A bad item stops no other; what waits is pending until it is cancelled, and may be sent again after that."""
    shop = Shop()
    batches = shop.service.batches
    async with shop.service.test(store=store) as app:
        receipt = await batches.submit("image.resize", EVERY)
        assert (7, 2) == (receipt.total, receipt.invalid)
        await app.settled()

        states = await shop.states(receipt.batch_id)
        assert {"succeeded": ["i-1", "i-2"], "failed": ["i-3"], "unknown": ["i-5"], "pending": ["i-6"]} == {
            state: ids for state, ids in states.items() if state != "invalid"
        }
        report = await batches.get(receipt.batch_id)
        assert (BatchState.RUNNING, 202, False) == (report.state, report.status_code, report.ok)
        wrong, negative = report.invalid
        assert ("width", "Expected `int`, got `str`", 0) == (wrong.field, wrong.error, wrong.attempts)
        assert ("width", "is not positive", "i--7") == (negative.field, negative.error, negative.id)
        assert {"width": 1} == report.succeeded[0].value
        assert "secret" not in report.failed[0].error
        assert "token" not in report.failed[0].error
        assert report.pending[0].next_at is not None
        (asked,) = (await shop.service.reviews.ls())["items"]
        assert asked["id"] == report.unknown[0].review_id
        assert 1 == len(app.dead_letters)

        await batches.cancel(receipt.batch_id, **WHO)
        with pytest.raises(Conflict, match="cancelled"):
            await batches.cancel(receipt.batch_id, **WHO)
        await app.advance(16)
        assert ["i-6"] == (await shop.states(receipt.batch_id))["pending"]
        assert [("cancelled", 2, 1, 2, 1, 1)] == [_numbers(one) for one in shop.finished]

        shop.is_mended = True
        assert 2 == await batches.replay(receipt.batch_id, **WHO)
        await app.settled()
        report = await batches.get(receipt.batch_id)
        assert [("finished", 4, 0, 2, 1, 0)] == [_numbers(one) for one in shop.finished[1:]]
        assert (207, 0) == (report.status_code, len(app.dead_letters))
        with pytest.raises(Conflict, match="none of its items"):
            await batches.replay(receipt.batch_id, **WHO)

        await shop.service.reviews.resolve(asked["id"], "replay", **WHO)
        await app.settled()
        assert ["i-1", "i-2", "i-3", "i-5", "i-6"] == (await shop.states(receipt.batch_id))["succeeded"]
    keys = {id: {key for one, key, _ in shop.ran if one == id} for id, _, _ in shop.ran}
    assert all(len(one) == 1 for one in keys.values()), "an item kept its key"


def _numbers(one: BatchFinished) -> tuple[str, int, int, int, int, int]:
    return one.state, one.succeeded, one.failed, one.invalid, one.unknown, one.pending


async def test_a_batch_that_runs_here_reports_the_same_way() -> None:
    shop = Shop(effect="keyed")
    async with shop.service.test() as app:
        images = [
            Image(1),
            Image(2, "never"),
            Image(0),
            Image(4, "asked"),
            Image(5, "raise"),
            Image(1),
            Image(6, "bug"),
        ]
        running = asyncio.ensure_future(shop.service.batches.run("image.resize", images))
        await app.settled()
        report = await running

    assert [1, 2, 3, 1, 0] == [report.counts[state] for state in ItemState]
    assert ["RuntimeError: the validator is broken", "its id 'i-1' is that of item 0"] == [
        item.error for item in report.invalid[1:]
    ]
    assert (BatchState.FINISHED, 207, False, []) == (report.state, report.status_code, report.ok, report.retried)
    assert msgspec.json.decode(report.to_json())["items"][0]["value"] == {"width": 1}
    with pytest.raises(BatchFailed, match="1 succeeded, 2 failed, 3 invalid, 1 unknown"):
        report.raise_if_failed()


async def test_what_the_deadline_leaves_is_pending_and_what_it_cuts_is_unknown() -> None:
    """The caller waits no longer, and is told what may have happened."""
    service = Service("shop", policies=Registry({}))
    begun: list[int] = []
    clock = ManualClock()

    @service.batches.job("slow", concurrency=1, timeout=60)
    async def slow(item: Plain) -> int:
        begun.append(item.n)
        await clock.sleep(8)
        return item.n

    async with service.test(clock=clock) as app:
        running = asyncio.ensure_future(service.batches.run("slow", [Plain(n) for n in range(4)], deadline=20))
        await app.advance(21)
        report = await running

    assert [0, 1, 2] == begun
    states = [item.state.value for item in report.items]
    assert ["succeeded", "succeeded", "unknown", "pending"] == states
    assert "the deadline came first" == report.pending[0].reason


async def test_a_retried_item_says_so_and_an_outage_is_waited_for() -> None:
    """Failures open the job's own breaker; what comes then waits for it and burns no attempt."""
    service = Service("shop", policies=Registry({}))
    is_away = True
    calls = 0

    @service.batches.job("mail", concurrency=2)
    async def mail(item: dict[str, Any]) -> None:
        nonlocal calls
        calls += 1
        if is_away:
            raise ConnectionRefusedError("no route")

    async with service.test() as app:
        running = asyncio.ensure_future(service.batches.run("mail", [{"n": n} for n in range(30)]))
        for _ in range(40):
            await app.advance(1)
            if service.batches._part.jobs.by_name["mail"].policy.state == "open":
                break
        before, is_away = calls, False
        await app.advance(120)
        report = await running

    assert before < 60, "an open breaker lets nothing through"
    assert report.counts[ItemState.SUCCEEDED] >= 20
    assert report.retried


async def test_a_job_that_hangs_or_fails_leaves_another_alone() -> None:
    """Its threads, slots, breaker and queue are its own: the other's items all run while nothing of it moves."""
    service = Service("shop", policies=Registry({}))
    free, entered = threading.Event(), threading.Semaphore(0)

    @service.batches.job("hangs", concurrency=3)
    def hangs(item: dict[str, Any]) -> None:
        entered.release()
        free.wait(60)

    @service.batches.job("fails", concurrency=3)
    async def fails(item: dict[str, Any]) -> None:
        raise ConnectionRefusedError("no route")

    @service.batches.job("works", concurrency=3)
    def works(item: dict[str, Any]) -> int:
        return int(item["n"])

    async with service.test() as app:
        jobs = service.batches._part.jobs.by_name
        hanging = asyncio.ensure_future(service.batches.run("hangs", [{}] * 9))
        await asyncio.to_thread(lambda: [entered.acquire(timeout=60) for _ in range(3)])
        failing = await service.batches.submit("fails", [{}] * 40)
        for _ in range(30):
            await app.advance(0.5)
        works_here = await service.batches.run("works", [{"n": n} for n in range(50)])
        submitted = await service.batches.submit("works", [{"n": n} for n in range(50)])
        await app.settled()
        report = await service.batches.get(submitted.batch_id)

        assert works_here.ok
        assert (True, BatchState.FINISHED) == (report.ok, report.state)
        assert "closed" != jobs["fails"].policy.state
        assert "closed" == jobs["works"].policy.state
        assert [] == (await service.batches.get(failing.batch_id)).failed, "an outage makes no dead letters"
        free.set()
        hung = await hanging
    assert hung.counts[ItemState.SUCCEEDED] >= 6


async def test_a_batch_commits_with_its_handler_or_not_at_all() -> None:
    service = Service("shop", policies=Registry({}))
    submitted: list[Any] = []

    @service.batches.job("notify")
    async def notify(item: dict[str, Any], tx: Transaction) -> None:
        await tx.publish({"n": item["n"]}, type="notified")

    @service.on("order.placed", attempts=1)
    async def placed(order: dict[str, Any], tx: Transaction) -> None:
        submitted.append(await service.batches.submit("notify", [{"n": 1}, {"n": 2}], id=order["id"]))
        if order["fails"]:
            raise DeadLetter("changed its mind")

    async with service.test() as app:
        for order in ({"id": "a", "fails": True}, {"id": "b", "fails": False}, {"id": "b", "fails": False}):
            await app.publish(order, type="order.placed")
            await app.settled()

        assert [True, True, False] == [one.is_new for one in submitted]
        with pytest.raises(NotFound, match="no batch"):
            await service.batches.get(submitted[0].batch_id)
        assert (await service.batches.get(submitted[1].batch_id)).ok
        assert 2 == len(app.published("notified"))
        assert [1] == [len(await service.batches.ls(job=name)) for name in ("notify",)]
        here = await service.batches.run("notify", [{"n": 3}])
        await app.settled()
        assert (True, 3) == (here.ok, len(app.published("notified")))


async def test_an_item_that_is_given_up_elsewhere_ends_its_batch() -> None:
    """The broker gave up on one message: nobody's handler saw that, and the batch must not wait for ever."""
    shop = Shop()
    async with shop.service.test() as app:
        receipt = await shop.service.batches.submit("image.resize", [Image(1), Image(2, "tomorrow")])
        await app.settled()
        store = shop.service.runtime.store
        port = store.port(Batches)
        ((item, body),) = await port.items(receipt.batch_id, [ItemState.PENDING])
        found = await port.get(receipt.batch_id)
        assert found is not None
        message = message_of(found[0], item, body, app.clock.now()).message
        await store.dead_letters.add(
            consumer_dead_letter(
                id=Ids(app.clock).message_id(),
                queue="shop.job.image.resize",
                message=message,
                message_id=message.id,
                reason="broker:delivery_limit",
                error=None,
                detail="delivered 20 times",
                attempts=(),
                now=app.clock.now(),
            )
        )
        await app.advance(90)

        report = await shop.service.batches.get(receipt.batch_id)
        assert (BatchState.FINISHED, ["delivered 20 times"]) == (report.state, [one.error for one in report.failed])


async def test_bad_input_is_refused_before_anything_runs() -> None:
    shop = Shop()
    batches = shop.service.batches

    def many(count: int) -> Iterator[Image]:
        return (Image(n + 1) for n in range(count))

    async with shop.service.test():
        for call in (batches.run, batches.submit):
            with pytest.raises(BatchInvalid, match="empty"):
                await call("image.resize", [])
            with pytest.raises(BatchInvalid, match=r"1.*of 2 are invalid: 1: width: Expected"):
                await call("image.resize", [Image(1), {"width": None}], on_invalid="refuse")
            with pytest.raises(BatchTooLarge, match="10001 of at most 10000"):
                await call("image.resize", many(20_000))
            with pytest.raises(NotFound, match="there are: image"):
                await call("image.crop", [Image(1)])
            with pytest.raises(InvalidMessage, match="on_invalid"):
                await call("image.resize", [Image(1)], on_invalid="skip")
        large = await batches.run("image.resize", [Image(1, "x" * 300_000)])
        with pytest.raises(InvalidMessage, match="failed, pending"):
            await batches.replay(large.batch_id, only={"unknown"}, **WHO)
        assert [] == await batches.ls()
    assert "at most 262144" in large.invalid[0].error
    assert 422 == large.status_code
    assert [] == shop.ran


def test_a_job_that_cannot_be_served_is_refused_with_every_fault() -> None:
    service = Service("shop", policies=Registry({}))

    async def takes_text(item: str, other: int) -> None: ...

    def sync_with_transaction(item: Plain, tx: Transaction) -> None: ...

    with pytest.raises(RegistrationError, match="58 of a-z"):
        service.batches.job("Image Resize")(takes_text)
    with pytest.raises(RegistrationError) as caught:
        service.batches.job("a", effect="twice", timeout=0, concurrency=0)(takes_text)
    assert [f"{name}=" in str(caught.value) for name in ("effect", "timeout", "concurrency")] == [True] * 3
    assert "'item': one is the item" in str(caught.value)
    with pytest.raises(RegistrationError, match="takes Transaction, a plain function SyncTransaction"):
        service.batches.job("b")(sync_with_transaction)


def test_a_report_whose_counts_do_not_add_up_is_none() -> None:
    """Whatever went wrong, nobody is told that a batch is done which is not."""
    batch = Batch(id="b", service="shop", job="j", total=2, started_at=SystemClock().now())
    with pytest.raises(InvariantViolated, match="2 items"):
        BatchReport(
            batch, {**dict.fromkeys(ItemState, 0), ItemState.FAILED: 1}, [Item(n=0, id="0", state=ItemState.FAILED)]
        )
