"""Takes in no more of a queue than the dependency its handlers need can serve.

A queue may be gated on policies (`@service.on(…, gate=psp)`). What their breakers say becomes an `Intake`, of several
policies the strictest:

    closed              everything
    closed and ramping  lanes and prefetch in proportion to the admitted share, at least 1
    half_open           as many lanes and deliveries as there may be probes; a message's own call is the probe
    open, isolated      nothing: the subscription ends, what no lane has started goes back uncounted

Only what moves a breaker moves the gate: a queue full of messages that fail for reasons of their own runs on, and so
does one whose policy only observes. An empty queue stays in half_open; nothing is sent to find out.

When probes fail the subscription stays, with the few deliveries it may hold, if the breaker opens again soon enough: to
give the same message back at every failed probe would wear out the broker's delivery limit in a long outage.

One loop per gated queue looks at every transition, when an open breaker is due, and while one ramps.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from spoolproof import limits
from spoolproof.consumer.events import PolicyGateInactive, PolicyGateMoved
from spoolproof.lifecycle.loop import Loop, Phase
from spoolproof.telemetry.events import emit

_LOOK_SECONDS = 5.0  #: a mode changed by a reload is no transition
_RAMP_SECONDS = 0.25  #: how often a growing share is looked at
_LATE_SECONDS = 0.005  #: a timer may be early by the resolution of its clock


class GatingPolicy(Protocol):
    """What a gate asks of a policy; `spoolproof.policies.Policy` is one. Read on the event loop."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def state(self) -> str:
        """closed, open, half_open or isolated."""

    @property
    def admitted_share(self) -> float:
        """0 to 1; below 1 in closed while it ramps."""

    @property
    def open_until_seconds(self) -> float:
        """Until an open breaker probes; 0 when it is not open."""

    @property
    def probes_max(self) -> int:
        """How many probes at a time."""

    @property
    def gates(self) -> bool:
        """Whether its breaker rejects calls at all."""

    def watch(self, callback: Callable[[object], None]) -> Callable[[], None]:
        """Call back at each transition, on any thread; returns the unwatch."""

    def gating(self) -> None:
        """Prepare for driving an intake."""


@dataclass(frozen=True, slots=True)
class Intake:
    """How much a worker may take in. prefetch: unsettled deliveries, 0 = none. holds: with prefetch 0, how many a
    subscription may hold unsettled without being ended."""

    lanes: int
    prefetch: int
    holds: int = 0


def intake_of(
    policies: Sequence[GatingPolicy],
    *,
    concurrency: int,
    prefetch: int,
    hold_seconds: float = limits.GATE_HOLD_SECONDS_MAX,
) -> Intake:
    """Return the strictest of what the policies allow. hold_seconds: how long a delivery may be held for a probe."""
    lanes, taken, holds = concurrency, prefetch, prefetch
    for policy in policies:
        if not policy.gates:
            continue
        match policy.state:
            case "closed":
                share = policy.admitted_share
                lanes = min(lanes, max(1, math.floor(share * concurrency)))
                taken = min(taken, max(1, math.floor(share * prefetch)))
            case "half_open":
                lanes = min(lanes, policy.probes_max)
                taken = min(taken, policy.probes_max)
            case _:
                lanes = taken = 0
                is_soon = policy.state == "open" and policy.open_until_seconds <= hold_seconds
                holds = min(holds, policy.probes_max if is_soon else 0)
    return Intake(lanes, taken, holds if taken == 0 else 0)


def state_of(policies: Sequence[GatingPolicy]) -> str:
    """Return the strictest state there is among policies that hold messages back: closed, half_open or open."""
    states = {policy.state for policy in policies if policy.gates}
    if states & {"open", "isolated"}:
        return "open"
    return "half_open" if "half_open" in states else "closed"


def label_of(policy: GatingPolicy) -> str:
    """Return its name and, for a keyed child, its key."""
    key = getattr(policy, "key", None)
    return policy.name if key is None else f"{policy.name}[{key}]"


