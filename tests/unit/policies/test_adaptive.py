"""The adaptive limit: what moves it, what does not, and that it finds a server's capacity. Time is passed in."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable
from random import Random

import pytest

from spoolproof.errors import PolicyConfigError
from spoolproof.policies import Adaptive, events
from spoolproof.policies.machines.adaptive import DISCARD_SECONDS, PROBE_EVERY, SAMPLES_MIN, AdaptiveLimit


def window(limit: AdaptiveLimit, start: float, seconds: float = 0.1, *, in_flight: int = 200) -> float:
    """Fill one window with samples of one latency; returns when it ended, which is when the next begins."""
    for _ in range(SAMPLES_MIN):
        limit.sample(seconds, in_flight, start + seconds)
    limit.sample(seconds, in_flight, start + seconds + 2)
    return start + seconds + 2


def test_it_grows_while_latency_does_not() -> None:
    """√limit for each window, damped to a fifth."""
    limit = AdaptiveLimit("psp", None, limit_initial=100)

    window(limit, 0.0)

    assert pytest.approx(100 + 0.2 * 10) == limit._limit


def test_it_shrinks_when_latency_rises_beyond_the_tolerance() -> None:
    limit = AdaptiveLimit("psp", None, limit_initial=100, limit_max=1000)
    now = window(limit, 0.0, 0.1)

    window(limit, now, 0.16)

    assert pytest.approx(0.8 * 102 + 0.2 * (0.75 * 102 + 102**0.5)) == limit._limit


def test_an_overload_takes_a_tenth_instead() -> None:
    limit = AdaptiveLimit("psp", None, limit_initial=100)
    limit.overload(100, 0.0)

    window(limit, 0.0)

    assert pytest.approx(90) == limit._limit


def test_overloads_alone_shrink_it_too() -> None:
    """A dependency that answers nothing gives no latencies."""
    limit = AdaptiveLimit("psp", None, limit_initial=100)

    for number in range(SAMPLES_MIN + 1):
        limit.overload(100, number / SAMPLES_MIN)

    assert pytest.approx(90) == limit._limit


def test_a_slow_trickle_of_overloads_shrinks_it_once_in_thirty_seconds() -> None:
    limit = AdaptiveLimit("psp", None, limit_initial=100)

    for number in range(4):
        limit.overload(60, number * DISCARD_SECONDS / 3)

    assert pytest.approx(90) == limit._limit


def test_who_uses_less_than_half_moves_nothing() -> None:
    """A single timeout at night must not close the way for the morning."""
    limit = AdaptiveLimit("psp", None, limit_initial=100)
    now = window(limit, 0.0, in_flight=49)
    for _ in range(20):
        limit.overload(1, now)
        now = window(limit, now, 5.0, in_flight=49)

    assert 100.0 == limit._limit


def test_the_bounds_hold() -> None:
    limit = AdaptiveLimit("psp", None, limit_initial=10, limit_min=9, limit_max=11)
    now = 0.0
    for _ in range(20):
        now = window(limit, now)
    most = limit.limit
    for _ in range(20):
        limit.overload(200, now)
        now = window(limit, now)

    assert (11, 9) == (most, limit.limit)


def test_new_bounds_apply_at_once_and_keep_the_place() -> None:
    limit = AdaptiveLimit("psp", None, limit_initial=50)

    limit.configure(limit_initial=20, limit_min=1, limit_max=40)
    lowered = limit.limit
    limit.configure(limit_initial=20, limit_min=1, limit_max=400)

    assert (40, 40) == (lowered, limit.limit)


def test_every_sixtieth_window_runs_at_half_and_measures_only_calls_of_its_own() -> None:
    """Calls begun before it waited in the queue of the full limit."""
    limit = AdaptiveLimit("psp", None, limit_initial=100)
    now = 0.0
    for _ in range(PROBE_EVERY):
        now = window(limit, now, 0.1, in_flight=1)

    assert 50 == limit.limit
    for _ in range(SAMPLES_MIN * 2):
        limit.sample(3.0, 1, now + 2.0)
    assert 50 == limit.limit
    for _ in range(SAMPLES_MIN):
        limit.sample(0.05, 200, now + 2.5)

    assert 100 == limit.limit
    assert 0.05 == min(limit._bases)


def test_a_probe_without_traffic_ends() -> None:
    """Else half of the limit would be refused for as long as the night is quiet."""
    limit = AdaptiveLimit("psp", None, limit_initial=100)
    now = 0.0
    for _ in range(PROBE_EVERY):
        now = window(limit, now, 0.1, in_flight=1)

    limit.sample(0.1, 1, now + DISCARD_SECONDS + 1)

    assert 100 == limit.limit


def test_a_fast_server_keeps_its_memory_bounded() -> None:
    limit = AdaptiveLimit("psp", None)

    for number in range(5000):
        limit.sample(0.001 * (number % 7), 20, number / 6000)

    assert 1000 == len(limit._samples)


def test_latencies_of_nothing_are_no_reason_to_shrink() -> None:
    limit = AdaptiveLimit("psp", None, limit_initial=100)

    window(limit, 0.0, 0.0)

    assert pytest.approx(102) == limit._limit


def test_a_sample_in_the_middle_of_another_is_dropped() -> None:
    """A call that the garbage collector ends on this very thread must not wait for itself."""
    limit = AdaptiveLimit("psp", None)

    with limit._lock:
        limit.sample(0.1, 20, 0.0)
        limit.overload(20, 0.0)

    assert limit._started_at is None


def test_threads_may_sample_at_once() -> None:
    limit = AdaptiveLimit("psp", None)

    def work() -> None:
        for number in range(2000):
            limit.sample(0.01, 20, number / 100)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 1 <= limit.limit <= 200


def test_a_move_is_told() -> None:
    told: list[events.Event] = []
    unsubscribe = events.subscribe(told.append)
    limit = AdaptiveLimit("psp", "eu", limit_initial=100)

    window(limit, 0.0)
    unsubscribe()

    assert [events.LimitChanged(policy="psp", key="eu", old=100, new=102)] == told


def test_the_declaration_refuses_bounds_out_of_order() -> None:
    with pytest.raises(PolicyConfigError, match="none above the next"):
        Adaptive(limit_initial=10, limit_min=20)
    with pytest.raises(PolicyConfigError, match="limit_max=True"):
        Adaptive(limit_max=True)


# --- Q26 -------------------------------------------------------------------------------------------------------------


def test_q26_idleness_changes_nothing() -> None:
    """Too few samples say nothing, however long it took: nor do forty-nine, an hour of silence and one more."""
    limit = AdaptiveLimit("psp", None)

    for number in range(1000):
        limit.sample(9.0, 20, number * 1.0)
    for _ in range(SAMPLES_MIN - 1):
        limit.sample(9.0, 20, 2000.0)
    limit.sample(9.0, 20, 5600.0)

    assert 20.0 == limit._limit


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("spread", "most"), [("steady", 75), ("uniform", 75), ("exponential", 90)])
def test_q26_the_limit_finds_the_capacity_of_a_server_and_finds_it_again(spread: str, most: float, seed: int) -> None:
    """Capacity 50, demand 500: within 40 to 75 from 60 s to 900 s, and again 240 s after its latency doubled. A limit
    that measures against a moving average follows the queue it causes and runs away to the maximum. A server whose
    latencies have a long tail of their own hides some of its queue in it, and is filled further: up to 90."""
    random = Random(seed)
    seconds_of: dict[str, Callable[[float], float]] = {
        "steady": lambda base: base,
        "uniform": lambda base: base * random.uniform(0.8, 1.2),
        "exponential": lambda base: base * (0.5 + 0.5 * random.expovariate(1)),
    }
    limit = AdaptiveLimit("psp", None)
    moments = simulate(limit, lambda now: seconds_of[spread](0.2 if now >= 900 else 0.1), until=1500)

    steady = [value for at, value in moments if 60 <= at < 900]
    again = [value for at, value in moments if at >= 1140]

    assert 40 <= min(steady) <= max(steady) <= most
    assert 40 <= min(again) <= max(again) <= most


def simulate(
    limit: AdaptiveLimit, service_seconds: Callable[[float], float], until: float
) -> list[tuple[float, float]]:
    """Fifty workers, always 500 callers who want in; returns the limit over time."""
    now = 0.0
    workers = [0.0] * 50
    running: list[tuple[float, float]] = []  # end and start
    moments: list[tuple[float, float]] = []
    while now < until:
        while len(running) < min(500, limit.limit):
            end = max(now, heapq.heappop(workers)) + service_seconds(now)
            heapq.heappush(workers, end)
            heapq.heappush(running, (end, now))
        now, started = heapq.heappop(running)
        limit.sample(now - started, len(running) + 1, now)
        if not moments or now - moments[-1][0] >= 1:
            moments.append((now, limit._limit))
    return moments
