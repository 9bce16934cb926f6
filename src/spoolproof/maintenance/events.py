"""What is told of breakers, and of what policies keep in the store."""

from __future__ import annotations

from spoolproof.telemetry.events import ERROR, WARNING, Event
from spoolproof.telemetry.metrics import counter, gauge

CALLS = counter(
    "policy_calls_total",
    "Calls by how they ended (`success` or the verdict) and where the answer came from: live, stale or fallback.",
    *("policy", "result", "source"),
)
ATTEMPTS = counter("policy_attempts_total", "Runs of the function.", "policy")
REJECTED = counter("policy_rejected_total", "Calls and attempts not let through, by what.", "policy", "by")
RETRIES = counter(
    "policy_retries_total",
    "Further attempts that were made (stopped is empty), and calls without one, by why.",
    *("policy", "stopped"),
)
BUDGET_AVAILABLE = gauge("policy_budget_available", "Retries and hedges that the budget pays for now.", "policy")
THREADS_ABANDONED = gauge("threads_abandoned", "Threads that hang in attempts given up on.", "policy")
BREAKER_STATE = gauge(
    "breaker_state", "1 for the state, else 0; of a policy with keys, how many are in it.", "policy", "state"
)
BREAKER_TRANSITIONS = counter("breaker_transitions_total", "How often a breaker came to a state.", "policy", "to")
BULKHEAD_RUNNING = gauge("bulkhead_running", "Calls that hold a slot.", "policy")
BULKHEAD_LIMIT = gauge("bulkhead_limit", "How many may.", "policy")


class BreakerOpened(
    Event,
    name="breaker.opened",
    level=WARNING,
    line="policy={policy} reason={reason} until={until}: {effect}",
    folds=("policy",),
):
    """A breaker refuses calls, or would."""

    policy: str
    reason: str
    until: str
    effect: str


class BreakerHalfOpened(
    Event,
    name="breaker.half_opened",
    level=WARNING,
    line="policy={policy} reason={reason}: {effect}",
    folds=("policy",),
):
    """A breaker lets a few calls try."""

    policy: str
    reason: str
    effect: str


class BreakerIsolated(
    Event, name="breaker.isolated", level=WARNING, line="policy={policy} reason={reason}: {effect}", folds=("policy",)
):
    """Somebody has opened a breaker by hand."""

    policy: str
    reason: str
    effect: str


class BreakerClosed(
    Event, name="breaker.closed", level=WARNING, line="policy={policy} seconds={seconds:.1f} reason={reason}"
):
    """A breaker lets calls through again."""

    policy: str
    seconds: float
    reason: str


class NotRestored(Event, name="policies.not_restored", level=WARNING, line="error={error}"):
    """Breakers that were open before the restart are taken for closed."""

    error: str


class NotSaved(Event, name="policies.not_saved", level=ERROR, line="policy={policy} error={error}"):
    """A breaker cannot be kept in the store: its key or reason is no text, or too long."""

    policy: str
    error: str


class FactNotTold(Event, name="policies.fact_not_told", level=ERROR, line="policy={policy} kind={kind} error={error}"):
    """An isolation, reset or cooldown cannot be told to the other processes."""

    policy: str
    kind: str
    error: str


class FactUnreadable(Event, name="policies.fact_unreadable", level=WARNING, line="row={row} error={error}"):
    """What another process told cannot be read."""

    row: str
    error: str
