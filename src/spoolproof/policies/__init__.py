"""Protection for calls to things that fail. Needs nothing but the standard library.

``Policy.standard("psp", idempotent=True)`` is the recommended pipeline; each part also works alone, as a decorator:
``@Timeout(5)``. See docs/policies.
"""

from spoolproof.errors import (
    Action,
    AttemptTimeout,
    BreakerOpen,
    BulkheadFull,
    CallRejected,
    DeadlineExceeded,
    Disposition,
    PolicyConfigError,
    PolicyError,
    PolicyUsageError,
    RateLimited,
    ThreadsExhausted,
)
from spoolproof.policies import deadline, events
from spoolproof.policies.call import idempotency_key, within_delivery
from spoolproof.policies.judging.classifier import Classifier
from spoolproof.policies.judging.report import Report, report
from spoolproof.policies.judging.verdict import Kind, Status, Verdict
from spoolproof.policies.parts.breaker import Breaker, Consecutive, Rate, Slow
from spoolproof.policies.parts.chaos import Chaos
from spoolproof.policies.parts.limits import Adaptive, Bulkhead, Deadline, Fallback, Hedge, RateLimit, Retry, Timeout
from spoolproof.policies.policy import Policy
from spoolproof.policies.registry import Registry, default_registry
from spoolproof.policies.running.caller import Result

__all__ = [
    "Action",
    "Adaptive",
    "AttemptTimeout",
    "Breaker",
    "BreakerOpen",
    "Bulkhead",
    "BulkheadFull",
    "CallRejected",
    "Chaos",
    "Classifier",
    "Consecutive",
    "Deadline",
    "DeadlineExceeded",
    "Disposition",
    "Fallback",
    "Hedge",
    "Kind",
    "Policy",
    "PolicyConfigError",
    "PolicyError",
    "PolicyUsageError",
    "Rate",
    "RateLimit",
    "RateLimited",
    "Registry",
    "Report",
    "Result",
    "Retry",
    "Slow",
    "Status",
    "ThreadsExhausted",
    "Timeout",
    "Verdict",
    "deadline",
    "default_registry",
    "events",
    "idempotency_key",
    "report",
    "within_delivery",
]
