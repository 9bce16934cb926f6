"""What is known of the things a service leans on, for parts that act on it without asking themselves.

Health informs. It never refuses a call: refusing is a breaker's work, choosing another answer a ladder's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol


class Status(StrEnum):
    """healthy; degraded: it answers, too often badly or too slowly; unhealthy; unknown: nothing recent to go by."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"


class Need(StrEnum):
    """critical: no useful work without it; important: less work; optional: its absence is an issue and no more."""

    CRITICAL = "critical"
    IMPORTANT = "important"
    OPTIONAL = "optional"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependency:
    """One thing the service leans on. key: `db`, the broker's kind, or a policy's name. state: a word of
    ConnectionState. url: without password, empty for a policy. since: when the status began. away_seconds: for how long
    it has not been healthy, 0 while it is. error: the class of its last error. checked_seconds_ago: None when it is
    read live. reason: why it is not healthy, in words; the rest, of a policy, over the last minute."""

    key: str
    need: Need
    status: Status
    state: str
    url: str
    since: datetime
    away_seconds: float = 0.0
    error: str | None = None
    checked_seconds_ago: float | None = None
    reason: str | None = None
    error_ratio: float | None = None
    p50_seconds: float | None = None
    p95_seconds: float | None = None

    @property
    def is_healthy(self) -> bool:
        """Whether it works, as far as is known."""
        return self.status is Status.HEALTHY


PROBE_PATHS = ("/live", "/livez", "/ready", "/readyz", "/startupz", "/health", "/metrics")
"""What is asked for under these paths is never refused for the sake of load: a restart would not lessen it."""


class HealthView(Protocol):
    """What the process knows now, from memory."""

    def status_of(self, dependency: str) -> Status:
        """Return the status of one by its key; unknown for what nobody watches. Costs next to nothing."""

    def known(self) -> Sequence[Dependency]:
        """Return all there are; a store whose publishes the spool takes over is important, and not critical."""

    @property
    def lag_seconds(self) -> float:
        """How late the event loop was at worst in the last five looks, one a second."""

    @property
    def fullness(self) -> float:
        """How full the spool is, 0 to 1; 0 without one."""
