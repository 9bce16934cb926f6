"""Tokens: never more than the bucket allows, first come, first served, and what was not used comes back."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from spoolproof.clock import SYSTEM, Clock
from spoolproof.errors import DeadlineExceeded, PolicyConfigError, RateLimited
from spoolproof.policies import RateLimit
from spoolproof.policies.call import Call
from spoolproof.policies.judging.verdict import Kind, verdict_of
from spoolproof.policies.machines.line import Standing, Waiter
from spoolproof.policies.machines.tokens import Tokens
from spoolproof.testing.clock import ManualClock

from ..doses import MACHINE_EXAMPLES, MACHINE_SECONDS
from .conftest import settle
from .waiting import wait_blocking

LOCAL = verdict_of(Kind.LOCAL)


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


def tokens_of(rate: float = 10, **settings: Any) -> Tokens:
    return Tokens("psp", None, rate=rate, **settings)


def give_back(tokens: Tokens, permit: object, cost: float = 1.0, now: float = 0.0) -> None:
    """End a call that was rejected further in."""
    tokens.leave(permit, call_of(cost=cost, has_started=False), LOCAL, now)


def test_the_burst_is_the_rate_unless_told_otherwise() -> None:
    tokens = tokens_of(3, wait_seconds_max=0)

    admitted = [tokens.enter(call_of(), 5.0) for _ in range(3)]

    assert all(admitted)
    with pytest.raises(RateLimited) as raised:
        tokens.enter(call_of(), 5.0)
    assert pytest.approx(1 / 3) == raised.value.retry_after_seconds


def test_tokens_return_at_the_rate_and_never_above_the_burst() -> None:
    tokens = tokens_of(10, per_seconds=2, burst=4)
    tokens.enter(call_of(cost=4), 0.0)

    assert pytest.approx([0, 1, 4, 4]) == [tokens.available(now) for now in (0.0, 0.2, 0.8, 100.0)]


def test_a_reading_before_the_last_gives_nothing_away() -> None:
    """Callers read the clock before they get here, so readings arrive out of order."""
    tokens = tokens_of(1, burst=2, wait_seconds_max=0)
    tokens.enter(call_of(), 10.0)
    tokens.enter(call_of(), 4.0)

    with pytest.raises(RateLimited):
        tokens.enter(call_of(), 10.5)


def test_a_cost_above_the_burst_is_a_mistake_and_says_what_to_do() -> None:
    """It would wait for ever and everybody behind it too."""
    tokens = tokens_of(10, burst=5)

    with pytest.raises(ValueError, match="raise burst or split the call"):
        tokens.enter(call_of(cost=5.5), 0.0)


def test_a_full_queue_refuses() -> None:
    tokens = tokens_of(1, burst=1, queue_max=1, wait_seconds_max=60)
    tokens.enter(call_of(), 0.0)
    tokens._join(Stub(call_of()), call_of(), 0.0)

    with pytest.raises(RateLimited) as raised:
        tokens.enter(call_of(), 0.0)

    assert pytest.approx(2) == raised.value.retry_after_seconds


async def test_a_wait_that_just_fits_is_served_at_its_end(clock: ManualClock) -> None:
    """One call a second and a wait of one second: the token comes in the moment the wait ends."""
    tokens = tokens_of(1, wait_seconds_max=1)
    tokens.enter(call_of(clock), 0.0)
    waiting = asyncio.ensure_future(tokens.wait(call_of(clock)))

    await clock.advance(1)

    assert waiting.done()
    assert waiting.result()


async def test_a_deadline_that_ends_the_wait_says_so(clock: ManualClock) -> None:
    tokens = tokens_of(1, wait_seconds_max=60)
    tokens.enter(call_of(clock), 0.0)
    waiting = asyncio.ensure_future(tokens.wait(call_of(clock, deadline_at=0.5)))

    await clock.advance(0.5)

    assert isinstance(waiting.exception(), DeadlineExceeded)
    assert 0 == tokens.queued


async def test_waiters_are_served_in_turn_at_their_moments(clock: ManualClock) -> None:
    tokens = tokens_of(2, burst=2, wait_seconds_max=60)
    tokens.enter(call_of(clock, cost=2), 0.0)
    served: list[tuple[float, float]] = []

    async def ask(cost: float) -> None:
        await tokens.wait(call_of(clock, cost=cost))
        served.append((clock.monotonic(), cost))

    tasks = [asyncio.ensure_future(ask(cost)) for cost in (1.0, 2.0, 1.0)]
    await clock.advance(5)
    await asyncio.gather(*tasks)

    assert [(0.5, 1.0), (1.5, 2.0), (2.0, 1.0)] == served


async def test_those_behind_one_who_leaves_move_up(clock: ManualClock) -> None:
    """Their timers were armed for later."""
    tokens = tokens_of(1, burst=10, wait_seconds_max=60)
    tokens.enter(call_of(clock, cost=10), 0.0)
    large = asyncio.ensure_future(tokens.wait(call_of(clock, cost=10)))
    small = [asyncio.ensure_future(tokens.wait(call_of(clock))) for _ in range(2)]
    await settle()

    large.cancel()
    await clock.advance(1)
    assert small[0].done()
    await clock.advance(1)

    assert small[1].done()


async def test_tokens_that_come_back_serve_who_waits(clock: ManualClock) -> None:
    tokens = tokens_of(1, burst=2, wait_seconds_max=60)
    permit = tokens.enter(call_of(clock, cost=2), 0.0)
    waiting = asyncio.ensure_future(tokens.wait(call_of(clock, cost=2)))
    await settle()

    give_back(tokens, permit, 2.0)
    await settle()

    assert waiting.done()


def test_a_thread_waits_for_its_tokens(clock: ManualClock) -> None:
    tokens = tokens_of(1, wait_seconds_max=60)
    tokens.enter(call_of(clock), 0.0)

    assert wait_blocking(tokens, call_of(clock))
    assert 1.0 == clock.monotonic()


def test_threads_share_the_rate() -> None:
    """Eight threads on the machine's clock: the first ten at once, the rest no faster than the rate."""
    tokens = tokens_of(200, burst=10, wait_seconds_max=30, queue_max=100)
    started = SYSTEM.monotonic()
    moments: list[float] = []

    def work() -> None:
        for _ in range(10):
            call = call_of()
            tokens.enter(call, SYSTEM.monotonic()) or wait_blocking(tokens, call)
            moments.append(SYSTEM.monotonic())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 80 == len(moments)
    assert max(moments) - started >= 70 / 200 - 1e-6
    assert 0 == tokens.queued


