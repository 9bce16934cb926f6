"""The loop that decides on a level every 5 s, and exchanges with the store what is set and where processes are.

It goes by what health knows, in memory, also while the store is away: then the last that was heard of an operator's
level holds until that is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import UUID

from spoolproof.clock import Clock
from spoolproof.degradation.events import LevelChanged
from spoolproof.degradation.levels import EVALUATE_SECONDS, LEAVE_SECONDS, Levels, Signals
from spoolproof.degradation.offer import Known, Told, kind_of, known, put
from spoolproof.degradation.shed import Offer
from spoolproof.errors import LimitReached, NotStarted, Unavailable
from spoolproof.lifecycle.loop import Loop
from spoolproof.ports.health import HealthView, Need, Status
from spoolproof.ports.state import State
from spoolproof.telemetry.events import emit

_STORE_SECONDS = 2.0
_TOLD_SECONDS = 2 * LEAVE_SECONDS  #: how long a process's row holds; renewed four times in it


class Degradation(Loop):
    """Decides for this process."""

    name = "degradation"

    def __init__(
        self, service: str, offer: Offer, view: HealthView, state: State, *, clock: Clock,
        process_id: Callable[[], UUID],
    ) -> None:  # fmt: skip
        self._service = service
        self._offer = offer
        self._view = view
        self._state = state
        self._clock = clock
        self._process_id = process_id
        self._levels = Levels()
        self._told_at: float | None = None
        self.known = Known()
        self.is_store_reached = False

    async def run_once(self) -> int:
        """Decide, tell, and rest."""
        await self._clock.sleep(EVALUATE_SECONDS)
        self._levels.evaluate(self._signals(), self._clock.monotonic())
        await self._exchange()
        self.apply()
        return 1

    async def drain(self) -> None:
        """Take back what was told of this process."""
        if self._told_at is not None:
            await self._reach(self._untell)

    def apply(self) -> None:
        """Be at the level that is set, or at the one this process has decided on."""
        chosen = self.set
        level, reason = (self._levels.level, self._levels.reason) if chosen is None else (
            chosen.level, f"set by {chosen.actor}: {chosen.reason}",
        )  # fmt: skip
        before = self._offer.level
        self._offer.change(level, reason)
        if level != before:
            emit(LevelChanged(old=before, new=level, reason=reason))

    @property
    def set(self) -> Told | None:
        """What an operator has set, as far as was heard and while it holds."""
        chosen = self.known.set
        return chosen if chosen is not None and chosen.until > self._clock.now().timestamp() else None

    def hear(self, told: Told | None) -> None:
        """Take over at once what was set or taken back in this process."""
        self.known = Known(told, self.known.processes)
        self.apply()

    def _signals(self) -> Signals:
        away = [one for one in self._view.known() if one.status is Status.UNHEALTHY]
        return Signals(
            critical=tuple(one.key for one in away if one.need is Need.CRITICAL),
            important=tuple(one.key for one in away if one.need is Need.IMPORTANT),
            lag_seconds=self._view.lag_seconds,
            fullness=self._view.fullness,
            in_flight=self._offer.in_flight,
        )

    # --- the store ---------------------------------------------------------------------------------------------------

    async def _exchange(self) -> None:
        if self.is_store_reached:
            await self._reach(self._ask)

    async def _reach(self, work: Callable[[], object]) -> None:
        try:
            async with asyncio.timeout(_STORE_SECONDS):
                await work()  # type: ignore[misc]
        except (Unavailable, LimitReached, NotStarted, TimeoutError):
            return  # health tells of it

    async def _ask(self) -> None:
        self.known = await known(self._state, self._service, self._clock)
        level, now = self._levels.level, self._clock.now().timestamp()
        me = str(self._process_id())
        if level:
            mine = self.known.processes.get(me)
            if mine is None or mine.level != level or mine.at < now - _TOLD_SECONDS / 4:
                told = Told(level=level, reason=self._levels.reason[:200], actor=me, until=now + _TOLD_SECONDS, at=now)
                await put(self._state, self._service, me, told)
                self._told_at = now
        elif self._told_at is not None:
            await self._untell()

    async def _untell(self) -> None:
        await self._state.remove(kind_of(self._service), str(self._process_id()))
        self._told_at = None
