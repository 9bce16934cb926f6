"""Verdicts that change with the answers that come in, and since when they stand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime

from spoolproof import limits
from spoolproof.clock import Clock


class Condition:
    """Something that is or is not so, and since when."""

    def __init__(self, clock: Clock, *, holds: bool) -> None:
        self._clock = clock
        self.holds = holds
        self.since = clock.now()
        self._changed_at = clock.monotonic()

    def note(self, holds: bool, since: datetime | None = None) -> None:
        """Note how it is now. since: when it became so, if that is known better than "just now"."""
        if holds is not self.holds:
            self.holds = holds
            self.since = since or self._clock.now()
            self._changed_at = self._clock.monotonic()

    @property
    def seconds(self) -> float:
        """For how long it has been so; 0 when it is not."""
        return self._clock.monotonic() - self._changed_at if self.holds else 0.0


class Check:
    """A verdict that two answers in a row must contradict to change it. Starts as failing: nothing was reached yet.

    since: when the first of the answers that made the verdict was asked for. error: the class of the error that made
    it bad, or of the newest since; its text may name what must stay secret.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._against = 0  # answers in a row that contradict the verdict
        self._against_since = (clock.now(), clock.monotonic())
        self._checked_at = clock.monotonic()
        self._changed_at = clock.monotonic()
        self.is_passing = False
        self.since = clock.now()
        self.error: str | None = None

    async def ask(self, ping: Callable[[], Awaitable[None]]) -> None:
        """Ask once; an answer that takes over a second is none."""
        asked_at = (self._clock.now(), self._clock.monotonic())
        error = None
        try:
            async with asyncio.timeout(limits.HEALTH_ANSWER_SECONDS_MAX):
                await ping()
        except Exception as caught:  # a check that raises anything has failed
            error = caught
        self._checked_at = self._clock.monotonic()
        if error is not None:
            self.error = type(error).__name__
        if (error is None) is self.is_passing:
            self._against = 0
            return
        if self._against == 0:
            self._against_since = asked_at
        self._against += 1
        if self._against >= limits.HEALTH_ANSWERS:
            self._turn(error is None)

    def believe(self, error: BaseException | None) -> None:
        """Take what somebody else has just met for the verdict; None: it answered."""
        self._checked_at = self._clock.monotonic()
        if error is not None:
            self.error = type(error).__name__
        if (error is None) is not self.is_passing:
            self._against_since = (self._clock.now(), self._clock.monotonic())
            self._turn(error is None)

    @property
    def is_in_doubt(self) -> bool:
        """Whether to ask again soon: the verdict is bad, or the last answer contradicts it."""
        return not self.is_passing or self._against > 0

    @property
    def age_seconds(self) -> float:
        """How long ago the last answer came."""
        return self._clock.monotonic() - self._checked_at

    @property
    def failing_seconds(self) -> float:
        """For how long the verdict has been bad; 0 when it is not."""
        return 0.0 if self.is_passing else self._clock.monotonic() - self._changed_at

    def _turn(self, is_passing: bool) -> None:
        self.is_passing = is_passing
        self.since, self._changed_at = self._against_since
        self._against = 0
        if is_passing:
            self.error = None
