"""Slots: who gets one, who waits, who is refused, and that none is ever lost. Time is passed in."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from spoolproof.clock import SYSTEM, Clock
from spoolproof.errors import AttemptTimeout, BulkheadFull, DeadlineExceeded, PolicyConfigError, PolicyUsageError
from spoolproof.policies import Adaptive, Bulkhead, Policy, RateLimit, Registry, Retry, Timeout
from spoolproof.policies.call import LANES, Call, run_now
from spoolproof.policies.judging.verdict import SUCCESS, Kind, verdict_of
from spoolproof.policies.machines.adaptive import AdaptiveLimit
from spoolproof.policies.machines.line import LATE_SECONDS_MAX, Standing, ThreadWaiter, Waiter
from spoolproof.policies.machines.slots import Slots
from spoolproof.testing.clock import ManualClock

from ..doses import MACHINE_EXAMPLES, MACHINE_SECONDS
from .conftest import settle
from .waiting import wait_blocking


class Owner:
    """What a call asks its policy for."""

    name, key = "psp", None

    def __init__(self, clock: Clock) -> None:
        self.clock = clock


def call_of(clock: Clock = SYSTEM, **given: Any) -> Call:
    call = Call()
    call.owner = Owner(clock)
    for name, value in given.items():
        setattr(call, name, value)
    return call


def slots_of(running_max: int = 1, **settings: Any) -> Slots:
    return Slots("psp", None, running_max=running_max, **settings)


def leave(slots: Slots, now: float = 0.0) -> None:
    slots.leave(True, call_of(), SUCCESS, now)


def test_the_queue_holds_twice_as_many_as_may_run_unless_told_otherwise() -> None:
    """A longer queue serves callers who have left."""
    slots = slots_of(2)
    call = call_of()

    admitted = [slots.enter(call, 0.0) for _ in range(2)]
    waiting = [slots._join(Stub(call), call, 0.0) for _ in range(4)]

    assert [True, True] == admitted
    assert [False] * 4 == waiting
    with pytest.raises(BulkheadFull) as raised:
        slots.enter(call, 0.0)
    assert (2, 4) == (raised.value.running, raised.value.queued)


def test_without_a_wait_nobody_queues() -> None:
    """wait_seconds_max=0 means now or not at all, also on a thread that runs an event loop."""
    slots = slots_of(1, wait_seconds_max=0)
    slots.enter(call_of(), 0.0)

    with pytest.raises(BulkheadFull):
        slots.enter(call_of(), 0.0)


async def test_a_slot_freed_between_refusal_and_wait_is_taken_at_once(clock: ManualClock) -> None:
    """The pipeline asks twice; what became free in between must not be waited for."""
    slots = slots_of(1)
    call = call_of(clock)
    slots.enter(call, 0.0)
    assert slots.enter(call, 0.0) is None

    leave(slots)

    assert await slots.wait(call)
    assert 1 == slots.running


async def test_who_comes_later_cannot_take_what_was_granted(clock: ManualClock) -> None:
    """Else those who queue could wait for ever under load."""
    slots = slots_of(1)
    call = call_of(clock)
    slots.enter(call, 0.0)
    waiting = asyncio.ensure_future(slots.wait(call))
    await settle()

    leave(slots)

    assert slots.enter(call, 0.0) is None
    assert await waiting
    assert 1 == slots.running


async def test_the_end_of_a_wait_names_its_reason(clock: ManualClock) -> None:
    """A caller whose time is over must not be told to come back."""
    slots = slots_of(1, queue_max=9, wait_seconds_max=2)
    slots.enter(call_of(clock), 0.0)
    patient = asyncio.ensure_future(slots.wait(call_of(clock)))
    hurried = asyncio.ensure_future(slots.wait(call_of(clock, deadline_at=1.0)))

    await clock.advance(2)

    assert isinstance(patient.exception(), BulkheadFull)
    assert isinstance(hurried.exception(), DeadlineExceeded)
    assert (1, 0) == (slots.running, slots.queued)


async def test_a_grant_after_the_deadline_goes_to_the_next(clock: ManualClock) -> None:
    """A function that starts after its caller has left does work for nobody."""
    slots = slots_of(1)
    call = call_of(clock, deadline_at=0.5)
    slots.enter(call, 0.0)
    waiter = Stub(call)
    slots._join(waiter, call, 0.0)
    leave(slots, 0.4)
    assert Standing.GRANTED is waiter.standing

    with pytest.raises(DeadlineExceeded):
        slots._look(waiter, 0.5)

    assert 0 == slots.running


def test_nobody_is_granted_past_its_deadline() -> None:
    """Who waits behind it could start at once."""
    slots = slots_of(1)
    slots.enter(call_of(), 0.0)
    late, patient = Stub(call_of(deadline_at=0.5)), Stub(call_of())
    slots._join(late, call_of(), 0.0)
    slots._join(patient, call_of(), 0.0)

    leave(slots, 0.5)

    assert [Standing.OVER, Standing.GRANTED] == [late.standing, patient.standing]


def test_a_waiter_that_cannot_be_woken_hands_its_slot_on() -> None:
    """Its event loop closed between the grant and the wake-up."""
    slots = slots_of(1, queue_max=9)
    slots.enter(call_of(), 0.0)
    waiters = [Stub(call_of()) for _ in range(3)]
    for waiter in waiters:
        slots._join(waiter, call_of(), 0.0)
    waiters[0].wake = lambda: False  # type: ignore[method-assign]

    leave(slots)

    assert [Standing.OVER, Standing.GRANTED, Standing.QUEUED] == [waiter.standing for waiter in waiters]
    assert 1 == slots.running


def test_a_lowered_limit_admits_nobody_until_enough_have_left() -> None:
    """A reload must not cut off calls that run."""
    slots = slots_of(3)
    for _ in range(3):
        slots.enter(call_of(), 0.0)

    slots.configure(running_max=1, queue_max=5, wait_seconds_max=1)
    leave(slots)
    leave(slots)

    assert slots.enter(call_of(), 0.0) is None
    leave(slots)
    assert slots.enter(call_of(), 0.0)


async def test_a_raised_limit_admits_those_who_wait(clock: ManualClock) -> None:
    slots = slots_of(1)
    slots.enter(call_of(clock), 0.0)
    waiting = asyncio.ensure_future(slots.wait(call_of(clock)))
    await settle()

    slots.resize(2)

    assert await waiting
    assert 2 == slots.running


def test_waiting_on_a_thread_that_runs_an_event_loop_is_refused() -> None:
    """It would stop everything on that loop."""
    slots = slots_of(1)
    slots.enter(call_of(), 0.0)

    async def block() -> None:
        wait_blocking(slots, call_of())

    with pytest.raises(PolicyUsageError, match="event loop"):
        asyncio.run(block())
    assert 0 == slots.queued


def test_a_thread_that_waits_too_long_is_refused() -> None:
    slots = slots_of(1, wait_seconds_max=0.01)
    slots.enter(call_of(), SYSTEM.monotonic())

    with pytest.raises(BulkheadFull):
        wait_blocking(slots, call_of())

    assert (1, 0) == (slots.running, slots.queued)


def test_a_thread_under_a_test_clock_moves_it(clock: ManualClock) -> None:
    """Nobody else could: a thread that blocks for real would never see manual time pass."""
    slots = slots_of(1, wait_seconds_max=30)
    slots.enter(call_of(clock), 0.0)

    with pytest.raises(BulkheadFull):
        wait_blocking(slots, call_of(clock))

    assert 30.0 == clock.monotonic()


def test_a_thread_that_was_woken_before_it_waits_does_not_move_a_test_clock(clock: ManualClock) -> None:
    waiter = ThreadWaiter(call_of(clock), 5.0)
    waiter.wake()

    run_now(waiter.wait(clock))
    woken_at = clock.monotonic()
    run_now(waiter.wait(clock))

    assert (0.0, 5.0) == (woken_at, clock.monotonic())


def test_those_who_left_unnoticed_make_room_in_a_full_queue() -> None:
    """Waiters of an event loop that stands still cannot withdraw."""
    slots = slots_of(1, queue_max=2, wait_seconds_max=1)
    slots.enter(call_of(), 0.0)
    stale = [Stub(call_of(), 1.0), Stub(call_of(), 1.0)]
    for waiter in stale:
        slots._join(waiter, call_of(), 0.0)

    assert slots.enter(call_of(), 1.0 + 2 * LATE_SECONDS_MAX) is None
    assert not slots._join(Stub(call_of(), 2.0), call_of(), 1.0 + 2 * LATE_SECONDS_MAX)

    assert [Standing.OVER] * 2 == [waiter.standing for waiter in stale]
    assert 1 == slots.queued


def test_a_grant_that_a_loop_at_a_standstill_never_takes_up_goes_on() -> None:
    """A slot held by an event loop that no longer runs would be lost for as long as the process lives."""
    slots = slots_of(1, wait_seconds_max=1)
    slots.enter(call_of(), 0.0)
    asleep, awake = Stub(call_of(), 1.0), Stub(call_of(), 2.0)
    slots._join(asleep, call_of(), 0.0)
    slots._join(awake, call_of(), 0.9)
    leave(slots, 0.95)
    assert Standing.GRANTED is asleep.standing

    assert slots.enter(call_of(), 1.5) is None

    assert [Standing.OVER, Standing.GRANTED] == [asleep.standing, awake.standing]
    assert 1 == slots.running


def test_a_call_ended_by_the_garbage_collector_in_the_middle_of_a_step_gives_its_slot_back() -> None:
    """The collector may run on the thread that holds the lock: a plain lock would wait for itself."""
    slots = slots_of(2, queue_max=9)
    slots.enter(call_of(), 0.0)
    slots.enter(call_of(), 0.0)
    waiter = Stub(call_of())
    slots._join(waiter, call_of(), 0.0)
    during: list[object] = []

    def collected() -> None:
        leave(slots)
        during.append(slots.running)
        with pytest.raises(BulkheadFull):
            slots.enter(call_of(), 0.0)

    def entering() -> None:
        with pytest.raises(BulkheadFull):
            slots_free.enter(call_of(), 0.0)

    slots_free = slots_of(1)
    slots_free._give_back(entering)
    slots._give_back(collected)

    assert 0 == slots_free.running
    assert [2] == during
    assert Standing.GRANTED is waiter.standing
    assert (2, 0) == (slots.running, slots.queued)


@pytest.mark.parametrize(
    "verdict", [verdict_of(Kind.CANCELLED), verdict_of(Kind.TRANSIENT), verdict_of(Kind.PERMANENT)]
)
def test_only_successes_and_overloads_reach_an_adaptive_limit(verdict: Any) -> None:
    """Q26: how long a failure took says nothing of how much the dependency can take."""
    limit = AdaptiveLimit("psp", None, limit_initial=4)
    slots = Slots("psp", None, running_max=32, limit=limit)

    for number in range(400):
        for _ in range(4):
            assert slots.enter(call_of(), number / 10)
        for _ in range(4):
            slots.leave(True, call_of(has_started=True, attempt_started_at=number / 10), verdict, number / 10 + 0.05)

    assert (4, 0) == (slots.limit, slots.running)


async def test_q26_a_wait_of_our_own_is_no_overload_of_the_dependency(registry: Registry, clock: ManualClock) -> None:
    """It times out although nothing was sent; taken for an overload, a rate limit would close the bulkhead."""
    rate = RateLimit(1, per_seconds=3, burst=1, wait_seconds_max=60, queue_max=20)
    bulkhead = Bulkhead(Adaptive(limit_initial=20))
    policy = Policy("psp", bulkhead, Timeout(0.9), Retry(2), rate, registry=registry, idempotent=True)
    await policy.call(int)

    for _ in range(3):
        calls = [asyncio.ensure_future(policy.result(int)) for _ in range(20)]
        await clock.advance(0.9)
        assert {AttemptTimeout} == {type(call.result().error) for call in calls}

    assert (20, 0) == (policy.machines.slots.limit, policy.machines.slots.running)


def test_an_adaptive_limit_moves_the_slots_both_ways() -> None:
    limit = AdaptiveLimit("psp", None, limit_initial=4)
    slots = Slots("psp", None, running_max=32, limit=limit)

    def run(verdict: Any, start: float) -> int:
        for number in range(100):
            now = start + number / 10
            entered = 0
            while slots.running < slots.limit and slots.enter(call_of(), now):
                entered += 1
            for _ in range(entered):
                slots.leave(True, call_of(has_started=True, attempt_started_at=now), verdict, now + 0.05)
        return slots.limit

    grown = run(SUCCESS, 0.0)
    shrunk = run(verdict_of(Kind.OVERLOADED), 10.0)

    assert grown > 4
    assert shrunk < grown


def test_an_adaptive_limit_does_not_move_in_the_middle_of_a_step() -> None:
    """A call that the collector ends there may be the one that moves it; two steps at once grant a slot twice."""
    limit = AdaptiveLimit("psp", None, limit_initial=1)
    slots = Slots("psp", None, running_max=32, limit=limit)
    slots.enter(call_of(), 0.0)
    waiter = Stub(call_of())
    slots._join(waiter, call_of(), 0.0)
    limit.configure(limit_min=2)
    during: list[object] = []

    def collected() -> None:
        slots.leave(True, call_of(has_started=True), SUCCESS, 0.5)
        during.append((slots.limit, waiter.standing, slots._is_interrupted()))

    slots._give_back(collected)

    assert [(1, Standing.QUEUED, True)] == during
    assert (2, 1, Standing.GRANTED) == (slots.limit, slots.running, waiter.standing)


def test_the_declaration_keeps_what_it_was_given() -> None:
    assert {"running_max": 5, "queue_max": 0} == Bulkhead(5, queue_max=0).given
    assert {"limit_max": 40, "wait_seconds_max": 2} == Bulkhead(Adaptive(limit_max=40), wait_seconds_max=2).given
    with pytest.raises(PolicyConfigError) as raised:
        Bulkhead(0, queue_max=-1, wait_seconds_max=float("nan"))
    assert 3 == len(raised.value.faults)


# --- Q7 --------------------------------------------------------------------------------------------------------------


def closed_loop(start: Callable[[], Any]) -> asyncio.Task[Any]:
    """Start a task on a loop of its own and close the loop while the task waits."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(start())
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    return task


