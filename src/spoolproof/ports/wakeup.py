"""Telling a relay that rows are waiting, so that it need not poll fast.

A hint only: a lost wake-up costs at most one poll.
"""

from __future__ import annotations

from typing import Protocol


class WakeUp(Protocol):
    """The bell between those who commit rows and those who ship them."""

    def notify(self) -> None:
        """Ring, after a commit. Never blocks, never raises, may be called often."""

    async def wait(self, timeout_seconds: float) -> bool:
        """Return True at the next ring, also one made by another process, or False after `timeout_seconds`."""