def test_a_started_call_keeps_its_tokens() -> None:
    """It reached the dependency, whatever came of it."""
    tokens = tokens_of(1, burst=2)
    permit = tokens.enter(call_of(), 0.0)

    tokens.leave(permit, call_of(has_started=True), LOCAL, 0.0)

    assert 1 == tokens.available(0.0)


def test_a_rejected_call_gives_its_tokens_back_whoever_came_after() -> None:
    """Q25: ten that queue for a slot further in, and are refused there a second later in any order."""
    tokens = tokens_of(1, burst=10)
    permits = [tokens.enter(call_of(), number / 100) for number in range(10)]

    for permit in reversed(permits[::2]):
        give_back(tokens, permit, now=1.0)

    assert pytest.approx(10 - 5 + (1 - 0.01)) == tokens.available(1.0)  # full until the first that remains, at 0.01


def test_what_has_run_over_is_gone() -> None:
    """A token given back after the bucket had been full would let burst + 1 through at once."""
    tokens = tokens_of(1, burst=10)
    permit = tokens.enter(call_of(), 0.0)
    tokens.enter(call_of(), 5.0)

    give_back(tokens, permit, now=5.0)

    assert 9 == tokens.available(5.0)


def test_new_settings_keep_what_was_taken() -> None:
    tokens = tokens_of(1, burst=10)
    tokens.enter(call_of(cost=6), 0.0)

    tokens.configure(rate=2, burst=10, wait_seconds_max=1, queue_max=9)

    assert pytest.approx([4, 6]) == [tokens.available(0.0), tokens.available(1.0)]


async def test_a_waiter_above_a_lowered_burst_is_told(clock: ManualClock) -> None:
    """Nobody behind it may wait for what never comes."""
    tokens = tokens_of(1, burst=5, wait_seconds_max=60)
    tokens.enter(call_of(clock, cost=5), 0.0)
    waiting = asyncio.ensure_future(tokens.wait(call_of(clock, cost=5)))
    await settle()

    tokens.configure(rate=1, burst=2, wait_seconds_max=60, queue_max=9)
    await settle()

    assert isinstance(waiting.exception(), ValueError)


