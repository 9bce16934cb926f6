"""The deadline as it travels: from a caller's header, through a call, to the next service."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from spoolproof.policies import (
    Bulkhead,
    Deadline,
    DeadlineExceeded,
    Kind,
    Policy,
    Registry,
    Retry,
    Timeout,
    deadline,
    idempotency_key,
    report,
    within_delivery,
)
from spoolproof.policies.call import current, is_delivery, is_repeating
from spoolproof.policies.judging.verdict import SUCCESS
from spoolproof.testing.clock import ManualClock

from .conftest import settle

Make = Callable[..., Policy]


def test_the_time_that_is_left_is_handed_on_in_whole_milliseconds(make: Make, clock: ManualClock) -> None:
    def work() -> list[dict[str, str]]:
        seen = []
        for seconds in (0, 1.2345, 3):
            clock.sleep_blocking(seconds)
            seen.append(deadline.headers())
        return seen

    seen = make(Deadline(4), sync="cooperative").call_sync(work)

    assert [{"spoolproof-deadline-ms": text} for text in ("4000", "2765", "0")] == seen
    assert {} == deadline.headers()


def test_a_header_that_was_sent_is_one_that_is_understood(clock: ManualClock) -> None:
    with deadline.received({"Spoolproof-Deadline-Ms": "1500"}):
        sent = deadline.headers()
        with deadline.received({"spoolproof-deadline-ms": "90000"}):
            nested = deadline.remaining()

    with deadline.received(sent):
        assert (1.5, 1.5) == (nested, deadline.remaining())
    assert deadline.remaining() is None


@pytest.mark.parametrize("text", ["", "-1", "1.5", "soon", "٣", "1e3", "86400001", "000001500", " 5"])
def test_a_header_that_makes_no_sense_is_ignored(clock: ManualClock, text: str) -> None:
    """Whoever sent it; the deadline there was stays."""
    with deadline.received({"spoolproof-deadline-ms": "2000"}), deadline.received({"spoolproof-deadline-ms": text}):
        seen = deadline.remaining()
    with deadline.received({"spoolproof-deadline-ms": text}):
        alone = deadline.remaining()

    assert (2.0, None) == (seen, alone)


@pytest.mark.parametrize("form", ["call", "call_sync", "permit"])
async def test_a_call_whose_time_is_over_is_not_begun(make: Make, clock: ManualClock, form: str) -> None:
    policy = make(Bulkhead(1))
    runs: list[int] = []

    with deadline.received({"spoolproof-deadline-ms": "0"}), pytest.raises(DeadlineExceeded) as raised:
        if form == "permit":
            async with policy.permit():
                runs.append(1)
        elif form == "call":
            await policy.call(runs.append, 1)
        else:
            policy.call_sync(runs.append, 1)

    known = report(raised.value)
    assert ([], False, 0) == (runs, raised.value.has_started, policy.machines.slots.running)
    assert (Kind.DEADLINE, False, 1) == (known.verdict.kind, known.verdict.is_unknown, known.attempts)


class _HeldUp(ManualClock):
    """A clock of a thread that stands still for ten seconds before one of its readings, while others go on."""

    def __init__(self, reading: int) -> None:
        super().__init__()
        self._left = reading
        self.meanwhile: Callable[[], object] = int

    def monotonic(self) -> float:
        self._left -= 1
        if self._left == 0:
            self._elapsed += 10.0
            self.meanwhile()
        return super().monotonic()


@pytest.mark.parametrize("reading", range(1, 13))
@pytest.mark.parametrize("parts", [[Bulkhead(1)], [Bulkhead(1), Retry(2)]], ids=["attempt", "segment"])
@pytest.mark.parametrize("form", ["call", "call_sync", "permit"])
async def test_q30_wherever_a_thread_stands_still_nothing_begins_after_the_deadline(
    form: str, parts: list[Any], reading: int
) -> None:
    """The slot that became free meanwhile is not taken up: nobody waits for the answer any more."""
    with (clock := _HeldUp(reading)).active():
        policy = Policy("psp", Deadline(5), *parts, registry=Registry(environ={}))
        slots = policy.machines.slots
        holder = policy.new_call(int, (), {})
        held = [slots.enter(holder, 0.0)]
        begun: list[float] = []

        def work() -> None:
            begun.append(clock._elapsed)

        async def run() -> None:
            async with policy.permit():
                work()

        def free() -> None:
            if held:
                slots.leave(held.pop(), holder, SUCCESS, 0.5)

        clock.meanwhile = free
        if form == "call_sync":
            await asyncio.to_thread(lambda: (clock.call_at(0.5, free), policy.result_sync(work)))
        else:
            call = asyncio.ensure_future(policy.call(work) if form == "call" else run())
            await settle()
            clock.call_at(0.5, free)
            await clock.advance(1)
            await asyncio.gather(call, return_exceptions=True)
        await clock.advance(1)

    assert 0 == slots.running
    assert [] == [at for at in begun if at >= 5 + (10 if reading == 1 else 0)]


# --- sync functions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [[Bulkhead(1)], [Deadline(30)], [Deadline(30), Retry(2)]], ids=str)
def test_a_deadline_alone_leaves_a_sync_function_in_its_thread(make: Make, parts: list[Any]) -> None:
    """A transaction, a connection or whatever else is bound to the thread would be out of its reach."""
    policy = make(*parts)
    bound = threading.local()
    bound.transaction = "mine"

    def use() -> tuple[str, float | None]:
        return bound.transaction, deadline.remaining()

    with deadline.received({deadline.HEADER: "5000"}):
        assert ("mine", 5.0) == policy.call_sync(use)


def test_a_sync_function_is_neither_begun_nor_tried_again_after_its_deadline(make: Make, clock: ManualClock) -> None:
    """Nothing can cut it off; what it returns late is kept, because it is known."""
    policy = make(Deadline(5), Retry(3, delay_seconds=0), idempotent=True)
    runs: list[float | None] = []

    def slow(error: Exception | None) -> str:
        runs.append(deadline.remaining())
        clock.sleep_blocking(6)
        if error is not None:
            raise error
        return "late"

    late = policy.result_sync(slow, None)
    failed = policy.result_sync(slow, ConnectionRefusedError())
    with deadline.received({deadline.HEADER: "0"}):
        refused = policy.result_sync(slow, None)

    assert ("late", ConnectionRefusedError) == (late.value, type(failed.error))
    assert (DeadlineExceeded, [5.0, 5.0]) == (type(refused.error), runs)


# --- what outlives a call ------------------------------------------------------------------------------------------


class Within:
    """What code sees of the calls around it."""

    def __init__(self) -> None:
        self.left = deadline.remaining()
        self.key = idempotency_key()
        self.is_again = bool(current(is_repeating))
        self.is_delivery = bool(current(is_delivery))

    @property
    def is_free(self) -> bool:
        """Whether nobody is around it."""
        return (None, None, False, False) == (self.left, self.key, self.is_again, self.is_delivery)


class Background:
    """Starts a task at its second run, as a client does that keeps a token fresh. It looks now, and when it may."""

    def __init__(self) -> None:
        self.runs = 0
        self.seen: list[Within] = []
        self.may_look = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self.runs += 1
        if self.runs == 1:
            raise ConnectionRefusedError
        self.task = asyncio.create_task(self._look())
        await settle()

    async def _look(self) -> None:
        self.seen.append(Within())
        await self.may_look.wait()
        self.seen.append(Within())
        inner = Policy("inner", Retry(3, delay_seconds=0), idempotent=True, registry=Registry({}))

        async def down() -> None:
            raise ConnectionRefusedError

        self.attempts = (await inner.result(down)).attempts


async def _by_call(policy: Policy, work: Background) -> None:
    await policy.using(idempotency_key="k").call(work.start)


async def _by_decorator(policy: Policy, work: Background) -> None:
    await policy.using(idempotency_key="k")(work.start)()


async def _by_attempts(policy: Policy, work: Background) -> None:
    async for attempt in policy.using(idempotency_key="k").attempts():
        async with attempt:
            await work.start()


async def _by_delivery(policy: Policy, work: Background) -> None:
    work.runs = 1
    with deadline.received({deadline.HEADER: "5000"}), within_delivery(is_again=True):
        await policy.using(idempotency_key="k").call(work.start)


@pytest.mark.parametrize("run", [_by_call, _by_decorator, _by_attempts, _by_delivery])
async def test_a_task_that_was_started_in_a_call_is_free_once_the_call_is_over(
    make: Make, clock: ManualClock, run: Callable[[Policy, Background], Awaitable[None]]
) -> None:
    """It has a copy of the context for life: a refresher would have no time and no retries from then on."""
    policy = make(Deadline(30), Retry(3, delay_seconds=0), idempotent=True)
    work = Background()

    await run(policy, work)
    work.may_look.set()
    assert work.task is not None
    await work.task

    inside, outside = work.seen
    assert (True, "k", True) == (inside.left is not None, inside.key, inside.is_again)
    assert outside.is_free
    assert 3 == work.attempts
    assert Within().is_free


async def test_a_task_started_in_a_call_to_which_nothing_happened_is_free_too(make: Make, clock: ManualClock) -> None:
    """The written-out way sets the deadline by itself."""
    policy = make(Deadline(30))
    work = Background()
    work.runs = 1

    await policy.call(work.start)
    work.may_look.set()
    assert work.task is not None
    await work.task

    assert [False, True] == [seen.is_free for seen in work.seen]


def test_a_thread_that_is_left_to_itself_keeps_the_limits_of_its_call() -> None:
    """It is the call's own function that still runs: it should find no time, and the same key."""
    policy = Policy("psp", Deadline(0.05), Timeout(0.02), registry=Registry({}))
    seen: list[Within] = []
    may_look = threading.Event()
    done = threading.Event()

    def slow() -> None:
        may_look.wait(10)
        seen.append(Within())
        done.set()

    with pytest.raises(TimeoutError):
        policy.using(idempotency_key="k").call_sync(slow)
    may_look.set()

    assert done.wait(10)
    assert (True, "k") == (seen[0].left is not None, seen[0].key)
