"""The plan: every kind as often as promised, in an order the seed decides."""

from __future__ import annotations

import random
from collections import Counter

from spoolproof.testing.demo.faults import Fault, Sign, planned


def fault(kind: str) -> Fault:
    return Fault(kind, strike=lambda: None, heal=lambda: None, hold_seconds=0, signs=frozenset(Sign), is_noticed=bool)


def test_every_kind_comes_once_per_round() -> None:
    """A demo that forgot to kill payments would prove nothing about payments."""
    kinds = [fault(name) for name in "abcd"]

    plan = [one.kind for one in planned(kinds, 3, random.Random(1))]

    assert {"a": 3, "b": 3, "c": 3, "d": 3} == Counter(plan)
    assert [set("abcd")] * 3 == [set(plan[start : start + 4]) for start in (0, 4, 8)]


def test_a_seed_repeats_its_plan() -> None:
    """The command printed by a failed run has to break the same things."""
    kinds = [fault(name) for name in "abcd"]

    plans = {seed: [[one.kind for one in planned(kinds, 3, random.Random(seed))] for _ in range(2)] for seed in (1, 2)}

    assert plans[1][0] == plans[1][1]
    assert plans[1] != plans[2]