def end(task: asyncio.Task[Any]) -> None:
    """Close what a closed loop left behind, as the collector would."""
    task.get_coro().close()  # type: ignore[union-attr]


def test_q07_a_loop_closed_with_a_grant_on_its_way_loses_no_slot() -> None:
    """The wake-up was accepted and dropped with the loop: neither side can tell, so the next to come collects it."""
    slots = slots_of(1, wait_seconds_max=60)
    slots.enter(call_of(), SYSTEM.monotonic())
    loop = asyncio.new_event_loop()
    task = loop.create_task(slots.wait(call_of()))
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.run_until_complete(asyncio.sleep(0))

    leave(slots)
    loop.close()

    assert slots.enter(call_of(), SYSTEM.monotonic())
    assert (1, 0) == (slots.running, slots.queued)
    end(task)
    assert 1 == slots.running


def test_q07_waiters_of_closed_loops_do_not_fill_the_queue() -> None:
    slots = slots_of(1, queue_max=2, wait_seconds_max=60)
    slots.enter(call_of(), SYSTEM.monotonic())
    tasks = [closed_loop(lambda: slots.wait(call_of())) for _ in range(2)]
    assert 2 == slots.queued

    assert slots.enter(call_of(), SYSTEM.monotonic()) is None

    assert 0 == slots.queued
    for task in tasks:
        end(task)
    assert (1, 0) == (slots.running, slots.queued)


