"""A breaker: its states, and what operators, health checks, other processes and snapshots do to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from spoolproof.clock import Clock
from spoolproof.errors import PolicyConfigError
from spoolproof.policies.machines.isolation import (
    CLOSED,
    HALF_OPEN,
    ISOLATED,
    OPEN,
    Isolation,
    isolation_faults,
    read_snapshot,
    tell_ignored,
)
from spoolproof.policies.machines.line import Bell
from spoolproof.policies.machines.states import States
from spoolproof.policies.machines.transitions import Watcher

_LOOK_SECONDS = 1.0  #: a mode changed by a reload is no transition, of which one would be told


class Circuit(States):
    """The breaker of one policy and key."""

    __slots__ = ()

    @contextmanager
    def _step(self, now: float) -> Iterator[float]:
        with self.lock:
            yield self._catch_up(now)
        self._changes.tell()

    def isolate(self, reason: str, ttl_seconds: float | None, now: float) -> Isolation:
        """Reject everything until the returned handle is released or its time is over. Raises PolicyConfigError."""
        seconds = self._settings.isolate_seconds if ttl_seconds is None else ttl_seconds
        if faults := isolation_faults(reason, seconds):
            raise PolicyConfigError(faults, policy=self._name)
        with self._step(now) as now:
            return self._isolate(Isolation(self.release, reason, now + seconds))

    def isolate_alike(self, id_: str, reason: str, seconds: float, now: float) -> None:
        """Isolate because another process does; once for each id, also if it was released here."""
        with self._step(now) as now:
            if self.isolations.find(id_, now) is None:
                self._isolate(Isolation(self.release, reason, now + seconds, id_))

    def _isolate(self, isolation: Isolation) -> Isolation:
        self.isolations.add(isolation)
        self._change(ISOLATED, isolation.reason)
        return isolation

    def release_alike(self, id_: str, now: float) -> None:
        """End an isolation because another process has ended it."""
        with self.lock:
            isolation = self.isolations.find(id_, self._catch_up(now))
        if isolation is not None:
            self.release(isolation, now)

    def release(self, isolation: Isolation, now: float) -> None:
        """End one isolation; the last one leads to a probe before full traffic."""
        with self._step(now) as now:
            self.isolations.release(isolation, now)
            self._catch_up(now)

    def reset(self, reason: str, now: float, *, keeps_isolations: bool = False) -> None:
        """Close, and forget window, round and isolations; or stay isolated."""
        with self._step(now) as now:
            if not keeps_isolations:
                self.isolations.release_all(now)
            self.round = 0
            if not self.isolations.active:
                self._ramp = None
                self._closed_at = now
                self._last_error = ""
                self._change(CLOSED, reason)

    def probe_now(self, reason: str, now: float) -> None:
        """Let an open breaker probe at once; does nothing in any other state."""
        with self._step(now):
            if self._state == OPEN:
                self._change(HALF_OPEN, reason)

    def isolations_known(self, now: float) -> tuple[Isolation, ...]:
        """Return those that are active, and those released before a time that is still to come."""
        with self.lock:
            return self.isolations.known(max(now, self._now))

    def watch(self, callback: Watcher) -> Callable[[], None]:
        """Call `callback` at each transition, after the lock is released; returns the unwatch."""
        return self._changes.watch(callback)

    async def wait_admission(self, clock: Clock, timeout_seconds: float) -> bool:
        """Return True as soon as a call would be admitted, False after `timeout_seconds`."""
        bell = Bell()
        ends_at = clock.monotonic() + timeout_seconds
        unwatch = self.watch(bell.ring_from_afar)
        try:
            while not self.would_admit(now := clock.monotonic()):
                if now >= ends_at:
                    return False
                await bell.wait(clock, min(ends_at, now + min(self.retry_after(now), _LOOK_SECONDS)))
            return True
        finally:
            unwatch()

    # --- keep --------------------------------------------------------------------------------------------------------

    def snapshot(self, now: float, wall: float) -> dict[str, Any]:
        """Return state, round, and times as wall-clock seconds; no counts."""
        self.state(now)
        with self.lock:
            return {
                "state": self._state,
                "round": self.round,
                "open_until": wall + self._open_until - self._now if self._state == OPEN else None,
                "isolations": [
                    {"id": one.id, "reason": one.reason, "until": wall + one.until - self._now}
                    for one in self.isolations.active
                ],
            }

    def restore(self, data: Mapping[str, Any], now: float, wall: float) -> bool:
        """Take over a snapshot; one that is old, of another version or damaged is ignored, with an event: False."""
        try:
            kept = read_snapshot(data, wall)
        except (KeyError, TypeError, ValueError) as error:
            tell_ignored(self._name, self._key, error)
            return False
        if kept.state == CLOSED:
            return True
        with self._step(now) as now:
            self.round = kept.round
            self.isolations.active = tuple(
                Isolation(self.release, reason, now + left, id_) for reason, left, id_ in kept.isolations
            )
            self._open_until = now + min(kept.open_seconds, self._settings.open_seconds_max)
            self._change(ISOLATED if self.isolations.active else OPEN, "restored")
        return True
