"""A whole service on the in-memory store and broker: what each kind of ending leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest

from spoolproof import (
    Ack,
    DeadLetter,
    Defer,
    Delivery,
    RetryLater,
    Service,
    StoreUnavailable,
    Transaction,
    event,
    limits,
)
from spoolproof.brokers.memory import MemoryBroker
from spoolproof.clock import SystemClock
from spoolproof.dead_letters.replay import discard, replay
from spoolproof.errors import Conflict, InvalidMessage, NotFound
from spoolproof.ports.dead_letters import DeadLetterFilter, DeadLetterRecord, DeadLetterState
from spoolproof.settings import Settings
from spoolproof.stores.memory import MemoryStore


@event("order.placed")
class OrderPlaced(msgspec.Struct):
    n: int


@event("payment.taken", may_be_unrouted=True)
class PaymentTaken(msgspec.Struct):
    n: int


Behaviour = Callable[[OrderPlaced, Delivery, Transaction], Awaitable[object]]


class SkippingClock(SystemClock):
    """The machine's clock, some seconds on."""

    skipped_seconds = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.skipped_seconds


class Shop:
    """A service with one handler whose behaviour a test sets."""

    def __init__(self) -> None:
        self.service = Service("shop", settings=Settings(store="memory://", broker="memory://"))
        self.attempts: list[int] = []
        self.keys: list[str] = []
        self.behaviour: Behaviour = charge

        @self.service.on(OrderPlaced, queue="shop.orders", attempts=3, delays=(1,), timeout=5)
        async def handle(order: OrderPlaced, delivery: Delivery, tx: Transaction) -> object:
            self.attempts.append(delivery.attempt)
            self.keys.append(delivery.idempotency_key)
            return await self.behaviour(order, delivery, tx)

    @property
    def store(self) -> MemoryStore:
        store = self.service.runtime.store
        assert isinstance(store, MemoryStore)
        return store

    @property
    def broker(self) -> MemoryBroker:
        broker = self.service.runtime.broker.inner
        assert isinstance(broker, MemoryBroker)
        return broker

    async def charges(self) -> list[int]:
        async with self.service.transaction() as tx:
            return list(tx.raw.get("charges", ()))  # type: ignore[attr-defined]

    async def letters(self, state: DeadLetterState | None = None) -> list[DeadLetterRecord]:
        return list(await self.store.dead_letters.search(DeadLetterFilter(state=state)))

    async def until(self, condition: Callable[[], Awaitable[bool]], seconds: float = 8.0) -> None:
        async with asyncio.timeout(seconds):
            while not await condition():
                await asyncio.sleep(0.005)

    async def until_charged(self, *numbers: int) -> None:
        async def is_charged() -> bool:
            return sorted(numbers) == sorted(await self.charges())

        await self.until(is_charged)

    async def until_letters(self, count: int, state: DeadLetterState | None = None) -> list[DeadLetterRecord]:
        async def has_letters() -> bool:
            return count == len(await self.letters(state))

        await self.until(has_letters)
        return await self.letters(state)


async def charge(order: OrderPlaced, delivery: Delivery, tx: Transaction) -> None:
    tx.raw.setdefault("charges", []).append(order.n)  # type: ignore[attr-defined]
    await tx.publish(PaymentTaken(order.n))


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    made = Shop()
    await made.service.start()
    yield made
    await made.service.stop()


async def test_an_order_is_charged_once_although_it_is_published_twice(shop: Shop) -> None:
    """S4: the same id twice has its effects once."""
    id = "0190a0b0-0000-7000-8000-000000000001"
    await shop.service.publish(OrderPlaced(1), id=id)
    await shop.until_charged(1)

    await shop.service.publish(OrderPlaced(1), id=id)
    await shop.service.publish(OrderPlaced(2))
    await shop.until_charged(1, 2)

    assert [1, 1] == shop.attempts


