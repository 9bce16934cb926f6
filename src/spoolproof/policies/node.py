"""The shape of a compiled pipeline: nodes, each around the next, and what an attempt has to pass."""

from __future__ import annotations

from typing import Any, Protocol

from spoolproof.policies.call import Call
from spoolproof.policies.verdict import Verdict


class Node(Protocol):
    """A part of the pipeline that runs everything inside it."""

    async def run(self, call: Call) -> Any:
        """Return the value of the call, or raise its error; `call.verdict` says what an end that is no success
        means."""


class Guard(Protocol):
    """What an attempt needs before it may run, and what learns how it ended.

    needs_time: whether `leave` has to be told when the attempt ended, and not only that it did."""

    @property
    def needs_time(self) -> bool:
        """See above."""

    def enter(self, call: Call, now: float) -> object | None:
        """Admit the attempt and return a permit, or None if it has to wait. Raises CallRejected."""

    async def wait(self, call: Call) -> object:
        """Return a permit once admitted. Raises CallRejected or DeadlineExceeded."""

    def leave(self, permit: object, call: Call, verdict: Verdict, now: float) -> None:
        """Give the permit back; called exactly once for each."""
