"""The breaker's machine when somebody else comes in the middle: another thread, or the collector on the same one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from spoolproof.errors import BreakerOpen
from spoolproof.policies import Breaker, Slow
from spoolproof.policies.call import Call
from spoolproof.policies.judging.verdict import SUCCESS
from spoolproof.policies.machines.circuit import Circuit

from .breakers import NEUTRAL, circuit, opened


class Interrupting:
    """Chance that is asked under the lock, where the collector may end an abandoned call on the same thread."""

    def __init__(self) -> None:
        self.finalisers: list[Callable[[], None]] = []

    def uniform(self, a: float, b: float) -> float:
        while self.finalisers:
            self.finalisers.pop()()
        return a


def test_a_call_that_the_collector_ends_while_slow_ones_are_counted_disturbs_nothing() -> None:
    """The call that counts them must not fail, whichever of them is gone by then."""
    random = Interrupting()
    machine = circuit(Breaker(Slow(0.5, slow_seconds=5, calls_min=1)), random=random)
    permits = [machine.enter(Call(), 0.0) for _ in range(3)]
    random.finalisers.append(lambda: machine.leave(permits[1], Call(), NEUTRAL, 6.0))

    assert "open" == machine.state(6.0)

    for permit in permits:
        machine.leave(permit, Call(), SUCCESS, 7.0)
    assert "open" == machine.state(7.0)


class Restored(float):
    """A moment at which, between looking and rejecting, a snapshot with no time left is taken over."""

    machine: Circuit

    def __lt__(self, other: float) -> bool:
        is_before = float(self) < other
        self.machine.restore(KEPT, float(self), 0.0)
        return is_before


KEPT = {"version": 1, "saved_at": 0.0, "state": "half_open", "round": 0, "open_until": None, "isolations": []}


def test_a_rejection_that_is_overtaken_by_a_transition_still_says_a_time_above_zero() -> None:
    """The cheap way to reject takes no lock; who is told to wait less than nothing would ask again at once."""
    machine = opened()
    now = Restored(1.0)
    now.machine = machine

    with pytest.raises(BreakerOpen) as caught:
        machine.enter(Call(), now)

    assert caught.value.retry_after_seconds > 0