async def test_a_failed_attempt_leaves_nothing_and_the_next_one_does_it_all(shop: Shop) -> None:
    """S3: effects, inbox row and publishes of a failed attempt roll back together."""

    async def second_time(order: OrderPlaced, delivery: Delivery, tx: Transaction) -> None:
        await charge(order, delivery, tx)
        if delivery.attempt < 3:
            raise RuntimeError("after its effects")

    shop.behaviour = second_time
    await shop.service.publish(OrderPlaced(1))

    await shop.until_charged(1)

    assert [1, 2, 3] == shop.attempts
    assert 1 == len(set(shop.keys))


async def test_given_up_means_one_dead_letter_with_reason_attempts_and_stack(shop: Shop) -> None:
    """S10, A4."""

    async def always(order: OrderPlaced, delivery: Delivery, tx: Transaction) -> None:
        raise ValueError(f"card declined for {order.n}")

    shop.behaviour = always
    await shop.service.publish(OrderPlaced(7), key="k")

    (letter,) = await shop.until_letters(1)

    assert ("shop.orders", "handler", "ValueError", "card declined for 7") == (
        letter.consumer,
        letter.reason,
        letter.error_class,
        letter.error,
    )
    assert [1, 2, 3] == shop.attempts
    assert 3 == len(letter.attempts)
    assert "in always" in letter.stack
    assert b'{"n":7}' == letter.message.body
    assert {} == letter.message.headers
    assert 16 == len(letter.fingerprint)


async def test_a_replayed_dead_letter_is_resolved_by_its_success(shop: Shop) -> None:
    """S11, L23: to the queue that failed, resolved in the commit of its effect."""

    async def never(order: OrderPlaced, delivery: Delivery, tx: Transaction) -> object:
        return DeadLetter("not today")

    shop.behaviour = never
    await shop.service.publish(OrderPlaced(1))
    (letter,) = await shop.until_letters(1, DeadLetterState.OPEN)
    assert [1] == shop.attempts

    shop.behaviour = charge
    await replay(shop.store, letter.id, actor="ann", reason="bank is back")
    await shop.until_letters(1, DeadLetterState.RESOLVED)

    assert [1] == await shop.charges()
    details = await shop.store.dead_letters.get(letter.id)
    assert details is not None
    assert ["recorded", "replayed", "resolved"] == [entry.verb for entry in details.audit]
    with pytest.raises(Conflict, match="is resolved"):
        await replay(shop.store, letter.id, actor="bob", reason="again")


async def test_a_replay_that_another_copy_overtook_closes_its_dead_letter(shop: Shop) -> None:
    """S10: the duplicate's success is the replay's too; a dead letter left replaying would wait for ever."""
    id = "0190a0b0-0000-7000-8000-000000000009"

    async def never(order: OrderPlaced, delivery: Delivery, tx: Transaction) -> object:
        return DeadLetter("not today")

    shop.behaviour = never
    await shop.service.publish(OrderPlaced(1), id=id)
    (letter,) = await shop.until_letters(1, DeadLetterState.OPEN)
    shop.behaviour = charge
    await shop.service.publish(OrderPlaced(1), id=id)
    await shop.until_charged(1)

    await replay(shop.store, letter.id, actor="ann", reason="bank is back")

    await shop.until_letters(1, DeadLetterState.RESOLVED)
    assert [1] == await shop.charges()


async def test_a_replay_that_fails_again_is_the_same_row_open_again(shop: Shop) -> None:
    """One row per (consumer, message id), however often it fails."""

    async def never(order: OrderPlaced, delivery: Delivery, tx: Transaction) -> object:
        return DeadLetter("not today")

    shop.behaviour = never
    await shop.service.publish(OrderPlaced(1))
    (letter,) = await shop.until_letters(1, DeadLetterState.OPEN)

    await replay(shop.store, letter.id, actor="ann", reason="try")

    async def failed_again() -> bool:
        (again,) = await shop.letters()
        return again.state is DeadLetterState.OPEN and again.replays == 1

    await shop.until(failed_again)
    (again,) = await shop.letters()
    assert letter.id == again.id


