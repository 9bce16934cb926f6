"""Watches what the policies of a process protect: each policy is a dependency, and nothing is declared twice.

Counts are those that policies keep anyway, read between two looks; how long calls take is sampled, a few dozen between
two looks. So a call pays nothing for being watched. A breaker that opens is told where it happens. Where calls are few
a probe asks (`@policy.probe`), for a second at most, and never two of one dependency at a time.

The keys of a policy are one dependency: one tenant's breaker does not make it unhealthy, the calls of all together do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from spoolproof.backoff import RandomSource, spread_seconds
from spoolproof.clock import Clock
from spoolproof.health.dependency import (
    ANSWER_SECONDS_MAX,
    EVALUATE_SECONDS,
    KEYS_MAX,
    PROBE_SECONDS,
    PROBE_SOON_SECONDS,
    SAMPLES,
    DependencyStatus,
)
from spoolproof.health.events import (
    DEPENDENCY_ERRORS,
    DEPENDENCY_RESPONSE,
    DEPENDENCY_STATE,
    DependencyChanged,
)
from spoolproof.lifecycle.loop import Loop
from spoolproof.policies import Policy, Registry
from spoolproof.policies.events import BreakerChanged
from spoolproof.ports.broker import ConnectionState
from spoolproof.ports.health import Dependency, Need, Status
from spoolproof.telemetry.events import DEBUG, WARNING, emit
from spoolproof.telemetry.metrics import Measure

_KEYS_SAMPLED = 16


@dataclass(slots=True)
class _Watched:
    """One policy and what is known of it. totals: by key, as last read. told: its status when it was last told."""

    policy: Policy
    status: DependencyStatus
    since: datetime
    changed_at: float
    look_at: float
    probe_at: float
    unwatch: Callable[[], None]
    breaker: str = "closed"
    breaker_reason: str = ""
    error: str | None = None
    told: Status = Status.UNKNOWN
    has_hurried: bool = False
    totals: dict[str | None, tuple[int, int]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    probing: asyncio.Task[Any] | None = None


class Dependencies(Loop):
    """The dependencies of one process, by the names of their policies."""

    name = "health.dependencies"

    def __init__(
        self, policies: Registry, *, clock: Clock, random: RandomSource, spawn: Callable[..., asyncio.Task[Any]],
        without: Collection[str] = (),
    ) -> None:  # fmt: skip
        """without: policies of what is watched already under another name."""
        self._policies = policies
        self._clock = clock
        self._random = random
        self._spawn = spawn
        self._without = frozenset(without)
        self._watched: dict[str, _Watched] = {}  # bounded as the registry is
        self._evaluate_at = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None

    # --- what is asked -----------------------------------------------------------------------------------------------

    def status_of(self, name: str) -> Status | None:
        """Return the status of a policy's dependency; None for a name that is not watched."""
        watched = self._watched.get(name)
        return None if watched is None else watched.status.status

    def known(self) -> tuple[Dependency, ...]:
        """Return all there are, by name."""
        return tuple(self._shown(name, one) for name, one in sorted(self._watched.items()))

    def measures(self) -> Iterable[Measure]:
        """Yield the status of each, its errors and its times."""
        for name, one in list(self._watched.items()):
            yield from ((DEPENDENCY_STATE, (name, word.value), float(word is one.status.status)) for word in Status)
            if (ratio := one.status.error_ratio) is not None:
                yield DEPENDENCY_ERRORS, (name,), ratio
            if (found := one.status.percentiles()) is not None:
                yield DEPENDENCY_RESPONSE, (name, "0.5"), found[0]
                yield DEPENDENCY_RESPONSE, (name, "0.95"), found[1]

    # --- the loop ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to watch."""
        self._loop = asyncio.get_running_loop()
        self._evaluate_at = self._clock.monotonic() + EVALUATE_SECONDS
        self._find()

    async def run_once(self) -> int:
        """Look: every 5 s, and once a second while one is in doubt."""
        is_in_doubt = any(one.status.is_in_doubt for one in self._watched.values())
        await self._clock.sleep(PROBE_SOON_SECONDS if is_in_doubt else EVALUATE_SECONDS)
        self.look()
        return 1

    def look(self) -> None:
        """Take in what has happened, and decide if it is time to."""
        self._find()
        now = self._clock.monotonic()
        is_due = now >= self._evaluate_at
        if is_due:
            self._evaluate_at = now + EVALUATE_SECONDS
        for name, one in self._watched.items():
            if is_due or one.status.is_in_doubt:
                self._read(one, now)
            if is_due:
                one.status.evaluate(now)
            self._probe_if_due(one, now)
            self._tell(name, one)

    async def stop(self) -> None:
        """Watch no more. Idempotent."""
        self._loop = None
        for one in self._watched.values():
            one.unwatch()
        self._watched.clear()

    def _find(self) -> None:
        names = set(self._policies.names()) - self._without
        for name in names - self._watched.keys():
            now, policy = self._clock.monotonic(), self._policies.get(name)
            if policy.definition.need is None:
                continue
            status = DependencyStatus(now, policy.definition.response_seconds)
            one = self._watched[name] = _Watched(
                policy, status, self._clock.now(), now, now, self._probe_at(now, status), lambda: None
            )
            one.totals = {member.key: member.machines.answered() for member in _members(policy)}
            one.unwatch = policy.watch(self._hears(one))
            if policy.state in ("open", "isolated"):  # before it was watched, or before the restart
                self._opened(one, policy.state, "it was open before")

    # --- evidence ----------------------------------------------------------------------------------------------------

    def _read(self, one: _Watched, now: float) -> None:
        """Take in what the policy and its keys have counted since the last look, and measure a few calls more."""
        if one.status.is_lost and not self._refuses(one):
            one.status.back(now)
        successes = failures = 0
        for number, member in enumerate(_members(one.policy)):
            well, badly = member.machines.answered()
            well_before, badly_before = one.totals.get(member.key, (0, 0))
            if well < well_before or badly < badly_before:  # the key was forgotten, and made anew
                well_before = badly_before = 0
            one.totals[member.key] = (well, badly)
            successes += well - well_before
            failures += badly - badly_before
            if number < _KEYS_SAMPLED:
                member.machines.sample(SAMPLES, one.seconds)
        if len(one.totals) > 2 * KEYS_MAX:
            one.totals = {member.key: one.totals[member.key] for member in _members(one.policy)}
        taken = one.seconds[:]
        del one.seconds[: len(taken)]
        if failures and (circuit := one.policy.machines.circuit) is not None:
            one.error = _class_in(circuit.last_error)
        one.status.note(successes, failures, taken, now)
        if one.status.wants_back and one.breaker == "open" and not one.has_hurried:
            one.has_hurried = True  # once an outage: a probe that asks less than calls do must not wear the breaker out
            one.policy.probe_now("its probe has passed")

    def _probe_if_due(self, one: _Watched, now: float) -> None:
        probe = one.policy.definition.probe
        if probe is None or now < one.probe_at or (one.probing is not None and not one.probing.done()):
            return
        one.probe_at = self._probe_at(now, one.status)
        if one.status.is_thin or one.status.is_in_doubt:
            one.probing = self._spawn(self._probe(one), "health.probe")

    def _probe_at(self, now: float, status: DependencyStatus) -> float:
        is_soon = status.is_in_doubt
        seconds = PROBE_SOON_SECONDS if is_soon else PROBE_SECONDS
        return now + spread_seconds(seconds, ratio=0.1, source=self._random)

    async def _probe(self, one: _Watched) -> None:
        probe = one.policy.definition.probe
        if probe is None:
            return
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                await probe()
        except Exception as error:  # whatever it raises is no answer
            one.error = type(error).__name__
            one.status.note(0, 1, (), self._clock.monotonic())
        else:
            one.status.note(1, 0, (), self._clock.monotonic())
        if one.status.is_in_doubt:
            one.probe_at = min(one.probe_at, self._probe_at(self._clock.monotonic(), one.status))

    # --- the breaker -------------------------------------------------------------------------------------------------

    def _hears(self, one: _Watched) -> Callable[[BreakerChanged], None]:
        def changed(change: BreakerChanged) -> None:
            loop = self._loop
            if change.observed or loop is None:
                return
            try:
                loop.call_soon_threadsafe(self._changed, one, change.new, change.reason)
            except RuntimeError:
                return  # the loop is closed, and the service with it

        return changed

    def _changed(self, one: _Watched, state: str, reason: str) -> None:
        one.breaker = state
        if state in ("open", "isolated"):
            self._opened(one, state, reason)
        else:
            one.has_hurried = one.has_hurried and state != "closed"
            one.status.back(self._clock.monotonic())
        self._tell(one.policy.name, one)

    def _opened(self, one: _Watched, state: str, reason: str) -> None:
        one.breaker = state
        one.status.lost(f"its breaker is {state}: {reason}", self._clock.monotonic())

    @staticmethod
    def _refuses(one: _Watched) -> bool:
        circuit, now = one.policy.machines.circuit, one.policy.clock.monotonic()
        return circuit is not None and one.breaker in ("open", "isolated") and circuit.holds(now)

    # --- what is shown -----------------------------------------------------------------------------------------------

    def _tell(self, name: str, one: _Watched) -> None:
        status = one.status.status
        if status is one.told:
            return
        seconds = self._clock.monotonic() - one.changed_at
        change = DependencyChanged(
            dependency=name, old=one.told.value, new=status.value, seconds=seconds, reason=one.status.reason or "none"
        )
        is_news = {status, one.told} & {Status.DEGRADED, Status.UNHEALTHY}
        one.told, one.since, one.changed_at = status, self._clock.now(), self._clock.monotonic()
        emit(change, level=WARNING if is_news else DEBUG)

    def _shown(self, name: str, one: _Watched) -> Dependency:
        status, percentiles = one.status.status, one.status.percentiles()
        is_away = status in (Status.DEGRADED, Status.UNHEALTHY)
        state = ConnectionState.CONNECTED
        if status is Status.UNHEALTHY:
            state = ConnectionState.CONNECTING if one.breaker == "half_open" else ConnectionState.DISCONNECTED
        return Dependency(
            key=name,
            need=Need(one.policy.definition.need or "optional"),
            status=status,
            state=state,
            url="",
            since=one.since,
            away_seconds=self._clock.monotonic() - one.changed_at if is_away else 0.0,
            error=one.error if is_away else None,
            reason=one.status.reason,
            error_ratio=one.status.error_ratio,
            p50_seconds=None if percentiles is None else percentiles[0],
            p95_seconds=None if percentiles is None else percentiles[1],
        )


def _class_in(error: str) -> str | None:
    """Return the class at the head of a one-line error: its text may hold what must stay secret."""
    head = error.partition(":")[0]
    return head if head.replace(".", "").isidentifier() else None


def _members(policy: Policy) -> Iterator[Policy]:
    """Yield a policy and those of its keys that are kept."""
    yield policy
    yield from policy.definition.children().values()