def test_q07_a_dropped_task_that_was_granted_gives_its_slot_back_when_collected() -> None:
    """No further call comes to notice: the end of the coroutine itself has to."""
    slots = slots_of(1, wait_seconds_max=60)
    slots.enter(call_of(), SYSTEM.monotonic())
    task = closed_loop(lambda: slots.wait(call_of()))

    leave(slots)
    end(task)
    gc.collect()

    assert (0, 0) == (slots.running, slots.queued)


@pytest.mark.parametrize("turns", range(5))
async def test_q07_a_waiter_cancelled_at_any_turn_hands_its_slot_on(clock: ManualClock, turns: int) -> None:
    slots = slots_of(1)
    slots.enter(call_of(clock), 0.0)
    first, second = (asyncio.ensure_future(slots.wait(call_of(clock))) for _ in range(2))
    await settle()

    leave(slots)
    for _ in range(turns):
        await asyncio.sleep(0)
    was_done = first.done()
    first.cancel()
    await settle()

    assert was_done != second.done()
    if was_done:
        leave(slots)
    assert await second
    assert (1, 0) == (slots.running, slots.queued)


def test_q07_one_bulkhead_serves_loops_and_threads_at_once() -> None:
    """Two loops in two threads and four threads without one, half of the waits cut short: every slot comes back."""
    slots = slots_of(2, queue_max=100, wait_seconds_max=30)
    most, done = [], threading.Semaphore(0)

    async def work(impatient: bool) -> None:
        call = call_of()
        permit = slots.enter(call, SYSTEM.monotonic())
        if permit is None:
            waiting = asyncio.ensure_future(slots.wait(call))
            await asyncio.sleep(0)
            if impatient:
                waiting.cancel()
                try:
                    await waiting
                except asyncio.CancelledError:
                    return
            permit = await waiting
        most.append(slots.running)
        await asyncio.sleep(0)
        slots.leave(permit, call, SUCCESS, SYSTEM.monotonic())

    async def many() -> None:
        await asyncio.gather(*(work(number % 2 == 0) for number in range(40)))

    def loop() -> None:
        for _ in range(5):
            asyncio.run(many())
        done.release()

    def block() -> None:
        for _ in range(100):
            call = call_of()
            permit = slots.enter(call, SYSTEM.monotonic()) or wait_blocking(slots, call)
            most.append(slots.running)
            slots.leave(permit, call, SUCCESS, SYSTEM.monotonic())
        done.release()

    threads = [threading.Thread(target=target) for target in (loop, loop, block, block, block, block)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert max(most) <= 2
    assert (0, 0) == (slots.running, slots.queued)


# --- against a reference ---------------------------------------------------------------------------------------------


class Stub(Waiter):
    """A place in the queue; `is_dead` when its event loop is closed."""

    def __init__(self, call: Call, ends_at: float = 1.0) -> None:
        super().__init__(call, ends_at)
        self.is_dead = False
        self.woken = 0

    def is_gone(self, now: float) -> bool:
        return self.is_dead or super().is_gone(now)

    def wake(self) -> bool:
        self.woken += 1
        return not self.is_dead


class Reference:
    """The same rules on plain lists: who queues, who was granted, how many run."""

    def __init__(self) -> None:
        self.limit, self.most = 2, 3
        self.held = 0
        self.queue: list[Stub] = []
        self.granted: list[Stub] = []

    @property
    def running(self) -> int:
        return self.held + len(self.granted)

    def settle(self, now: float) -> None:
        """What every step but the quick ways in and out does."""
        self.granted = [one for one in self.granted if not one.is_gone(now)]
        while self.queue and self.running < self.limit:
            first = min(self.queue, key=lambda one: LANES.index(one.lane))
            self.queue.remove(first)
            if not first.is_gone(now):
                self.granted.append(first)

    def has_room(self, lane: str, now: float) -> bool:
        if len(self.queue) >= self.most:
            for name in LANES:
                while (first := next((one for one in self.queue if one.lane == name), None)) and first.is_gone(now):
                    self.queue.remove(first)
        lower = [one for one in self.queue if LANES.index(one.lane) > LANES.index(lane)]
        return len(self.queue) < self.most or bool(lower)

    def push(self, waiter: Stub) -> None:
        if len(self.queue) >= self.most:
            lowest = max(self.queue, key=lambda one: LANES.index(one.lane)).lane
            self.queue.remove([one for one in self.queue if one.lane == lowest][-1])
        self.queue.append(waiter)


class BulkheadMachine(RuleBasedStateMachine):
    """Arrivals of every lane, leavers, cancellations, late and dead waiters, resizes: the same people get the slots."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.slots = slots_of(2, queue_max=3, wait_seconds_max=1)
        self.reference = Reference()
        self.waiters: list[Stub] = []

    @rule(lane=st.sampled_from(LANES))
    def arrive(self, lane: str) -> None:
        call = call_of(lane=lane)
        reference = self.reference
        is_quick = not reference.queue and reference.running < reference.limit
        if not is_quick:
            reference.settle(self.now)
        is_admitted = not reference.queue and reference.running < reference.limit
        if not is_admitted and not reference.has_room(lane, self.now):
            with pytest.raises(BulkheadFull):
                self.slots.enter(call, self.now)
        elif is_admitted:
            assert self.slots.enter(call, self.now)
            reference.held += 1
        else:
            assert self.slots.enter(call, self.now) is None
            reference.settle(self.now)
            waiter = Stub(call, self.now + 1)
            assert not self.slots._join(waiter, call, self.now)
            reference.push(waiter)
            self.waiters.append(waiter)
        if not is_quick:
            reference.settle(self.now)

    @precondition(lambda self: self.reference.held)
    @rule()
    def leave(self) -> None:
        leave(self.slots, self.now)
        is_quick = not self.reference.queue
        if not is_quick:
            self.reference.settle(self.now)
        self.reference.held -= 1
        if not is_quick:
            self.reference.settle(self.now)

    @precondition(lambda self: self.waiters)
    @rule(data=st.data())
    def look(self, data: Any) -> None:
        waiter = data.draw(st.sampled_from(self.waiters))
        reference = self.reference
        if waiter not in reference.granted:
            reference.settle(self.now)
        if waiter in reference.granted:
            assert self.slots._look(waiter, self.now)
            reference.granted.remove(waiter)
            reference.held += 1
            self.waiters.remove(waiter)
        elif waiter in reference.queue and self.now < waiter.ends_at:
            assert not self.slots._look(waiter, self.now)
        else:
            with pytest.raises(BulkheadFull):
                self.slots._look(waiter, self.now)
            if waiter in reference.queue:
                reference.queue.remove(waiter)
            self.waiters.remove(waiter)
            reference.settle(self.now)

    @precondition(lambda self: self.waiters)
    @rule(data=st.data())
    def cancel(self, data: Any) -> None:
        waiter = data.draw(st.sampled_from(self.waiters))
        self.waiters.remove(waiter)
        self.slots._abandon(waiter)
        self.reference.settle(self.slots._now)
        for people in (self.reference.queue, self.reference.granted):
            if waiter in people:
                people.remove(waiter)
        self.reference.settle(self.slots._now)

    @precondition(lambda self: self.waiters)
    @rule(data=st.data())
    def die(self, data: Any) -> None:
        data.draw(st.sampled_from(self.waiters)).is_dead = True

    @rule(seconds=st.sampled_from([0.05, 0.4, 1.05]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(limit=st.integers(1, 4), most=st.integers(0, 3))
    def configure(self, limit: int, most: int) -> None:
        self.slots.configure(running_max=limit, queue_max=most, wait_seconds_max=1)
        self.reference.settle(self.slots._now)
        self.reference.limit, self.reference.most = limit, most
        self.reference.settle(self.slots._now)

    @invariant()
    def both_agree(self) -> None:
        reference = self.reference
        assert (reference.running, len(reference.queue)) == (self.slots.running, self.slots.queued)
        assert set(reference.granted) == {one for one in self.waiters if one.standing is Standing.GRANTED}
        assert set(reference.queue) == {one for one in self.waiters if one.standing is Standing.QUEUED}


TestBulkheadMachine = MACHINE_SECONDS(BulkheadMachine.TestCase)
TestBulkheadMachine.settings = settings(
    max_examples=MACHINE_EXAMPLES,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
