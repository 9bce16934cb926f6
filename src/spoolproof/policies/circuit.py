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
locks once, to record."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from spoolproof.backoff import RandomSource, spread_seconds
from spoolproof.errors import BreakerOpen, PolicyConfigError
from spoolproof.policies import events
from spoolproof.policies.breaker import Shape, leaves
from spoolproof.policies.call import Call
from spoolproof.policies.verdict import SUCCESS, Kind, Verdict
from spoolproof.policies.window import CountWindow, TimeWindow, Window

CLOSED, OPEN, HALF_OPEN, ISOLATED = "closed", "open", "half_open", "isolated"

_FAILURES = frozenset({Kind.TRANSIENT, Kind.OVERLOADED, Kind.TIMEOUT})
_SUCCESSES = frozenset({None, Kind.PERMANENT})  # a dependency that refuses has answered
_UNCOUNTED = -1  #: the permit of a call whose verdict belongs to no epoch
_SHARE_FIRST = 0.2
_REJECTED_SECONDS = 0.1  #: when to ask again while probes run or the share grows
_SNAPSHOT_SECONDS_MAX = 86_400.0
_SKEW_SECONDS = 60.0  #: how far ahead another machine's wall clock may have been
_REASON_MAX = 200
SNAPSHOT_VERSION = 1


class Permit:
    """One admitted call that is watched while it runs: a probe, or any call where slow ones count."""

    __slots__ = ("epoch", "is_probe", "is_slow", "lease_until", "started")

    def __init__(self, epoch: int, started: float, *, is_probe: bool, lease_until: float) -> None:
        self.epoch = epoch
        self.started = started
        self.is_probe = is_probe
        self.lease_until = lease_until
        self.is_slow = False


class Isolation:
    """An operator's "leave it alone"; ends when released or at its time."""

    __slots__ = ("_circuit", "reason", "until")

    def __init__(self, circuit: Circuit, reason: str, until: float) -> None:
        self._circuit = circuit
        self.reason = reason
        self.until = until

    def release(self, now: float) -> None:
        """End it. Idempotent."""
        self._circuit.release(self, now)