def test_one_whose_turn_is_late_looks_again_soon() -> None:
    """The first stands still, so nobody is served; the second must neither spin nor sleep to its end."""
    tokens = tokens_of(1, burst=2, wait_seconds_max=60)
    tokens.enter(call_of(cost=2), 0.0)
    first, second = Stub(call_of(cost=2), 60.0), Stub(call_of(), 60.0)
    tokens._join(first, call_of(cost=2), 0.0)
    tokens._join(second, call_of(), 0.0)
    assert pytest.approx([2.0, 3.0]) == [first.wakes_at, second.wakes_at]
    assert tokens._take(1.5, 1.5)

    assert not tokens._look(second, 3.0)

    assert pytest.approx(4.0) == second.wakes_at


def test_the_declaration_keeps_what_it_was_given() -> None:
    assert {"rate": 5, "per_seconds": 60, "burst": 2} == RateLimit(5, per_seconds=60, burst=2).given
    with pytest.raises(PolicyConfigError) as raised:
        RateLimit(0, per_seconds=float("inf"), burst=-1, queue_max=True)
    assert 4 == len(raised.value.faults)


# --- Q7 --------------------------------------------------------------------------------------------------------------


def test_q07_a_closed_loop_first_in_line_holds_nobody_up() -> None:
    """Everybody in the queue has a timer; not only the first, whose loop may be gone."""
    tokens = tokens_of(20, burst=1, wait_seconds_max=60)
    tokens.enter(call_of(), SYSTEM.monotonic())
    loop = asyncio.new_event_loop()
    task = loop.create_task(tokens.wait(call_of()))
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()

    assert wait_blocking(tokens, call_of())

    task.get_coro().close()  # type: ignore[union-attr]
    assert 0 == tokens.queued


def test_q07_a_grant_on_its_way_to_a_closed_loop_comes_back() -> None:
    tokens = tokens_of(1, burst=2, wait_seconds_max=60)
    tokens.enter(call_of(cost=2), 0.0)
    waiter = Stub(call_of(cost=2), 60.0)
    tokens._join(waiter, call_of(cost=2), 0.0)
    assert tokens.enter(call_of(), 2.0) is None
    assert Standing.GRANTED is waiter.standing
    assert 0 == tokens.available(2.0)

    waiter.is_dead = True

    assert tokens.enter(call_of(cost=2), 2.0)
    assert Standing.OVER is waiter.standing


@pytest.mark.parametrize("turns", range(5))
async def test_q07_a_waiter_cancelled_at_any_turn_loses_no_token(clock: ManualClock, turns: int) -> None:
    tokens = tokens_of(1, burst=1, wait_seconds_max=60)
    tokens.enter(call_of(clock), 0.0)
    first, second = (asyncio.ensure_future(tokens.wait(call_of(clock))) for _ in range(2))
    await settle()

    clock.sleep_blocking(1)
    for _ in range(turns):
        await asyncio.sleep(0)
    was_done = first.done()
    first.cancel()
    await settle()

    assert was_done != second.done()
    await clock.advance(1)
    assert second.done()


# --- against a reference ---------------------------------------------------------------------------------------------

RATE, BURST = 5.0, 8.0


class Stub(Waiter):
    """A place in the queue; `is_dead` when its event loop is closed."""

    def __init__(self, call: Call, ends_at: float = 1.0) -> None:
        super().__init__(call, ends_at)
        self.is_dead = False

    def is_gone(self, now: float) -> bool:
        return self.is_dead or super().is_gone(now)

    def wake(self) -> bool:
        return not self.is_dead


