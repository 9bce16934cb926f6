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
from collections.abc import Mapping

from spoolproof.backoff import RandomSource
from spoolproof.errors import BreakerOpen
from spoolproof.policies import events
from spoolproof.policies.call import Call
from spoolproof.policies.judging.verdict import SUCCESS, Kind, Verdict
from spoolproof.policies.machines.admission import Permit, Ramp, open_seconds
from spoolproof.policies.machines.isolation import CLOSED, HALF_OPEN, ISOLATED, OPEN, Isolations
from spoolproof.policies.machines.memory import NONE, one_more
from spoolproof.policies.machines.transitions import Transitions
from spoolproof.policies.machines.window import Tally
from spoolproof.policies.parts.breaker import Shape
from spoolproof.policies.parts.ranges import Settings

_FAILURES = frozenset({Kind.TRANSIENT, Kind.OVERLOADED, Kind.TIMEOUT})
_SUCCESSES = frozenset({None, Kind.PERMANENT})  # a dependency that refuses has answered
_UNCOUNTED = -1  #: the permit of a call whose verdict belongs to no epoch
_REJECTED_SECONDS = 0.1  #: when to ask again while probes run or the share grows


class States:
    """Those of one breaker. Thread-safe; time is passed in, in monotonic seconds."""

    __slots__ = (
        "_changes", "_closed_at", "_key", "_last_error", "_mode", "_name",
        "_now", "_open_until", "_probes", "_ramp", "_random", "_reason", "_running",
        "_settings", "_slow_seconds", "_state", "_successes", "epoch",
        "failures_total", "isolations", "lock", "plain_epoch", "rejects_until", "round", "successes_total", "tally",
        "transitions",
    )  # fmt: skip

    def __init__(self, name: str, key: str | None, *, rule: Shape, random: RandomSource, settings: Settings) -> None:
        """rule: the shape of the rule."""
        self._name = name
        self._key = key
        self._mode = settings.mode
        self._random = random
        self.lock = threading.RLock()
        self._state = CLOSED
        self._reason = self._last_error = ""
        self._now = self._closed_at = self._open_until = 0.0
        self._ramp: Ramp | None = None
        self._successes = 0
        self._probes: dict[Permit, None] = {}
        self._running: dict[Permit, None] = {}
        self.isolations = Isolations()
        self._changes = Transitions(self.lock)
        self.tally = Tally()
        self.epoch = 1
        self.round = self.successes_total = self.failures_total = 0
        self.transitions: Mapping[str, int] = NONE
        self._apply(rule, settings)

    def configure(self, *, rule: Shape, settings: Settings) -> None:
        """Change rule, thresholds and mode; state, epoch, round, timers and isolations stay."""
        with self.lock:
            self._apply(rule, settings)

    def _apply(self, rule: Shape, settings: Settings) -> None:
        mode = settings.mode
        if self._mode == "off" and mode != "off":
            self.tally.clear()  # while off, only some of what ended was counted
        self._mode = mode
        self._settings = settings
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
            raise self.rejection(until - now) from None
        return self._enter(now, call)

    def rejection(self, seconds: float, reason: str | None = None) -> BreakerOpen:
        """Return the refusal of a call that may come again in so many seconds."""
        reason = self._reason if reason is None else reason
        return BreakerOpen(self._name, self._state, reason, seconds, self._last_error)

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
                return self.rejection(self.retry_after(now), "ramping up after an outage")
            if self._slow_seconds is None:
                return self.epoch
            permit = Permit(self.epoch, now, is_probe=False, lease_until=0.0, call=call)
            self._running[permit] = None
            return permit
        if self._state == HALF_OPEN and len(self._probes) < self._settings.probes_max:
            lease_until = now + self._settings.probe_lease_seconds
            permit = Permit(self.epoch, now, is_probe=True, lease_until=lease_until, call=call)
            self._probes[permit] = None
            if self._slow_seconds is not None:
                self._running[permit] = None
            return permit
        if self._mode == "observe":
            return _UNCOUNTED
        # of several isolations another may be over by now
        reason = self.isolations.active[-1].reason if self._state == ISOLATED else self._reason
        return self.rejection(self.retry_after(now), reason)

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
            reason = f"too many failures: {error_text}" if error_text else "too many failures"
            self._open(now, reason, error_text, asked)

    def _end_probe(self, is_failure: bool | None, now: float, error_text: str, asked: float | None) -> None:
        if is_failure is None:
            return
        if is_failure:
            self._reopen(now, f"a probe failed: {error_text}" if error_text else "a probe failed", error_text, asked)
            return
        self._successes += 1
        if self._successes >= self._settings.probe_successes:
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
                self._reopen(min(ended), "a probe gave no answer within its lease", "a probe hung")
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
                reason = f"a probe took longer than {seconds:g} s"
                self._reopen(permit.started_at + seconds, reason, "a probe was slow")
                continue
            self.tally.add_speed(True, now)
            if self.tally.is_too_much(now):
                self._open(now, "too many slow calls", f"calls took longer than {seconds:g} s")

    # --- transitions -------------------------------------------------------------------------------------------------

    def _open(self, now: float, reason: str, error_text: str, asked: float | None = None) -> None:
        if now - self._closed_at >= self._settings.open_seconds_max:
            self.round = 0
        self._stay_open(now, reason, error_text, asked)

    def _reopen(self, now: float, reason: str, error_text: str, asked: float | None = None) -> None:
        self.round += 1
        self._stay_open(now, reason, error_text, asked)

    def _stay_open(self, now: float, reason: str, error_text: str, asked: float | None) -> None:
        self._last_error = error_text
        self._open_until = now + open_seconds(self._settings, self.round, asked, self._random)
        self._change(OPEN, reason)

    def _close(self, now: float, reason: str) -> None:
        self._closed_at = now
        if self._settings.ramp_seconds > 0:
            self._ramp = Ramp(now, self._settings.ramp_seconds)
        self._change(CLOSED, reason)

    def _change(self, state: str, reason: str) -> None:
        self._changes.untold.append(
            events.BreakerChanged(
                self._name,
                self._key,
                old=self._state,
                new=state,
                reason=reason,
                counts={**self.tally.counts(self._now), "round": self.round},
                observed=self._mode == "observe",
            )
        )
        self._state, self._reason = state, reason
        self.transitions = one_more(self.transitions, state)
        self.epoch += 1
        self._probes.clear()
        self._successes = 0
        self.tally.clear()
        if state != CLOSED:
            self._ramp = None
        self._set_fast()

    def _set_fast(self) -> None:
        self.rejects_until = self._open_until if self._state == OPEN and self._mode == "enforce" else 0.0
        is_plain = self._state == CLOSED and self._slow_seconds is None and self._ramp is None
        self.plain_epoch = _UNCOUNTED if self._mode == "off" else self.epoch if is_plain else 0

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

    @property
    def last_error(self) -> str:
        """The text of the latest failure, empty before the first."""
        return self._last_error

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
            return len(self._probes) < self._settings.probes_max or not self.is_moving
        return self._state == CLOSED or not self.is_moving

    def retry_after(self, now: float) -> float:
        """Return in how many seconds a call may be admitted; always above 0."""
        with self.lock:
            now = max(now, self._now)
            until = self._open_until if self._state == OPEN else self.isolations.until(now)
            return max(until - now, 0.001) if self._state in (OPEN, ISOLATED) else _REJECTED_SECONDS


_MISSING = object()
