"""The clock that moves only when told: a test that cannot trust it can trust nothing."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import weakref
from datetime import UTC, datetime, timedelta, timezone

import pytest

from spoolproof.clock import AMBIENT, SYSTEM, is_replaced
from spoolproof.testing.clock import ManualClock


async def test_timers_fire_in_the_order_of_their_time_and_equal_ones_in_the_order_they_were_made() -> None:
    """Production decides by order; a test whose order is chance proves nothing."""
    clock = ManualClock()
    fired: list[tuple[str, float]] = []
    for name, when in (("late", 3.0), ("early", 1.0), ("middle", 2.0), ("middle too", 2.0)):
        clock.call_at(when, lambda name=name: fired.append((name, clock.monotonic())))

    await clock.advance(2.5)
    assert [("early", 1.0), ("middle", 2.0), ("middle too", 2.0)] == fired
    assert 2.5 == clock.monotonic()

    await clock.advance(0.5)
    assert ("late", 3.0) == fired[-1]


async def test_a_timer_in_the_past_fires_and_time_does_not_go_back() -> None:
    """Who arms a timer too late still wants it to fire."""
    clock = ManualClock()
    await clock.advance(5)
    fired: list[float] = []
    clock.call_at(1.0, lambda: fired.append(clock.monotonic()))

    await clock.advance(0)

    assert [5.0] == fired


async def test_a_timer_that_is_due_already_fires_soon_and_not_at_once() -> None:
    """A back-off of no time at all must not wait for somebody to advance; nor may it call back into who armed it."""
    clock = ManualClock()
    fired: list[str] = []
    clock.call_at(0, lambda: fired.append("due"))
    clock.call_at(0, lambda: fired.append("cancelled")).cancel()

    before = list(fired)
    await asyncio.sleep(0)

    assert ([], ["due"]) == (before, fired)


def test_without_an_event_loop_what_is_due_fires_when_time_next_moves() -> None:
    """There is nobody who could call it soon."""
    clock = ManualClock()
    fired: list[str] = []
    clock.call_at(0, lambda: fired.append("due"))

    clock.sleep_blocking(0)

    assert ["due"] == fired


async def test_a_timer_set_for_never_does_not_move_time_to_the_end() -> None:
    """A call without a limit may arm a timer at infinity."""
    clock = ManualClock()
    clock.call_at(float("inf"), lambda: pytest.fail("infinity has come"))

    async with clock.auto_advance():
        await clock.sleep(5)

    assert 5.0 == clock.monotonic()


async def test_a_cancelled_timer_keeps_nobody_alive() -> None:
    """A timeout that was not needed stays queued for its whole time; the task it would have cut off must not."""

    class Waiting:
        def wake(self) -> None:
            pytest.fail("it was cancelled")

    clock, waiting = ManualClock(), Waiting()
    timer = clock.call_at(3600, waiting.wake)
    seen = weakref.ref(waiting)

    timer.cancel()
    del waiting
    gc.collect()

    assert None is seen()
    await clock.advance(7200)


async def test_a_cancelled_timer_does_not_fire_even_if_another_cancels_it_at_the_same_moment() -> None:
    """Timeouts are cancelled by what they watch, often in the same turn."""
    clock = ManualClock()
    fired: list[str] = []
    second: list[object] = []
    clock.call_at(1.0, lambda: second[0].cancel())  # type: ignore[attr-defined]
    second.append(clock.call_at(1.0, lambda: fired.append("second")))
    clock.call_at(1.0, lambda: fired.append("third"))

    await clock.advance(2)

    assert ["third"] == fired


async def test_a_timer_armed_by_a_timer_fires_in_the_same_advance_if_it_is_due() -> None:
    """A back-off that follows a timeout is part of the same hour."""
    clock = ManualClock()
    fired: list[float] = []
    clock.call_at(1.0, lambda: clock.call_at(2.0, lambda: fired.append(clock.monotonic())))

    await clock.advance(2)

    assert [2.0] == fired


async def test_a_sleeper_wakes_at_its_time_and_runs_before_the_next_timer() -> None:
    """Else it would see a later time than it slept to."""
    clock = ManualClock()
    seen: list[tuple[str, float]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        seen.append((name, clock.monotonic()))
        await clock.sleep(1)
        seen.append((name, clock.monotonic()))

    tasks = [asyncio.ensure_future(sleeper("a", 1)), asyncio.ensure_future(sleeper("b", 1.5))]
    await clock.advance(0.999)
    assert [] == seen

    await clock.advance(10)
    await asyncio.gather(*tasks)

    assert [("a", 1.0), ("b", 1.5), ("a", 2.0), ("b", 2.5)] == [(name, round(at, 6)) for name, at in seen]


async def test_a_cancelled_sleeper_is_gone_and_no_sleep_at_all_needs_no_move() -> None:
    """Neither may hold up the clock."""
    clock = ManualClock()
    await clock.sleep(0)
    await clock.sleep(-1)
    task = asyncio.ensure_future(clock.sleep(5))
    await clock.advance(1)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await clock.advance(10)

    assert 11.0 == clock.monotonic()


async def test_what_a_timer_wakes_may_take_many_turns_before_it_sleeps_again() -> None:
    """Time does not run away from a task that has work to do."""
    clock = ManualClock()
    slept: list[float] = []

    async def work() -> None:
        await clock.sleep(1)
        for _ in range(50):
            await asyncio.sleep(0)
        await clock.sleep(1)
        slept.append(clock.monotonic())

    task = asyncio.create_task(work())
    clock.call_at(30, lambda: None)
    await clock.advance(60)
    await task

    assert [2.0] == slept


@pytest.mark.parametrize("seconds", [-1.0, float("nan")])
async def test_it_cannot_be_turned_back(seconds: float) -> None:
    """Nothing in production meets a monotonic clock that goes back, so no test may ask for it."""
    with pytest.raises(ValueError, match="move_wall"):
        await ManualClock().advance(seconds)


def test_a_blocking_sleep_moves_the_clock_and_fires_what_it_passes() -> None:
    """A thread that sleeps has nobody else to move its clock."""
    clock = ManualClock()
    fired: list[float] = []
    clock.call_at(2.0, lambda: fired.append(clock.monotonic()))

    clock.sleep_blocking(3)
    clock.sleep_blocking(-1)

    assert [2.0] == fired
    assert 3.0 == clock.monotonic()
    assert [3, -1] == clock.blocking_sleeps


async def test_a_timer_fires_on_its_event_loop_whichever_thread_moves_the_clock() -> None:
    """A future belongs to one loop; set from another thread, its task may sleep on."""
    clock = ManualClock()
    threads: list[threading.Thread] = []
    clock.call_at(3, lambda: threads.append(threading.current_thread()))

    await asyncio.to_thread(clock.sleep_blocking, 5)
    await clock.advance(0)

    assert [threading.current_thread()] == threads


def test_a_timer_of_a_closed_event_loop_is_forgotten() -> None:
    """What one `asyncio.run` left armed must not break the next one."""
    clock = ManualClock()

    async def arm() -> None:
        clock.call_at(1, lambda: pytest.fail("its loop is closed"))

    asyncio.run(arm())
    asyncio.run(clock.advance(2))

    assert 2.0 == clock.monotonic()


class HeldClock(ManualClock):
    """Jumps only once `is_held` is False, so that a test decides what waits for it by then."""

    is_held = True

    def _fire_next(self, target: float) -> bool:
        return not self.is_held and super()._fire_next(target)

    async def blocked(self, threads: int) -> None:
        while len(self._blocked) < threads:
            await asyncio.sleep(0.001)


async def test_threads_sleep_through_the_same_time_while_it_jumps() -> None:
    """Three threads that sleep ten seconds side by side take ten, not thirty."""
    clock = HeldClock()

    async with clock.auto_advance():
        sleeps = [asyncio.create_task(asyncio.to_thread(clock.sleep_blocking, 10)) for _ in range(3)]
        await clock.blocked(threads=3)
        clock.is_held = False
        await asyncio.gather(*sleeps)

    assert 10.0 == clock.monotonic()


async def test_threads_go_on_by_themselves_when_the_jumps_end() -> None:
    """A thread must not hang because the block that moved its time is over."""
    clock = HeldClock()

    async with clock.auto_advance():
        sleep = asyncio.create_task(asyncio.to_thread(clock.sleep_blocking, 10))
        await clock.blocked(threads=1)
    await sleep

    assert 10.0 == clock.monotonic()


async def test_a_callback_that_raises_does_not_stop_the_jumps() -> None:
    """It is told as an event loop tells it; a clock that stopped silently would hang the test."""
    clock = ManualClock()
    told: list[BaseException] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))

    def fail() -> None:
        raise LookupError("lost")

    clock.call_at(1, fail)
    async with clock.auto_advance():
        await clock.sleep(2)

    assert ["lost"] == [str(error) for error in told]


async def test_auto_advance_jumps_over_an_hour_and_ends_with_its_block() -> None:
    """An hour of back-off takes milliseconds; afterwards the clock stands still again."""
    clock = ManualClock()
    woken: list[float] = []

    async def sleeper(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(clock.monotonic())

    async with clock.auto_advance():
        await asyncio.gather(sleeper(3600), sleeper(60), sleeper(1))
    assert [1.0, 60.0, 3600.0] == woken

    task = asyncio.ensure_future(clock.sleep(1))
    for _ in range(50):
        await asyncio.sleep(0)
    assert not task.done()
    await clock.advance(1)
    await task


async def test_both_readings_advance_together_and_the_wall_alone_can_be_set() -> None:
    """Nothing that measures may notice an operator who sets the clock."""
    start = datetime(2030, 5, 17, tzinfo=UTC)
    clock = ManualClock(start)
    await clock.advance(90)
    assert (start + timedelta(seconds=90), 90.0) == (clock.now(), clock.monotonic())

    clock.move_wall(-3600)
    assert (start + timedelta(seconds=90 - 3600), 90.0) == (clock.now(), clock.monotonic())

    clock.move_wall(7200)
    await clock.advance(10)
    assert (start + timedelta(seconds=100 + 3600), 100.0) == (clock.now(), clock.monotonic())


def test_it_starts_at_a_moment_that_names_its_timezone() -> None:
    """A naive one would be read as somebody's local time."""
    clock = ManualClock(datetime(2026, 3, 1, 2, tzinfo=timezone(timedelta(hours=2))))

    assert (datetime(2026, 3, 1, tzinfo=UTC), UTC) == (clock.now(), clock.now().tzinfo)
    with pytest.raises(ValueError, match="timezone"):
        ManualClock(datetime(2026, 3, 1))