class RateMachine(RuleBasedStateMachine):
    """Against a replay of every grant that was not given back, which is what GCRA means; and Q14 on every span."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.tokens = tokens_of(RATE, burst=BURST, wait_seconds_max=3, queue_max=3)
        self.grants: dict[object, tuple[float, float]] = {}  # permit to moment and cost, in order
        self.open: list[object] = []  # permits whose call has not begun
        self.queue: list[Stub] = []
        self.granted: list[Stub] = []

    def level(self) -> float:
        level, at = BURST, 0.0
        for moment, cost in self.grants.values():
            level = min(BURST, level + (moment - at) * RATE) - cost
            at = moment
        return min(BURST, level + (self.now - at) * RATE)

    def settle(self, seen: float | None = None) -> None:
        """What every step does: collect the dead, serve the first in line."""
        now = self.now if seen is None else seen
        kept, self.now = self.now, now
        for one in [one for one in self.granted if one.is_gone(now)]:
            self.granted.remove(one)
            del self.grants[one.permit]
        while self.queue:
            first = self.queue[0]
            if not first.is_gone(now):
                if self.level() < first.cost - 1e-7:
                    break
                self.grants[first.permit] = (now, first.cost)
                self.granted.append(first)
            self.queue.pop(0)
        self.now = kept

    @rule(cost=st.sampled_from([1.0, 2.5, 8.0]))
    def ask(self, cost: float) -> None:
        call = call_of(cost=cost)
        is_quick = not self.queue and self.level() >= cost - 1e-7
        waiter = Stub(call, self.now + 3)
        if not is_quick:
            self.tokens._give_back(lambda: None, self.now)
            self.settle()
        wait = (sum(one.cost for one in self.queue) + cost - self.level()) / RATE
        if not self.queue and wait <= 1e-8:
            permit = self.tokens.enter(call, self.now)
            assert permit
            self.grants[permit] = (self.now, cost)
            self.open.append(permit)
        elif len(self.queue) >= 3 or wait > 3 + 1e-7:
            with pytest.raises(RateLimited) as raised:
                self.tokens.enter(call, self.now)
            assert raised.value.retry_after_seconds > 0
        else:
            assert self.tokens.enter(call, self.now) is None
            assert not self.tokens._join(waiter, call, self.now)
            self.queue.append(waiter)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def reject_further_in(self, data: Any) -> None:
        permit = data.draw(st.sampled_from(self.open))
        self.open.remove(permit)
        _, cost = self.grants[permit]
        self.tokens._give_back(lambda: None, self.now)
        self.settle()
        give_back(self.tokens, permit, cost, self.now)
        del self.grants[permit]
        self.settle()

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def begin(self, data: Any) -> None:
        self.open.remove(data.draw(st.sampled_from(self.open)))

    @precondition(lambda self: self.queue or self.granted)
    @rule(data=st.data(), is_cancelled=st.booleans())
    def look_or_cancel(self, data: Any, is_cancelled: bool) -> None:
        waiter = data.draw(st.sampled_from(self.queue + self.granted))
        self.tokens._give_back(lambda: None, self.now)
        self.settle()
        if is_cancelled:
            self.tokens._abandon(waiter)
            if waiter in self.granted:
                self.granted.remove(waiter)
                del self.grants[waiter.permit]
        elif waiter in self.granted:
            assert self.tokens._look(waiter, self.now)
            self.granted.remove(waiter)
            self.open.append(waiter.permit)
        elif waiter in self.queue and self.now < waiter.ends_at:
            assert not self.tokens._look(waiter, self.now)
            assert self.now < waiter.wakes_at <= waiter.ends_at
            return
        else:
            with pytest.raises(RateLimited):
                self.tokens._look(waiter, self.now)
        if waiter in self.queue:
            self.queue.remove(waiter)
        self.settle()

    @precondition(lambda self: self.queue or self.granted)
    @rule(data=st.data())
    def die(self, data: Any) -> None:
        data.draw(st.sampled_from(self.queue + self.granted)).is_dead = True

    @rule(seconds=st.floats(0.01, 2))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def the_bucket_is_the_replay_of_its_grants(self) -> None:
        assert pytest.approx(self.level(), abs=1e-6) == self.tokens.available(self.now)
        assert len(self.queue) == self.tokens.queued

    @invariant()
    def no_span_has_more_than_its_share(self) -> None:
        total = 0.0
        for moment, cost in reversed(list(self.grants.values())[-30:]):
            total += cost
            assert total <= BURST + RATE * (self.now - moment) + 1e-6


TestRateMachine = MACHINE_SECONDS(RateMachine.TestCase)
TestRateMachine.settings = settings(
    max_examples=MACHINE_EXAMPLES,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
