"""How long to wait before trying again: pure functions of an attempt and a random source.

This file, `clock` and `ids` are the only doors to chance and time.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class RandomSource(Protocol):
    """Where jitter comes from; a seeded `random.Random` in tests and simulations."""

    def uniform(self, a: float, b: float) -> float:
        """Return a number between a and b."""


_system = random.Random()
if hasattr(os, "register_at_fork"):
    # a policy made before a fork would draw the same back-off in every worker, and all would come back together
    os.register_at_fork(after_in_child=_system.seed)


def system_random() -> RandomSource:
    """Return the random source of this process, seeded by the operating system; anew after a fork."""
    return _system


def seeded_random(seed: int) -> RandomSource:
    """Return a random source whose sequence `seed` determines, for faults that can be repeated."""
    return random.Random(seed)


def full_jitter_seconds(attempt: int, *, base_seconds: float, cap_seconds: float, source: RandomSource) -> float:
    """Return the wait before the next attempt, uniform between 0 and an exponentially growing bound.

    attempt: 1 after the first failure; from 17 on it counts as 16, so 2**n stays finite. Raises ValueError below 1.
    Source: full jitter, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015).
    """
    if attempt < 1:
        raise ValueError(f"attempt={attempt}: the first failure is attempt 1")
    return source.uniform(0.0, min(cap_seconds, base_seconds * 2 ** min(attempt - 1, 15)))


def spread_seconds(seconds: float, *, ratio: float, source: RandomSource) -> float:
    """Return `seconds` ± `ratio` of it (0.2 = ± 20 %), so that processes started together do not stay together."""
    return seconds * source.uniform(1.0 - ratio, 1.0 + ratio)


@dataclass(frozen=True, slots=True)
class Rounds:
    """The wait between rounds of connection attempts: first, doubled, up to a cap, each ± 20 %.

    first_seconds: 1; cap_seconds: 60, so that a broker away for an hour is asked once a minute by each process.
    """

    first_seconds: float = 1.0
    cap_seconds: float = 60.0

    def seconds(self, failed_rounds: int, source: RandomSource) -> float:
        """Return the wait after the `failed_rounds`-th failure in a row (1 or more); never above the cap."""
        exponent = min(max(failed_rounds, 1) - 1, 30)
        return min(self.cap_seconds, spread_seconds(self.first_seconds * 2**exponent, ratio=0.2, source=source))


def delay_seconds(delays_seconds: Sequence[float], attempt: int) -> float:
    """Return the delay after failed attempt `attempt` (1-based) from a list whose last entry repeats."""
    return delays_seconds[min(attempt, len(delays_seconds)) - 1]


def tier_for(seconds: float, tiers_seconds: Sequence[int]) -> int:
    """Return the smallest tier at or above `seconds`; the largest if none is. `tiers_seconds` is sorted, not empty."""
    return next((tier for tier in tiers_seconds if tier >= seconds), tiers_seconds[-1])
