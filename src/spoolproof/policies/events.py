"""What policies tell: frozen records for whoever subscribed, and one truth test for everybody else.

Listeners are called where the thing happened, after every lock is released, on whatever thread that was. They must be
quick and must not block. What one raises is swallowed, counted in `listener_errors()` and logged at most once a minute:
telemetry never breaks a call.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

from spoolproof.clock import SYSTEM
from spoolproof.policies.judging.verdict import Verdict

logger = logging.getLogger("spoolproof.policies")
_LOG_SECONDS = 60.0


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field,))
class _Record:
    def __init_subclass__(cls, *, kw_only: bool = True) -> None:
        dataclass(frozen=True, kw_only=kw_only)(cls)


class Event(_Record, kw_only=False):
    """policy: the name; key: of a keyed child, else None."""

    policy: str
    key: str | None = None


class CallEnded(Event):
    """A call is over. result: the verdict's kind, or `success`. source: live, stale or fallback."""

    result: str
    source: str
    attempts: int
    elapsed_seconds: float


class AttemptEnded(Event):
    """One run of the function is over, or was rejected before it began."""

    attempt: int
    verdict: Verdict
    elapsed_seconds: float


class AttemptTimedOut(Event):
    """An attempt ran into its own limit."""

    attempt: int
    timeout_seconds: float


class RetryScheduled(Event):
    """Another attempt will be made. attempt: its number."""

    attempt: int
    delay_seconds: float
    verdict: Verdict


class RetryStopped(Event):
    """No further attempt. reason: attempts, budget, deadline, retry_after, permanent, unknown, nested, draining,
    local."""

    reason: str
    attempts: int


class RetryNested(Event):
    """A retry inside a retry, or inside a redelivered message, makes one attempt only."""


class BreakerChanged(Event):
    """A breaker changed its state. old, new: closed, open, half_open, isolated. observed: nothing was rejected."""

    old: str
    new: str
    reason: str
    counts: Mapping[str, float] = field(default_factory=dict)
    observed: bool = False


class CallRejectedBy(Event):
    """An attempt was not made. by: breaker, bulkhead, rate_limit, cooldown, threads."""

    by: str
    reason: str


class HedgeLaunched(Event):
    """A second attempt runs beside a slow first one. delay_seconds: how long the first had."""

    attempt: int
    delay_seconds: float


class HedgeWon(Event):
    """An attempt launched as a hedge was the first to succeed."""

    attempt: int


class FallbackUsed(Event):
    """The answer came from a fallback. source: stale or fallback. rung: its place in the chain, from 1."""

    source: str
    rung: int


class LimitChanged(Event):
    """An adaptive limit moved."""

    old: float
    new: float


class CooldownStarted(Event):
    """The dependency asked for less; attempts are refused for `seconds`."""

    seconds: float


class KeysExhausted(Event):
    """Every keyed child is pinned; further keys share one."""

    kept: int


class SettingShadowed(Event):
    """A setting was given and a stronger source hides it."""

    setting: str
    hidden: str
    by: str


class SettingsReloaded(Event):
    """New settings are in force. changed: setting names."""

    changed: tuple[str, ...]


class RestoreIgnored(Event):
    """A snapshot could not be used; the breaker is as it was."""

    reason: str


class ChaosInjected(Event):
    """A fault was made on purpose. behaviour: which."""

    behaviour: str


E = TypeVar("E", bound=Event)
Listener = Callable[[Event], None]
listeners: tuple[Listener, ...] = ()
"""Who listens. Replaced as a whole, never changed in place: read it without a lock, to ask whether it is empty."""

_lock = threading.RLock()  # the collector may end a call, and so emit, on the thread that holds it
_errors = 0
_logged_at = float("-inf")


def subscribe(listener: Listener) -> Callable[[], None]:
    """Call `listener` with every event of every policy in this process; returns the unsubscribe, which is
    idempotent."""
    global listeners
    entry: Listener = lambda event: listener(event)  # noqa: E731  its own identity: one listener may subscribe twice
    with _lock:
        listeners = (*listeners, entry)

    def unsubscribe() -> None:
        global listeners
        with _lock:
            listeners = tuple(one for one in listeners if one is not entry)

    return unsubscribe


def emit(event: Event) -> None:
    """Tell every listener. Ask `if events.listeners:` first, so that nobody builds a record for nobody."""
    tell(listeners, event)


def tell(those: Iterable[Callable[[E], object]], event: E) -> None:
    """Call each of those; what one of them raises is noted."""
    for listener in those:
        try:
            listener(event)
        except Exception as error:  # whatever a listener raises, the call goes on
            _note(error)


def listener_errors() -> int:
    """Return how often a listener has raised in this process."""
    return _errors


def _note(error: Exception) -> None:
    global _errors, _logged_at
    now = SYSTEM.monotonic()
    with _lock:
        _errors += 1
        is_due = now - _logged_at >= _LOG_SECONDS
        if is_due:
            _logged_at = now
    if is_due:
        logger.error("policies.listener_failed errors=%d", _errors, exc_info=error)
