"""Breakers with the settings a policy would give them, and calls that end at once."""

from __future__ import annotations

from typing import Any

import pytest

from spoolproof.backoff import RandomSource, seeded_random
from spoolproof.errors import BreakerOpen
from spoolproof.policies import Breaker, Consecutive, events
from spoolproof.policies.call import Call
from spoolproof.policies.judging.verdict import SUCCESS, Kind, Verdict, verdict_of
from spoolproof.policies.machines.circuit import Circuit
from spoolproof.policies.settings import config

FAILED = verdict_of(Kind.TRANSIENT, reason="Away: refused")
NEUTRAL = verdict_of(Kind.CANCELLED)


def circuit(
    breaker: Breaker | None = None,
    *,
    preset: str | None = None,
    environ: dict[str, str] | None = None,
    random: RandomSource | None = None,
) -> Circuit:
    """Return a machine with the settings a policy of this breaker would have."""
    resolved = resolve(breaker or Breaker(), preset=preset, environ=environ)
    return Circuit("psp", None, random=random or seeded_random(1), **resolved)


def reload(machine: Circuit, breaker: Breaker) -> None:
    """Give a machine the settings of another breaker."""
    machine.configure(**resolve(breaker))


def resolve(breaker: Breaker, *, preset: str | None = None, environ: dict[str, str] | None = None) -> dict[str, Any]:
    """Return the keywords a machine is made with."""
    sources, faults = config.load(environ or {}, None)
    resolved = config.resolve("psp", [breaker], sources, preset=preset)
    assert [] == [*faults, *resolved.faults]
    return {"rule": resolved.rule, "settings": resolved.values}


def call(machine: Circuit, now: float, verdict: Verdict = SUCCESS) -> None:
    """Make one call that ends at once. Raises BreakerOpen."""
    machine.leave(machine.enter(Call(), now), Call(), verdict, now)


def fail(machine: Circuit, now: float, times: int = 1) -> None:
    """Make calls that fail at once. Raises BreakerOpen."""
    for _ in range(times):
        call(machine, now, FAILED)


def opened(**given: Any) -> Circuit:
    """Return a machine that opened at 0 s for 5 s, to the split second."""
    machine = circuit(Breaker(Consecutive(1), **({"open_jitter": 0, "open_seconds": 5} | given)))
    fail(machine, 0.0)
    return machine


class Fixed:
    """Chance that always says the same."""

    def __init__(self, part: float) -> None:
        self.part = part

    def uniform(self, a: float, b: float) -> float:
        return a + self.part * (b - a)


def rejected(machine: Circuit, now: float) -> BreakerOpen:
    """Make a call that must be rejected."""
    with pytest.raises(BreakerOpen) as caught:
        machine.enter(Call(), now)
    return caught.value


def changes_of(machine: Circuit) -> list[events.BreakerChanged]:
    """Return a list that will hold every change from now on."""
    kept: list[events.BreakerChanged] = []
    machine.watch(kept.append)
    return kept
