"""What a breaker did is told in the order in which it happened, outside its lock."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from spoolproof.policies import Breaker, Policy, events

Make = Callable[..., Policy]


def test_a_watcher_that_makes_a_transition_is_told_of_it_after_the_one_at_hand(make: Make) -> None:
    policy = make(Breaker())
    told: list[tuple[str, str]] = []

    def reset_at_once(change: events.BreakerChanged) -> None:
        if change.new == "isolated":
            policy.reset("no")

    policy.watch(reset_at_once)
    policy.watch(lambda change: told.append((change.old, change.new)))
    policy.isolate("maintenance")

    assert told == [("closed", "isolated"), ("isolated", "closed")]


def test_a_second_thread_does_not_tell_of_its_transition_before_an_earlier_one(make: Make) -> None:
    policy = make(Breaker())
    told: list[str] = []
    is_telling, is_reset = threading.Event(), threading.Event()

    def be_overtaken(change: events.BreakerChanged) -> None:
        if change.new == "isolated":
            is_telling.set()
            assert is_reset.wait(5)

    policy.watch(be_overtaken)
    policy.watch(lambda change: told.append(change.new))
    first = threading.Thread(target=policy.isolate, args=("maintenance",))
    first.start()
    assert is_telling.wait(5)
    policy.reset("from another thread")
    is_reset.set()
    first.join(5)

    assert told == ["isolated", "closed"]


def test_what_a_watcher_cut_off_left_untold_is_told_with_the_next(make: Make) -> None:
    policy = make(Breaker())
    told: list[str] = []

    def interrupt(change: events.BreakerChanged) -> None:
        if change.new == "isolated":
            policy.reset("no")
            raise KeyboardInterrupt

    policy.watch(lambda change: told.append(change.new))
    policy.watch(interrupt)
    with pytest.raises(KeyboardInterrupt):
        policy.isolate("maintenance")
    policy.reset("again")

    assert told == ["isolated", "closed", "closed"]