def rest_of(policies: Sequence[GatingPolicy]) -> float:
    """Return in how many seconds to look again if nothing changes before."""
    rest = _LOOK_SECONDS
    for policy in policies:
        if not policy.gates:
            continue
        state = policy.state
        if state == "open":
            rest = min(rest, policy.open_until_seconds + _LATE_SECONDS)
        elif state == "closed" and policy.admitted_share < 1.0:
            rest = min(rest, _RAMP_SECONDS)
    return rest


class Gated(Protocol):
    """The worker behind a gate."""

    def limit_lanes(self, intake: Intake) -> None:
        """Let no more lanes than this begin from now on."""

    async def take_in(self, intake: Intake) -> None:
        """Take in this much from now on."""


class PolicyGate(Loop):
    """The loop that tells one worker how much to take in."""

    phase = Phase.TAKE_IN

    def __init__(
        self,
        queue: str,
        policies: Sequence[GatingPolicy],
        worker: Gated,
        *,
        concurrency: int,
        prefetch: int,
        hold_seconds: Callable[[], float] = lambda: limits.GATE_HOLD_SECONDS_MAX,
    ) -> None:
        """hold_seconds: tells how long a delivery may be held for a probe."""
        self.name = f"consumer.{queue}.gate"
        self._queue = queue
        self._policies = tuple(policies)
        self._worker = worker
        self._hold_seconds = hold_seconds
        self._concurrency = concurrency
        self._prefetch = prefetch
        self._unwatch: list[Callable[[], None]] = []
        self._stirred = asyncio.Event()
        self._intake = Intake(concurrency, prefetch)  # a start that holds nothing back is no news

    async def start(self) -> None:
        """Watch the policies and let in what they allow now."""
        loop = asyncio.get_running_loop()
        thread = threading.get_ident()

        def stir(_change: object) -> None:
            if threading.get_ident() == thread:
                self._stir()
                return
            try:
                loop.call_soon_threadsafe(self._stir)
            except RuntimeError:
                return  # the loop is closed, and the service with it

        for policy in self._policies:
            self._unwatch.append(policy.watch(stir))
            if not policy.gates:
                emit(PolicyGateInactive(queue=self._queue, policy=label_of(policy)))
        try:
            await self._look()
        except BaseException:
            await self.stop()  # whoever starts loops does not stop one that never began
            raise

    async def run_once(self) -> int:
        """Wait for a transition, or until one is due, and act on it."""
        try:
            async with asyncio.timeout(rest_of(self._policies)):
                await self._stirred.wait()
        except TimeoutError:
            pass
        self._stirred.clear()
        before = self._intake
        await self._look()
        return int(self._intake != before)

    async def stop(self) -> None:
        """Watch no more. Idempotent."""
        for unwatch in self._unwatch:
            unwatch()
        self._unwatch.clear()

    def _stir(self) -> None:
        """Hold the lanes at once: handlers that never wait would run all that is here before the loop turns."""
        self._worker.limit_lanes(self._allowed())
        self._stirred.set()

    def _allowed(self) -> Intake:
        return intake_of(
            self._policies,
            concurrency=self._concurrency,
            prefetch=self._prefetch,
            hold_seconds=self._hold_seconds(),
        )

    async def _look(self) -> None:
        intake = self._allowed()
        if intake != self._intake:
            before, self._intake = self._intake, intake
            if (before.prefetch == 0) != (intake.prefetch == 0) or intake.prefetch == self._prefetch:
                self._log(intake)
        await self._worker.take_in(intake)  # also if it is the same: a call that failed is made again

    @property
    def issue(self) -> str | None:
        """A sentence while nothing is taken in, else None."""
        if self._intake.prefetch > 0:
            return None
        return (
            f"queue {self._queue}: nothing is taken in ({self._states()}); its messages wait in the broker, uncounted"
        )

    def _states(self) -> str:
        return ", ".join(f"{label_of(policy)} {policy.state}" for policy in self._policies)

    def _log(self, intake: Intake) -> None:
        emit(PolicyGateMoved(queue=self._queue, lanes=intake.lanes, prefetch=intake.prefetch, policies=self._states()))
