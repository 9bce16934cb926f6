"""The breaker's state machine.

::

    closed ──rule holds──▶ open ──open_until, or a health check──▶ half_open ──probe_successes──▶ closed (ramping)
                            ▲                                        │
                            └───── a probe fails or its lease ends ──┘   (each time open for longer)
    any ──isolate──▶ isolated ──last isolation ends──▶ half_open          any ──reset──▶ closed

Each transition increments the epoch, and a verdict that carries an older one changes nothing but lifetime totals: a
call that began before an outage says nothing of what is now. A probe is reserved in the same locked step that admits
it, and holds a lease, so that one that hangs cannot block the breaker. No timer is needed: states are caught up with at
every `enter`, `leave` and read. Transitions are collected under the lock and told after it is released.

A closed breaker admits by reading one attribute (`plain_epoch`: the epoch, or 0 when there is more to look at) and
locks once, to record. An open one refuses by reading another (`rejects_until`)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from spoolproof.backoff import RandomSource
from spoolproof.errors import BreakerOpen, PolicyConfigError
from spoolproof.policies import events
from spoolproof.policies.call import Call
from spoolproof.policies.judging.verdict import SUCCESS, Kind, Verdict
from spoolproof.policies.machines.admission import Permit, Ramp, open_seconds
from spoolproof.policies.machines.counts import NONE, one_more
from spoolproof.policies.machines.isolation import (
    CLOSED,
    HALF_OPEN,
    ISOLATED,
    OPEN,
    Isolation,
    Isolations,
    isolation_faults,
    read_snapshot,
    tell_ignored,
)
from spoolproof.policies.machines.transitions import Transitions, Watcher
from spoolproof.policies.machines.window import Tally
from spoolproof.policies.parts.breaker import Shape

_FAILURES = frozenset({Kind.TRANSIENT, Kind.OVERLOADED, Kind.TIMEOUT})
_SUCCESSES = frozenset({None, Kind.PERMANENT})  # a dependency that refuses has answered
_UNCOUNTED = -1  #: the permit of a call whose verdict belongs to no epoch
_REJECTED_SECONDS = 0.1  #: when to ask again while probes run or the share grows


class Circuit:
    """Breaker of one policy and key. Thread-safe; time is passed in, in monotonic seconds."""

    __slots__ = (
        "_changes", "_closed_at", "_key", "_last_error", "_mode", "_name",
        "_now", "_open_until", "_probes", "_ramp", "_random", "_reason", "_running",
        "_settings", "_slow_seconds", "_state", "_successes", "epoch",
        "failures_total", "isolations", "lock", "plain_epoch", "rejects_until", "round", "successes_total", "tally",
        "transitions",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        key: str | None,
        *,
        rule: Shape,
        mode: str,
        random: RandomSource,
        settings: Mapping[str, Any],
    ) -> None:
        """rule: the shape of the rule. settings: those of Breaker, resolved; kept, and never changed."""
        self._name = name
        self._key = key
        self._mode = mode
        self._random = random
        self.lock = threading.RLock()
        self._now = 0.0
        self._state = CLOSED
        self._reason = ""
        self._last_error = ""
        self._closed_at = 0.0
        self._open_until = 0.0
        self._ramp: Ramp | None = None
        self._successes = 0
        self._probes: dict[Permit, None] = {}
        self._running: dict[Permit, None] = {}
        self.isolations = Isolations()
        self._changes = Transitions(self.lock)
        self.tally = Tally()
        self.epoch = 1
        self.round = 0
        self.successes_total = 0
        self.failures_total = 0
        self.transitions: Mapping[str, int] = NONE
        self._apply(rule, mode, settings)

    def configure(self, *, rule: Shape, mode: str, settings: Mapping[str, Any]) -> None:
        """Change rule, thresholds and mode; state, epoch, round, timers and isolations stay."""
        with self.lock:
            self._apply(rule, mode, settings)

    def _apply(self, rule: Shape, mode: str, settings: Mapping[str, Any]) -> None:
        if self._mode == "off" and mode != "off":
            self.tally.clear()  # while off, only some of what ended was counted
        self._mode = mode
        self._settings: Mapping[str, Any] = settings
        self.tally.configure(rule, settings, self._now)
        self._slow_seconds = self.tally.slow_seconds
        if self._slow_seconds is None or mode == "off":
            self._running.clear()
        self._set_fast()

    # --- a guard of the pipeline -------------------------------------------------------------------------------------

    needs_time = True

    def enter(self, call: Call, now: float) -> object:
        """Admit a call. Raises BreakerOpen."""
        if epoch := self.plain_epoch:
            return epoch
        if now < (until := self.rejects_until):
            raise self.rejection(now, until) from None
        return self._enter(now, call)

    def rejection(self, now: float, until: float) -> BreakerOpen:
        """Return the refusal of a call before `until`, which `rejects_until` said."""
        return BreakerOpen(self._name, self._state, self._reason, until - now, self._last_error)

    def _enter(self, now: float, call: Call | None) -> object:
        with self.lock:
            permit = self._admit(now, call)
        if self._changes.untold:
            self._changes.tell()
        if isinstance(permit, BreakerOpen):
            raise permit from None
        return permit

    async def wait(self, call: Call) -> object:
        """Never needed: a breaker admits or rejects."""
        return self._enter(call.now, call)

    def leave(self, permit: object, call: Call, verdict: Verdict, now: float) -> None:
        """Learn how an admitted call ended."""
        if verdict is SUCCESS and permit == self.plain_epoch:  # the common case, and the one that has to be cheap
            with self.lock:
                if permit == self.plain_epoch:
                    self.successes_total += 1
                    self.tally.add_success(now)
                    return
        kind = verdict.kind
        if kind in _FAILURES:
            self.conclude(permit, True, now, verdict.reason, verdict.retry_after_seconds)
        elif kind in _SUCCESSES:
            self.conclude(permit, False, now)
        else:
            self.conclude(permit, None, now)

    def conclude(
        self,
        permit: object,
        is_failure: bool | None,
        now: float,
        error_text: str = "",
        retry_after_seconds: float | None = None,
    ) -> None:
        """End an admitted call: True a failure, False a success, None says nothing."""
        with self.lock:
            now = self._catch_up(now)
            if is_failure:
                self.failures_total += 1
            elif is_failure is not None:
                self.successes_total += 1
            is_failure = None if self._mode == "off" else is_failure
            if isinstance(permit, Permit):
                self._running.pop(permit, None)
                is_probe = self._probes.pop(permit, _MISSING) is None
                if is_probe and permit.epoch == self.epoch:
                    self._end_probe(is_failure, now, error_text, retry_after_seconds)
                elif permit.epoch == self.epoch and self._state == CLOSED:
                    self._record(is_failure, now, error_text, retry_after_seconds, permit)
            elif permit == self.epoch and self._state == CLOSED:
                self._record(is_failure, now, error_text, retry_after_seconds, None)
        if self._changes.untold:
            self._changes.tell()

    # --- admit, record -----------------------------------------------------------------------------------------------

    def _admit(self, now: float, call: Call | None) -> object:
        now = self._catch_up(now)
        call = call if call is not None and call.attempts else None  # else all attempts together are judged
        if self._mode == "off":
            return _UNCOUNTED
        if self._state == CLOSED:
            if self._ramp is not None and not self._ramp.admits(now) and self._mode == "enforce":
                return self._rejection(now, "ramping up after an outage")
            if self._slow_seconds is None:
                return self.epoch
            permit = Permit(self.epoch, now, is_probe=False, lease_until=0.0, call=call)
            self._running[permit] = None
            return permit
        if self._state == HALF_OPEN and len(self._probes) < self._settings["probes_max"]:
            lease_until = now + self._settings["probe_lease_seconds"]
            permit = Permit(self.epoch, now, is_probe=True, lease_until=lease_until, call=call)
            self._probes[permit] = None
            if self._slow_seconds is not None:
                self._running[permit] = None
            return permit
        if self._mode == "observe":
            return _UNCOUNTED
        # of several isolations another may be over by now
        return self._rejection(now, self.isolations.active[-1].reason if self._state == ISOLATED else self._reason)

    def _rejection(self, now: float, reason: str) -> BreakerOpen:
        return BreakerOpen(
            policy=self._name,
            state=self._state,
            reason=reason,
            retry_after_seconds=self.retry_after(now),
            last_error_text=self._last_error,
        )

    def _record(
        self, is_failure: bool | None, now: float, error_text: str, asked: float | None, permit: Permit | None
    ) -> None:
        if is_failure is None:
            return
        if permit is not None and not permit.is_slow:
            self.tally.add_speed(False, now)
        self.tally.add(is_failure, now)
        if not is_failure:
            return
        self._last_error = error_text
        if self.tally.is_too_much(now):
            self._open(now, f"too many failures: {error_text}" if error_text else "too many failures", asked)

    def _end_probe(self, is_failure: bool | None, now: float, error_text: str, asked: float | None) -> None:
        if is_failure is None:
            return
        if is_failure:
            self._last_error = error_text
            self._reopen(now, f"a probe failed: {error_text}" if error_text else "a probe failed", asked)
            return
        self._successes += 1
        if self._successes >= self._settings["probe_successes"]:
            self._close(now, "probes succeeded")

    # --- time --------------------------------------------------------------------------------------------------------

    def _catch_up(self, now: float) -> float:
        """Do what time alone brings about; return the time, which never goes back."""
        if now < self._now:
            now = self._now
        self._now = now
        if self._running:
            self._find_slow(now)
        if self._state == ISOLATED:
            if self.isolations.expire(now):
                self._change(HALF_OPEN, "the last isolation ended")
        elif self._state == HALF_OPEN:
            if ended := [probe.lease_until for probe in list(self._probes) if probe.lease_until <= now]:
                self._last_error = "a probe hung"
                self._reopen(min(ended), "a probe gave no answer within its lease", None)
        elif self._ramp is not None and self._ramp.share(now) >= 1.0:
            self._ramp = None
            self._set_fast()
        if self._state == OPEN and now >= self._open_until:
            self._change(HALF_OPEN, "time to probe")  # at once where a hung probe is noticed long after its time
        return now

    def _find_slow(self, now: float) -> None:
        """Count the calls that have become slow, wherever they are; they stand in the order of their admission."""
        seconds = self._slow_seconds or 0.0
        for permit in list(self._running):
            if now - permit.admitted < seconds:
                break
            if not permit.has_run(seconds, now) or self._running.pop(permit, _MISSING) is _MISSING:
                continue  # it had to wait first, or the collector has ended it meanwhile, on this thread
            permit.is_slow = True
            if permit.epoch != self.epoch:
                continue
            if permit.is_probe:
                self._last_error = "a probe was slow"
                self._reopen(permit.started_at + seconds, f"a probe took longer than {seconds:g} s", None)
            else:
                self.tally.add_speed(True, now)
                if self.tally.is_too_much(now):
                    self._last_error = f"calls took longer than {seconds:g} s"
                    self._open(now, "too many slow calls", None)

    # --- transitions -------------------------------------------------------------------------------------------------

    def _open(self, now: float, reason: str, asked: float | None) -> None:
        if now - self._closed_at >= self._settings["open_seconds_max"]:
            self.round = 0
        self._set_open(now, asked)
        self._change(OPEN, reason)

    def _reopen(self, now: float, reason: str, asked: float | None) -> None:
        self.round += 1
        self._set_open(now, asked)
        self._change(OPEN, reason)

    def _set_open(self, now: float, asked: float | None) -> None:
        self._open_until = now + open_seconds(self._settings, self.round, asked, self._random)

    def _close(self, now: float, reason: str) -> None:
        self._closed_at = now
        if self._settings["ramp_seconds"] > 0:
            self._ramp = Ramp(now, self._settings["ramp_seconds"])
        self._change(CLOSED, reason)

    def _change(self, state: str, reason: str) -> None:
        counts = {**self.tally.counts(self._now), "round": self.round}
        old, self._state = self._state, state
        self._reason = reason
        self.transitions = one_more(self.transitions, state)
        self.epoch += 1
        self._probes.clear()
        self._successes = 0
        self.tally.clear()
        if state != CLOSED:
            self._ramp = None
        self._set_fast()
        self._changes.untold.append(
            events.BreakerChanged(
                policy=self._name,
                key=self._key,
                old=old,
                new=state,
                reason=reason,
                counts=counts,
                observed=self._mode == "observe",
            )
        )

    def _set_fast(self) -> None:
        self.rejects_until = self._open_until if self._state == OPEN and self._mode == "enforce" else 0.0
        is_plain = self._state == CLOSED and self._slow_seconds is None and self._ramp is None
        self.plain_epoch = _UNCOUNTED if self._mode == "off" else self.epoch if is_plain else 0

    # --- operators and health checks ---------------------------------------------------------------------------------

    def isolate(self, reason: str, ttl_seconds: float | None, now: float) -> Isolation:
        """Reject everything until the returned handle is released or its time is over. Raises PolicyConfigError."""
        seconds = self._settings["isolate_seconds"] if ttl_seconds is None else ttl_seconds
        if faults := isolation_faults(reason, seconds):
            raise PolicyConfigError(faults, policy=self._name)
        with self.lock:
            now = self._catch_up(now)
            isolation = Isolation(self.release, reason, now + seconds)
            self.isolations.add(isolation)
            self._change(ISOLATED, reason)
        self._changes.tell()
        return isolation

    def isolate_alike(self, id_: str, reason: str, seconds: float, now: float) -> None:
        """Isolate because another process does; once for each id, also if it was released here."""
        with self.lock:
            now = self._catch_up(now)
            if self.isolations.find(id_, now) is None:
                self.isolations.add(Isolation(self.release, reason, now + seconds, id_))
                self._change(ISOLATED, reason)
        self._changes.tell()

    def release_alike(self, id_: str, now: float) -> None:
        """End an isolation because another process has ended it."""
        with self.lock:
            isolation = self.isolations.find(id_, self._catch_up(now))
        if isolation is not None:
            isolation.release(now)

    def release(self, isolation: Isolation, now: float) -> None:
        """End one isolation; the last one leads to a probe before full traffic."""
        with self.lock:
            now = self._catch_up(now)
            self.isolations.release(isolation, now)
            self._catch_up(now)
        self._changes.tell()

    def reset(self, reason: str, now: float, *, keeps_isolations: bool = False) -> None:
        """Close, and forget window, round and isolations; or stay isolated."""
        with self.lock:
            now = self._catch_up(now)
            if not keeps_isolations:
                self.isolations.release_all(now)
            self.round = 0
            if not self.isolations.active:
                self._ramp = None
                self._closed_at = now
                self._last_error = ""
                self._change(CLOSED, reason)
        self._changes.tell()

    def probe_now(self, reason: str, now: float) -> None:
        """Let an open breaker probe at once; does nothing in any other state."""
        with self.lock:
            self._catch_up(now)
            if self._state == OPEN:
                self._change(HALF_OPEN, reason)
        self._changes.tell()

    def watch(self, callback: Watcher) -> Callable[[], None]:
        """Call `callback` at each transition, after the lock is released; returns the unwatch."""
        return self._changes.watch(callback)

    # --- read --------------------------------------------------------------------------------------------------------

    @property
    def is_moving(self) -> bool:
        """Whether it rejects calls at all."""
        return self._mode == "enforce"

    @property
    def is_off(self) -> bool:
        """Whether it learns nothing."""
        return self._mode == "off"

    def state(self, now: float) -> str:
        """Return the state as of now."""
        if self.plain_epoch > 0:
            return CLOSED
        with self.lock:
            self._catch_up(now)
            state = self._state
        if self._changes.untold:
            self._changes.tell()
        return state

    def isolations_known(self, now: float) -> tuple[Isolation, ...]:
        """Return those that are active, and those released before a time that is still to come."""
        with self.lock:
            return self.isolations.known(max(now, self._now))

    def admitted_share(self, now: float) -> float:
        """Return the share of calls admitted: 1 when closed, growing while it ramps, else 0."""
        with self.lock:
            if self._state != CLOSED:
                return 0.0
            return 1.0 if self._ramp is None else self._ramp.share(max(now, self._now))

    def holds(self, now: float) -> bool:
        """Whether it still rejects, or a probe runs. Looks only: no transition is brought about."""
        with self.lock:
            if self._state == ISOLATED:
                return self.isolations.until(now) > now
            return bool(self._probes) or (self._state == OPEN and self._open_until > now)

    def would_admit(self, now: float) -> bool:
        """Whether a call would be admitted now; reserves nothing."""
        if self.state(now) == HALF_OPEN:
            return len(self._probes) < self._settings["probes_max"] or not self.is_moving
        return self._state == CLOSED or not self.is_moving

    def retry_after(self, now: float) -> float:
        """Return in how many seconds a call may be admitted; always above 0."""
        with self.lock:
            now = max(now, self._now)
            until = self._open_until if self._state == OPEN else self.isolations.until(now)
            return max(until - now, 0.001) if self._state in (OPEN, ISOLATED) else _REJECTED_SECONDS

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
        with self.lock:
            now = self._catch_up(now)
            self.round = kept.round
            self.isolations.active = tuple(
                Isolation(self.release, reason, now + left, id_) for reason, left, id_ in kept.isolations
            )
            self._open_until = now + min(kept.open_seconds, self._settings["open_seconds_max"])
            self._change(ISOLATED if self.isolations.active else OPEN, "restored")
        self._changes.tell()
        return True


_MISSING = object()