@pytest.mark.parametrize(("actor", "reason"), [("", "why"), ("ann", " ")])
async def test_an_operators_verb_needs_who_and_why(shop: Shop, actor: str, reason: str) -> None:
    """S19."""
    with pytest.raises(InvalidMessage):
        await replay(shop.store, "x", actor=actor, reason=reason)
    with pytest.raises(InvalidMessage):
        await discard(shop.store, "x", actor=actor, note=reason)


async def test_a_dead_letter_that_is_not_there_says_where_to_look(shop: Shop) -> None:
    """The id may be mistyped."""
    with pytest.raises(NotFound, match="spoolproof dlq ls"):
        await replay(shop.store, "nope", actor="ann", reason="why")


async def test_retry_later_counts_and_defer_does_not(shop: Shop) -> None:
    """S9: an outage the handler reports burns no attempt."""
    answers: list[Any] = [Defer(0.01), Defer(0.01), RetryLater(1), Defer(0.01), None]

    async def by_turns(order: OrderPlaced, delivery: Delivery, tx: Transaction) -> object:
        answer = answers.pop(0)
        if answer is None:
            await charge(order, delivery, tx)
        return answer

    shop.behaviour = by_turns
    await shop.service.publish(OrderPlaced(1))

    await shop.until_charged(1)

    assert [1, 1, 1, 2, 2] == shop.attempts


async def test_ack_ends_the_handler_early_and_commits(shop: Shop) -> None:
    """`raise Ack` is a success."""

    async def early(order: OrderPlaced, delivery: Delivery, tx: Transaction) -> None:
        await charge(order, delivery, tx)
        raise Ack

    shop.behaviour = early
    await shop.service.publish(OrderPlaced(1))

    await shop.until_charged(1)