class Circuit:
    """Breaker of one policy and key. Thread-safe; time is passed in, in monotonic seconds."""

    __slots__ = (
        "_changes",
        "_closed_at",
        "_credit",
        "_failed_at",
        "_isolations",
        "_key",
        "_last_error",
        "_mode",
        "_name",
        "_now",
        "_open_until",
        "_probes",
        "_ramp_from",
        "_random",
        "_rate",
        "_reason",
        "_rejects_until",
        "_running",
        "_settings",
        "_shape",
        "_slow",
        "_slow_seconds",
        "_state",
        "_successes",
        "_watchers",
        "consecutive",
        "epoch",
        "failures_total",
        "lock",
        "plain_epoch",
        "plain_window",
        "round",
        "successes_total",
    )

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
        self._random = random
        self.lock = threading.Lock()
        self._now = 0.0
        self._state = CLOSED
        self._reason = ""
        self._last_error = ""
        self._closed_at = 0.0
        self._open_until = 0.0
        self._ramp_from: float | None = None
        self._credit = 0.0
        self._successes = 0
        self._probes: dict[Permit, None] = {}
        self._running: dict[Permit, None] = {}
        self._isolations: list[Isolation] = []
        self._changes: list[events.BreakerChanged] = []
        self._watchers: tuple[Callable[[events.BreakerChanged], None], ...] = ()
        self.consecutive = 0
        self._failed_at: deque[float] | None = None  # only where failures have to lie close together
        self._rate: Window | None = None
        self._slow: TimeWindow | None = None
        self.epoch = 1
        self.round = 0
        self.successes_total = 0
        self.failures_total = 0
        self._apply(rule, mode, settings)

    def configure(self, *, rule: Shape, mode: str, settings: Mapping[str, Any]) -> None:
        """Change rule, thresholds and mode; state, epoch, round, timers and isolations stay."""
        with self.lock:
            self._apply(rule, mode, settings)

    def _apply(self, rule: Shape, mode: str, settings: Mapping[str, Any]) -> None:
        kinds = leaves(rule)
        self._shape = rule
        self._mode = mode
        self._settings: Mapping[str, Any] = settings
        self._slow_seconds: float | None = settings["slow_seconds"] if "slow" in kinds else None
        self._rate = _resized_rate(self._rate, settings, self._now) if "rate" in kinds else None
        # where a success is counted if no more than that is needed; after its `ends` the long way is taken
        self.plain_window = self._rate if isinstance(self._rate, TimeWindow) else TimeWindow(1.0)
        if self._rate is not self.plain_window:
            self.plain_window.ends = float("inf") if self._rate is None else float("-inf")
        if "slow" in kinds:
            seconds = settings["slow_window_seconds"]
            self._slow = TimeWindow(seconds) if self._slow is None else self._slow.resized(seconds, self._now)
        else:
            self._slow = None
            self._running.clear()
        within = settings.get("within_seconds") if "consecutive" in kinds else None
        self._failed_at = deque(self._failed_at or (), maxlen=settings["consecutive"]) if within else None
        self._set_fast()

    # --- a guard of the pipeline -------------------------------------------------------------------------------------

    needs_time = True
    is_plain = True

    def enter(self, call: Call, now: float) -> object:
        """Admit a call. Raises BreakerOpen."""
        return self.plain_epoch or self.enter_slowly(now)

    def enter_slowly(self, now: float) -> object:
        """Admit a call of a breaker that is not plainly closed. Raises BreakerOpen."""
        if now < self._rejects_until:
            raise BreakerOpen(self._name, self._state, self._reason, self._open_until - now, self._last_error) from None
        return self._enter(now)

    def _enter(self, now: float) -> object:
        with self.lock:
            permit = self._admit(now)
            changes = self._take()
        if changes:
            self._announce(changes)
        if isinstance(permit, BreakerOpen):
            raise permit from None
        return permit

    async def wait(self, call: Call) -> object:
        """Never needed: a breaker admits or rejects."""
        return self._enter(call.now)

    def wait_blocking(self, call: Call) -> object:
        """Never needed: a breaker admits or rejects."""
        return self._enter(call.now)

    def succeed(self, permit: object, now: float) -> None:
        """Learn that an admitted call succeeded."""
        self.conclude(permit, False, now)

    def leave(self, permit: object, call: Call, verdict: Verdict, now: float) -> None:
        """Learn how an admitted call ended."""
        if verdict is SUCCESS and permit == self.plain_epoch:  # the common case, and the one that has to be cheap
            with self.lock:
                if permit == self.plain_epoch:
                    self.successes_total += 1
                    self.consecutive = 0
                    if self._rate is not None:
                        self._rate.add(False, now)
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
            if is_failure is not None:
                self._count_total(is_failure)
            if isinstance(permit, Permit):
                self._running.pop(permit, None)
                is_probe = self._probes.pop(permit, _MISSING) is None
                if is_probe and permit.epoch == self.epoch:
                    self._end_probe(permit, is_failure, now, error_text, retry_after_seconds)
                elif permit.epoch == self.epoch and self._state == CLOSED:
                    self._record(is_failure, now, error_text, retry_after_seconds, permit)
            elif permit == self.epoch and self._state == CLOSED:
                self._record(is_failure, now, error_text, retry_after_seconds, None)
            changes = self._take()
        if changes:
            self._announce(changes)

    # --- admit, record -----------------------------------------------------------------------------------------------

    def _admit(self, now: float) -> object:
        now = self._catch_up(now)
        if self._mode == "off":
            return _UNCOUNTED
        if self._state == CLOSED:
            if not self._is_in_share(now) and self._mode == "enforce":
                return self._rejection(now, "ramping up after an outage")
            if self._slow_seconds is None:
                return self.epoch
            permit = Permit(self.epoch, now, is_probe=False, lease_until=0.0)
            self._running[permit] = None
            return permit
        if self._state == HALF_OPEN and len(self._probes) < self._settings["probes_max"]:
            lease_until = now + self._settings["probe_lease_seconds"]
            permit = Permit(self.epoch, now, is_probe=True, lease_until=lease_until)
            self._probes[permit] = None
            if self._slow_seconds is not None:
                self._running[permit] = None
            return permit
        if self._mode == "observe":
            return _UNCOUNTED
        return self._rejection(now, self._reason)

    def _rejection(self, now: float, reason: str) -> BreakerOpen:
        return BreakerOpen(
            policy=self._name,
            state=self._state,
            reason=reason,
            retry_after_seconds=self._retry_after(now),
            last_error_text=self._last_error,
        )

    def _record(
        self, is_failure: bool | None, now: float, error_text: str, asked: float | None, permit: Permit | None
    ) -> None:
        if is_failure is None:
            return
        if self._slow is not None and permit is not None and not permit.is_slow:
            self._slow.add(False, now)
        if self._rate is not None:
            self._rate.add(is_failure, now)
        if not is_failure:
            self.consecutive = 0
            return
        self.consecutive += 1
        if self._failed_at is not None:
            self._failed_at.append(now)
        self._last_error = error_text
        if self._holds(self._shape, now):
            self._open(now, f"too many failures: {error_text}" if error_text else "too many failures", asked)

    def _end_probe(
        self, permit: Permit, is_failure: bool | None, now: float, error_text: str, asked: float | None
    ) -> None:
        if is_failure is None:
            return
        if is_failure:
            self._last_error = error_text
            self._reopen(now, f"a probe failed: {error_text}" if error_text else "a probe failed", asked)
            return
        self._successes += 1
        if self._successes >= self._settings["probe_successes"]:
            self._close(now, "probes succeeded")

    def _count_total(self, is_failure: bool) -> None:
        if is_failure:
            self.failures_total += 1
        else:
            self.successes_total += 1

    def _holds(self, shape: Shape, now: float) -> bool:
        if not isinstance(shape, str):
            found = (self._holds(part, now) for part in shape[1:])
            return any(found) if shape[0] == "any" else all(found)
        settings = self._settings
        if shape == "consecutive":
            most = settings["consecutive"]
            if self._failed_at is None or self.consecutive < most:
                return bool(self.consecutive >= most)
            return bool(now - self._failed_at[-most] <= settings["within_seconds"])
        window = self._rate if shape == "rate" else self._slow
        if window is None:
            return False
        window.expire(now)
        least = settings["calls_min"] if shape == "rate" else settings["slow_calls_min"]
        rate = settings["failure_rate"] if shape == "rate" else settings["slow_rate"]
        return bool(window.total >= least and window.failures >= rate * window.total)

    # --- time --------------------------------------------------------------------------------------------------------

    def _catch_up(self, now: float) -> float:
        """Do what time alone brings about; return the time, which never goes back."""
        if now < self._now:
            now = self._now
        self._now = now
        if self._running:
            self._find_slow(now)
        if self._state == ISOLATED:
            self._isolations = [one for one in self._isolations if one.until > now]
            if not self._isolations:
                self._change(HALF_OPEN, "the last isolation ended")
        elif self._state == OPEN:
            if now >= self._open_until:
                self._change(HALF_OPEN, "time to probe")
        elif self._state == HALF_OPEN:
            if any(probe.lease_until <= now for probe in self._probes):
                self._last_error = "a probe hung"
                self._reopen(now, "a probe gave no answer within its lease", None)
        elif self._ramp_from is not None and now >= self._ramp_from + self._settings["ramp_seconds"]:
            self._ramp_from = None
            self._set_fast()
        return now

    def _find_slow(self, now: float) -> None:
        """Count the calls that have become slow, wherever they are; they run in the order of their start."""
        seconds = self._slow_seconds or 0.0
        for permit in list(self._running):
            if now - permit.started < seconds:
                break
            del self._running[permit]
            permit.is_slow = True
            if permit.epoch != self.epoch:
                continue
            if permit.is_probe:
                self._last_error = "a probe was slow"
                self._reopen(now, f"a probe took longer than {seconds:g} s", None)
            elif self._slow is not None and self._state == CLOSED:
                self._slow.add(True, now)
                if self._holds(self._shape, now):
                    self._last_error = f"calls took longer than {seconds:g} s"
                    self._open(now, "too many slow calls", None)

    def _is_in_share(self, now: float) -> bool:
        if self._ramp_from is None:
            return True
        self._credit += self._share(now)
        if self._credit < 1.0:
            return False
        self._credit -= 1.0
        return True

    def _share(self, now: float) -> float:
        if self._state != CLOSED:
            return 0.0
        if self._ramp_from is None:
            return 1.0
        done: float = (now - self._ramp_from) / self._settings["ramp_seconds"]
        return min(1.0, _SHARE_FIRST + (1.0 - _SHARE_FIRST) * max(0.0, done))

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
        settings = self._settings
        most = settings["open_seconds_max"]
        exponent = min(self.round, 64)  # beyond any maximum, and still a finite power
        seconds = min(most, settings["open_seconds"] * settings["open_factor"] ** exponent)
        if settings["open_jitter"]:
            seconds = spread_seconds(seconds, ratio=settings["open_jitter"], source=self._random)
        if asked is not None:
            seconds = max(seconds, min(asked, most))
        self._open_until = now + min(seconds, most)

    def _close(self, now: float, reason: str) -> None:
        self._closed_at = now
        if self._settings["ramp_seconds"] > 0:
            self._ramp_from = now
            self._credit = 1.0 - _SHARE_FIRST  # the first call is admitted
        self._change(CLOSED, reason)

    def _change(self, state: str, reason: str) -> None:
        counts = self._counts()
        old, self._state = self._state, state
        self._reason = reason
        self.epoch += 1
        self._probes.clear()
        self._successes = 0
        self.consecutive = 0
        if self._failed_at is not None:
            self._failed_at.clear()
        for window in (self._rate, self._slow):
            if window is not None:
                window.clear()
        if state != CLOSED:
            self._ramp_from = None
        self._set_fast()
        self._changes.append(
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

    def _counts(self) -> dict[str, float]:
        counts: dict[str, float] = {"consecutive": self.consecutive, "round": self.round}
        for name, window in (("failures", self._rate), ("slow", self._slow)):
            if window is not None:
                counts[name] = window.failures
                counts[f"{name}_of"] = window.total
        return counts

    def _set_fast(self) -> None:
        self._rejects_until = self._open_until if self._state == OPEN and self._mode == "enforce" else 0.0
        is_plain = self._state == CLOSED and self._slow_seconds is None and self._ramp_from is None
        self.plain_epoch = _UNCOUNTED if self._mode == "off" else self.epoch if is_plain else 0

    def _take(self) -> list[events.BreakerChanged]:
        changes = self._changes
        if changes:
            self._changes = []
        return changes

    def _announce(self, changes: list[events.BreakerChanged]) -> None:
        for change in changes:
            for watcher in self._watchers:
                watcher(change)
            if events.listeners:
                events.emit(change)

    # --- operators and health checks ---------------------------------------------------------------------------------

    def isolate(self, reason: str, ttl_seconds: float | None, now: float) -> Isolation:
        """Reject everything until the returned handle is released or its time is over. Raises PolicyConfigError."""
        seconds = self._settings["isolate_seconds"] if ttl_seconds is None else ttl_seconds
        faults = []
        if not isinstance(reason, str) or not 1 <= len(reason.strip()) <= _REASON_MAX:
            faults.append(f"reason={reason!r}: 1 to {_REASON_MAX} characters that tell the next person why")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 1 <= seconds <= 86_400:
            faults.append(f"ttl_seconds={ttl_seconds!r}: a number from 1 to 86,400")
        if faults:
            raise PolicyConfigError(faults, policy=self._name)
        with self.lock:
            now = self._catch_up(now)
            isolation = Isolation(self, reason, now + seconds)
            self._isolations.append(isolation)
            self._change(ISOLATED, reason)
            changes = self._take()
        self._announce(changes)
        return isolation

    def release(self, isolation: Isolation, now: float) -> None:
        """End one isolation; the last one leads to a probe before full traffic."""
        with self.lock:
            isolation.until = now
            self._catch_up(now)
            changes = self._take()
        self._announce(changes)

    def reset(self, reason: str, now: float) -> None:
        """Close, and forget window, round and isolations."""
        with self.lock:
            now = self._catch_up(now)
            self._isolations.clear()
            self.round = 0
            self._ramp_from = None
            self._closed_at = now
            self._last_error = ""
            self._change(CLOSED, reason)
            changes = self._take()
        self._announce(changes)

    def probe_now(self, reason: str, now: float) -> None:
        """Let an open breaker probe at once; does nothing in any other state."""
        with self.lock:
            self._catch_up(now)
            if self._state == OPEN:
                self._change(HALF_OPEN, reason)
            changes = self._take()
        self._announce(changes)

    def watch(self, callback: Callable[[events.BreakerChanged], None]) -> Callable[[], None]:
        """Call `callback` at each transition, after the lock is released; returns the unwatch. It must not raise."""
        entry = lambda change: callback(change)  # noqa: E731  its own identity: one callback may watch twice
        with self.lock:
            self._watchers = (*self._watchers, entry)

        def unwatch() -> None:
            with self.lock:
                self._watchers = tuple(one for one in self._watchers if one is not entry)

        return unwatch

    # --- read --------------------------------------------------------------------------------------------------------

    @property
    def is_moving(self) -> bool:
        """Whether it rejects calls at all."""
        return self._mode == "enforce"

    def state(self, now: float) -> str:
        """Return the state as of now."""
        if self.plain_epoch > 0:
            return CLOSED
        with self.lock:
            self._catch_up(now)
            state = self._state
            changes = self._take()
        if changes:
            self._announce(changes)
        return state

    def admitted_share(self, now: float) -> float:
        """Return the share of calls admitted: 1 when closed, growing while it ramps, else 0."""
        with self.lock:
            return self._share(max(now, self._now))

    def would_admit(self, now: float) -> bool:
        """Whether a call would be admitted now; reserves nothing."""
        if self.state(now) == HALF_OPEN:
            return len(self._probes) < self._settings["probes_max"] or not self.is_moving
        return self._state == CLOSED or not self.is_moving

    def retry_after(self, now: float) -> float:
        """Return in how many seconds a call may be admitted; always above 0."""
        with self.lock:
            return self._retry_after(max(now, self._now))

    def _retry_after(self, now: float) -> float:
        if self._state == OPEN:
            return max(self._open_until - now, 0.001)
        if self._state == ISOLATED:
            return max(max((one.until for one in self._isolations), default=now) - now, 0.001)
        return _REJECTED_SECONDS

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
                    {"reason": one.reason, "until": wall + one.until - self._now} for one in self._isolations
                ],
            }

    def restore(self, data: Mapping[str, Any], now: float, wall: float) -> None:
        """Take over a snapshot; one that is old, of another version or damaged is ignored, with an event."""
        try:
            self._restore(data, now, wall)
        except (KeyError, TypeError, ValueError) as error:
            if events.listeners:
                reason = f"{type(error).__name__}: {error}"
                events.emit(events.RestoreIgnored(policy=self._name, key=self._key, reason=reason))

    def _restore(self, data: Mapping[str, Any], now: float, wall: float) -> None:
        if data["version"] != SNAPSHOT_VERSION:
            raise ValueError(f"version {data['version']!r}, this release reads {SNAPSHOT_VERSION}")
        age = wall - _number(data["saved_at"])
        if not -_SKEW_SECONDS <= age <= _SNAPSHOT_SECONDS_MAX:
            raise ValueError(f"saved {age:.0f} s ago")
        state, round_ = data["state"], data["round"]
        if state not in (CLOSED, OPEN, HALF_OPEN, ISOLATED):
            raise ValueError(f"state {state!r}")
        if isinstance(round_, bool) or not isinstance(round_, int) or round_ < 0:
            raise ValueError(f"round {round_!r}")
        left = 0.0
        if state == OPEN:
            left = min(max(_number(data["open_until"]) - wall, 0.0), self._settings["open_seconds_max"])
        isolations = [
            Isolation(self, str(one["reason"])[:_REASON_MAX], now + _number(one["until"]) - wall)
            for one in data["isolations"]
        ]
        if state == CLOSED:
            return
        with self.lock:
            now = self._catch_up(now)
            self.round = round_
            self._isolations = [one for one in isolations if one.until > now]
            self._open_until = now + left
            self._change(ISOLATED if self._isolations else OPEN, "restored")
            changes = self._take()
        self._announce(changes)


_MISSING = object()


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e12 < value < 1e12:
        raise ValueError(f"{value!r} is not a time")
    return float(value)


def _resized_rate(window: Window | None, settings: Mapping[str, Any], now: float) -> Window:
    calls = settings.get("window_calls")
    if calls is not None:
        return window.resized(calls) if isinstance(window, CountWindow) else CountWindow(calls)
    seconds = settings["window_seconds"]
    return window.resized(seconds, now) if isinstance(window, TimeWindow) else TimeWindow(seconds)
