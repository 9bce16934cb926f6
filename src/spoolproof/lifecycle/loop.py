"""The contract of all background work.

The supervisor calls `start` once, `run_once` again and again, then `drain` once and `stop` once. `run_once` is
bounded: it does one batch of work, or waits a bounded time for some. It may be killed at any line. `stop` is
idempotent and safe before `start`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import IntEnum

from spoolproof import limits


class Phase(IntEnum):
    """When a loop starts, and in reverse when it is drained: what others lean on comes first and goes last."""

    LEASES = 0  #: until they are given back no peer takes over what is still being flushed
    STATE = 1  #: what is told to the other processes and the next one
    SHIP = 2  #: what leaves the store
    TAKE_IN = 3  #: what comes from the broker
    HANDLE = 4  #: the user's code; the only phase that is given the whole of `drain_seconds`


class Loop(ABC):
    """One piece of background work. A subclass says what it does beyond nothing.

    name: what it is called in logs and in the liveness report. stall_seconds: how long one turn may take before the
    process counts as stuck; None if only its user's code bounds it.
    """

    name: str
    phase: Phase = Phase.STATE
    stall_seconds: float | None = limits.LOOP_STALLED_SECONDS

    async def start(self) -> None:  # noqa: B027
        """Get ready. An error ends the service."""

    @abstractmethod
    async def run_once(self) -> int:
        """Do one bounded turn; returns how many things it did. An error is logged and the next turn comes after a
        short wait."""

    async def drain(self) -> None:  # noqa: B027
        """Finish what runs and take nothing new. Called at most once, after the last turn has ended or been cut."""

    async def stop(self) -> None:  # noqa: B027
        """Let go of everything. Idempotent, safe before start."""
