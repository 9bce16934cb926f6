"""The contract of all background work.

The supervisor calls `start` once, `run_once` again and again, then `drain` once and `stop` once. `run_once` is
bounded: it does one batch of work, or waits a bounded time for some. It may be killed at any line. `stop` is
idempotent and safe before `start`.
"""

from __future__ import annotations

from typing import Protocol


class Loop(Protocol):
    """One piece of background work."""

    @property
    def name(self) -> str:
        """What it is called in logs and in the liveness report."""

    @property
    def stall_seconds(self) -> float | None:
        """How long one turn may take before the process counts as stuck; None if only its user's code bounds it."""

    async def start(self) -> None:
        """Get ready. An error ends the service."""

    async def run_once(self) -> None:
        """Do one bounded turn. An error is logged and the next turn comes after a short wait."""

    async def drain(self) -> None:
        """Finish what runs and take nothing new. Called at most once, after the last turn has ended or been cut."""

    async def stop(self) -> None:
        """Let go of everything. Idempotent, safe before start."""
