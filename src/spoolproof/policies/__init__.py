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
from spoolproof.policies.adaptive import Adaptive
from spoolproof.policies.breaker import Breaker, Consecutive, Rate, Slow
from spoolproof.policies.bulkhead import Bulkhead
from spoolproof.policies.call import idempotency_key
from spoolproof.policies.caller import Result
from spoolproof.policies.chaos import Chaos
from spoolproof.policies.classifier import Classifier
from spoolproof.policies.deadline import Deadline
from spoolproof.policies.fallback import Fallback
from spoolproof.policies.hedge import Hedge
from spoolproof.policies.policy import Policy
from spoolproof.policies.rate_limit import RateLimit
from spoolproof.policies.registry import Registry, default_registry
from spoolproof.policies.report import Report, report
from spoolproof.policies.retry import Retry, within_delivery
from spoolproof.policies.timeout import Timeout
from spoolproof.policies.verdict import Kind, Status, Verdict

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