class Outages:
    """A store whose small facts cannot be written while it `is_away`: what the gate goes by."""

    def __init__(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_away = False
        state = service.runtime.store.state
        self._put = state.put
        monkeypatch.setattr(state, "put", self._try_put)

    async def _try_put(self, kind: str, name: str, value: bytes) -> int:
        if self.is_away:
            raise StoreUnavailable("planted")
        return await self._put(kind, name, value)


async def test_a_store_that_is_away_burns_no_attempt_and_makes_no_dead_letter(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S9: the gate holds the delivery and the same attempt runs again."""
    failures, outages = 6, Outages(shop.service, monkeypatch)
    loop = asyncio.get_running_loop()

    async def flaky(order: OrderPlaced, delivery: Delivery, tx: Transaction) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            outages.is_away = True
            loop.call_later(0.05, lambda: setattr(outages, "is_away", False))
            raise StoreUnavailable("planted")
        await charge(order, delivery, tx)

    shop.behaviour = flaky
    await shop.service.publish(OrderPlaced(1))

    await shop.until_charged(1)

    assert {1} == set(shop.attempts)
    assert [] == await shop.letters()


async def test_what_looks_like_an_outage_and_is_none_counts_in_the_end(shop: Shop) -> None:
    """A message whose own statements make the database answer so ran for ever, and held up all others each time."""
    attempts: list[int] = []

    async def poisonous(order: OrderPlaced, delivery: Delivery, tx: Transaction) -> None:
        if order.n == 1:
            attempts.append(delivery.attempt)
            raise StoreUnavailable("could not extend the temporary file: its own")
        await charge(order, delivery, tx)

    shop.behaviour = poisonous
    for n in (1, 2):
        await shop.service.publish(OrderPlaced(n))

    (letter,) = await shop.until_letters(1)

    again = limits.RERUNS  # in each process, before the first failure that counts
    assert [1] * (1 + again) + [2] + [3] * (1 + again) == attempts
    assert 3 == len(letter.attempts)
    await shop.until_charged(2)


async def test_an_attempt_that_never_came_to_its_handler_counts_nothing(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No connection to be had, out of file descriptors: whatever it was, the message had no part in it."""
    failures, opened = 6, shop.store.transaction

    def transaction() -> Any:
        nonlocal failures
        if failures and asyncio.current_task().get_name().startswith("consumer."):  # type: ignore[union-attr]
            failures -= 1
            raise StoreUnavailable("Too many open files")
        return opened()

    monkeypatch.setattr(shop.store, "transaction", transaction)
    await shop.service.publish(OrderPlaced(1))

    await shop.until_charged(1)

    assert ([1], 0) == (shop.attempts, failures)
    assert [] == await shop.letters()


async def test_a_transaction_that_lost_against_another_runs_again_uncounted_a_few_times(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deadlock's victim is innocent, and its database asks to run it again; one that always loses must end."""

    class Deadlock(Exception):
        pass

    async def loses(order: OrderPlaced, delivery: Delivery, tx: Transaction) -> None:
        raise Deadlock

    monkeypatch.setattr(shop.store, "is_conflict", lambda error: isinstance(error, Deadlock))
    shop.behaviour = loses
    await shop.service.publish(OrderPlaced(1))

    (letter,) = await shop.until_letters(1)

    again = limits.RERUNS
    assert [1] * (1 + again) + [2] + [3] * (1 + again) == shop.attempts
    assert 3 == len(letter.attempts)


async def test_a_message_held_for_long_goes_back_as_a_copy_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """S9, L9: an outage of a day would be fifty deliveries, each ended by the broker's own limit for a consumer."""
    clock = SkippingClock()
    service = Service("held", settings=Settings(store="memory://", broker="memory://"), clock=clock)
    attempts: list[int] = []

    @service.on(OrderPlaced, queue="held.orders", concurrency=1, dedupe="none")
    async def handle(order: OrderPlaced, delivery: Delivery) -> None:
        attempts.append(delivery.attempt)
        if len(attempts) == 1:
            clock.skipped_seconds = limits.GATE_HOLD_SECONDS_MAX
            outages.is_away = True
            raise StoreUnavailable("planted")

    await service.start()
    try:
        outages = Outages(service, monkeypatch)
        await service.publish(OrderPlaced(1))
        broker = service.runtime.broker.inner
        assert isinstance(broker, MemoryBroker)
        async with asyncio.timeout(5):
            while not broker.server.due_times():
                await asyncio.sleep(0.005)
        (due,) = broker.server.due_times()
        assert 50 < due - clock.monotonic() <= 60

        clock.skipped_seconds += 60
        outages.is_away = False
        for delayed_due in broker.server.due_times():
            broker.release_at(delayed_due)
        async with asyncio.timeout(5):
            while len(attempts) < 2:
                await asyncio.sleep(0.005)
        assert [1, 1] == attempts
    finally:
        await service.stop()


@pytest.mark.parametrize(
    ("publish", "reason"),
    [
        ({"payload": {"n": "seven"}, "type": "order.placed"}, "decode"),
        ({"payload": {"n": 1}, "type": "order.placed", "expires": 1e-6}, "expired"),
    ],
)
async def test_what_no_handler_can_take_is_a_dead_letter_never_a_silent_ack(
    shop: Shop, publish: dict[str, Any], reason: str
) -> None:
    """L5."""
    await shop.service.publish(publish.pop("payload"), **publish)

    (letter,) = await shop.until_letters(1)

    assert (reason, "shop.orders") == (letter.reason, letter.consumer)
    assert [] == shop.attempts


async def test_a_handler_over_its_timeout_is_cut_off_and_counts(shop: Shop) -> None:
    """A hanging call must not hold its lane for ever."""
    service = Service("slow", settings=Settings(store="memory://", broker="memory://"))
    attempts = []

    @service.on(OrderPlaced, timeout=0.05, attempts=2)
    async def hang(order: OrderPlaced, delivery: Delivery) -> None:
        attempts.append(delivery.attempt)
        await asyncio.Event().wait()

    await service.start()
    try:
        await service.publish(OrderPlaced(1))
        store = service.runtime.store
        async with asyncio.timeout(5):
            while not await store.dead_letters.search(DeadLetterFilter()):
                await asyncio.sleep(0.005)
        (letter,) = await store.dead_letters.search(DeadLetterFilter())
    finally:
        await service.stop()

    assert ([1, 2], "TimeoutError") == (attempts, letter.error_class)


async def test_a_handler_without_a_transaction_publishes_with_its_inbox_row_or_not_at_all() -> None:
    """A failed attempt of such a handler must not have published half of its events."""
    service = Service("mail", settings=Settings(store="memory://", broker="memory://"))
    taken: list[int] = []

    @service.on(OrderPlaced, attempts=3, delays=(1,))
    async def send(order: OrderPlaced, delivery: Delivery) -> None:
        await service.publish(PaymentTaken(delivery.attempt))
        if delivery.attempt == 1:
            raise RuntimeError("after its publish")

    @service.on(PaymentTaken)
    async def note(payment: PaymentTaken, tx: Transaction) -> None:
        taken.append(payment.n)

    await service.start()
    try:
        await service.publish(OrderPlaced(1))
        async with asyncio.timeout(5):
            while not taken:
                await asyncio.sleep(0.005)
            while (await service.runtime.store.outbox.backlog()).rows:
                await asyncio.sleep(0.005)
    finally:
        await service.stop()

    assert [2] == taken


async def test_what_a_handler_publishes_is_caused_by_what_it_handles(shop: Shop) -> None:
    """A trace of causes is what an operator follows at 3 a.m."""
    seen: list[Any] = []
    service = shop.service

    async def look(order: OrderPlaced, delivery: Delivery, tx: Transaction) -> None:
        receipt = await service.publish(PaymentTaken(order.n))
        seen.append((delivery.message, receipt, tx._outgoing[0].message))
        await charge(order, delivery, tx)

    shop.behaviour = look
    receipt = await service.publish(OrderPlaced(1), correlation_id="checkout-1")
    await shop.until_charged(1)

    handled, inner, published = seen[0]
    assert "transaction" == inner.place
    assert (receipt.id, "checkout-1") == (published.causation_id, published.correlation_id)
    assert receipt.id == handled.id


async def test_a_drain_lets_a_running_handler_end_and_hands_back_the_rest(shop: Shop) -> None:
    """V8, L19: cut-off is no failure, unstarted goes back uncounted."""
    release, started = asyncio.Event(), asyncio.Event()

    async def slow(order: OrderPlaced, delivery: Delivery, tx: Transaction) -> None:
        started.set()
        await release.wait()
        await charge(order, delivery, tx)

    shop.behaviour = slow
    for n in range(30):
        await shop.service.publish(OrderPlaced(n))
    await started.wait()
    store = shop.store
    drained = asyncio.ensure_future(shop.service.drain(5.0))
    await asyncio.sleep(0.05)
    release.set()
    await drained

    running = len(shop.attempts)
    async with store.transaction() as tx:
        charged = list(tx.raw["charges"])  # type: ignore[index]
    assert running == len(charged)
    assert running <= 10


async def test_a_handler_cut_off_by_the_drain_is_not_a_failure(shop: Shop) -> None:
    """L19."""
    started = asyncio.Event()

    async def hang(order: OrderPlaced, delivery: Delivery, tx: Transaction) -> None:
        started.set()
        await asyncio.Event().wait()

    shop.behaviour = hang
    await shop.service.publish(OrderPlaced(1))
    await started.wait()

    store = shop.store
    await shop.service.drain(0.05)

    assert [] == list(await store.dead_letters.search(DeadLetterFilter()))
    server = shop.broker.server
    await shop.service.stop()
    assert 1 == server.depth("shop.orders")