async def test_an_active_clock_is_found_by_what_was_made_before_and_by_tasks_made_inside() -> None:
    """Policies are made at import, before any test could pass them a clock."""
    assert not is_replaced()
    outside = contextvars.copy_context()

    with ManualClock().active() as clock:
        await clock.advance(7)
        assert is_replaced()
        assert 7.0 == AMBIENT.monotonic()
        assert clock.now() == AMBIENT.now()
        assert 7.0 == await asyncio.ensure_future(_reading())
        assert 7.0 != outside.run(AMBIENT.monotonic)
        task = asyncio.ensure_future(AMBIENT.sleep(3))
        await clock.advance(3)
        await asyncio.wait_for(task, 1)

    assert not is_replaced()
    assert SYSTEM.monotonic() <= AMBIENT.monotonic()


async def _reading() -> float:
    return AMBIENT.monotonic()


async def test_nested_clocks_give_way_to_the_outer_one_even_after_an_error() -> None:
    """A fixture's clock must still be there when a test has used one of its own."""
    with ManualClock().active() as outer:
        await outer.advance(1)
        with pytest.raises(ZeroDivisionError), ManualClock().active() as inner:
            await inner.advance(100)
            assert 100.0 == AMBIENT.monotonic()
            _ = 1 / 0
        assert 1.0 == AMBIENT.monotonic()
    assert not is_replaced()
