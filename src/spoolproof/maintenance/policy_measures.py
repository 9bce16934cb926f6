"""What policies count of themselves, as metrics: read when somebody asks, so that a call pays for nothing more.

The keys of a policy are added up: a key is no label. A key that is forgotten takes its counts along; what was read of
them until then stays in the sum, for a count that fell would be taken for a restart.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

from spoolproof.maintenance.breaker_log import BreakerLog
from spoolproof.maintenance.events import (
    ATTEMPTS,
    BREAKER_STATE,
    BREAKER_TRANSITIONS,
    BUDGET_AVAILABLE,
    BULKHEAD_LIMIT,
    BULKHEAD_RUNNING,
    CALLS,
    REJECTED,
    RETRIES,
    THREADS_ABANDONED,
)
from spoolproof.policies import Policy, Registry
from spoolproof.telemetry.metrics import Labels, Measure, Metric

_SEEN_MAX = 10_000  #: policies and keys whose last counts are remembered
_STATES = ("closed", "open", "half_open", "isolated")

Counted = dict[tuple[Metric, Labels], int]


class PolicyMeasures:
    """The policies of a registry at each scrape."""

    def __init__(self, policies: Registry, log: BreakerLog) -> None:
        self._policies = policies
        self._log = log
        self._lock = threading.Lock()
        self._totals: Counter[tuple[Metric, Labels]] = Counter()
        self._seen: dict[tuple[str, str | None], Counted] = {}  # by policy and key, at the last scrape

    def measures(self) -> Iterator[Measure]:
        """Yield every value."""
        by_name: dict[str, list[Policy]] = {}
        for policy in self._policies.all():
            by_name.setdefault(policy.name, []).append(policy)
        with self._lock:  # two may ask at once
            self._add_up([one for alike in by_name.values() for one in alike])
            totals = list(self._totals.items())
        yield from ((metric, labels, value) for (metric, labels), value in totals)
        for name, alike in by_name.items():
            yield from self._now(name, alike)

    def _add_up(self, policies: list[Policy]) -> None:
        seen = {(policy.name, policy.key): _counted(policy) for policy in policies}
        for name, counted in seen.items():
            before = self._seen.get(name, {})
            for what, value in counted.items():
                last = before.get(what, 0)
                more = value - last if value >= last else value  # less: its key was forgotten, and made anew
                self._totals[what] = self._totals.get(what, 0) + more
        # a key that is forgotten may come back as it was, while somebody holds it
        self._seen = {**self._seen, **seen} if len(self._seen) < _SEEN_MAX else seen

    def _now(self, name: str, alike: list[Policy]) -> Iterator[Measure]:
        shared = alike[0].shared
        yield BUDGET_AVAILABLE, (name,), shared.budget.available(shared.monotonic())
        yield THREADS_ABANDONED, (name,), shared.abandoned.count
        used = alike[1:] or alike  # beside its keys a policy itself has no calls
        slots = [one.machines.slots for one in used if one.machines.slots is not None]
        if slots:
            yield BULKHEAD_RUNNING, (name,), sum(one.running for one in slots)
            yield BULKHEAD_LIMIT, (name,), sum(one.limit for one in slots)
        states = Counter(self._log.state_of(one) for one in used if one.machines.circuit is not None)
        if states:
            yield from ((BREAKER_STATE, (name, state), states[state]) for state in _STATES)


def _counted(policy: Policy) -> Counted:
    name, counts, circuit = policy.name, policy.machines.counts, policy.machines.circuit
    found: Counted = {(CALLS, (name, *how)): count for how, count in counts.calls().items()}
    found |= {(REJECTED, (name, by)): count for by, count in counts.rejections().items()}
    found |= {(RETRIES, (name, why)): count for why, count in counts.stopped.items()}
    found[RETRIES, (name, "")] = counts.retries
    found[ATTEMPTS, (name,)] = counts.attempts
    if circuit is not None:
        found |= {(BREAKER_TRANSITIONS, (name, to)): count for to, count in circuit.transitions.items()}
    return found
