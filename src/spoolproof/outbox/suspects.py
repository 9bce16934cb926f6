"""Finds the row that ends the processes which publish it, and gives it up.

A relay keeps a record in the store from its first shard to its drain. What is left of those whose process is gone names
relays that ended in the middle of their work. One may have been anybody's doing. After two, a relay sends one row at a
time, each with a record of its own that is on disk before the publish and goes with the answer: so what is left of
these names the row. At the third of them the row is a dead letter, unsent. After twenty answers rows flow as ever;
after a minute of that, the ended relays are forgotten.

Costs one read with each lease that is gained, and nothing per row while no process has ended badly.
"""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import msgspec

from spoolproof import limits
from spoolproof.clock import Clock
from spoolproof.ports.leases import Leases
from spoolproof.ports.outbox import OutboxRow
from spoolproof.ports.state import SUSPECT, State

CRASH_LOOP = "crash_loop"
_ENDED_ENOUGH = 2
_ENDED_KEPT = 8  #: a relay that never lives for a minute leaves no more records than these
_ANSWERS_ENOUGH = 20
_HEALTHY_SECONDS = 60.0

_runs = msgspec.json.Decoder(list[str])


class RowSuspects:
    """The rows of one service that may have ended their process."""

    def __init__(
        self, state: State, leases: Leases, service: str, process_id: Callable[[], UUID], *, clock: Clock
    ) -> None:
        """process_id: this process's, as its peers see it now."""
        self._state = state
        self._leases = leases
        self._kind = f"relay/{service}"
        self._process_id = process_id
        self._clock = clock
        self._own: set[str] = set()
        self._ended: list[str] = []
        self._answers_left = 0
        self._forget_at = 0.0

    @property
    def is_alone(self) -> bool:
        """Whether rows go one at a time now."""
        return self._answers_left > 0

    async def look(self) -> None:
        """See which relays ended in their work, and enter this one. Raises StoreUnavailable."""
        own = str(self._process_id())
        if own not in self._own:
            await self._state.put(self._kind, own, b"[]")
            self._own.add(own)
        records = await self._state.all(self._kind)
        alive = {str(process.id) for process in await self._leases.processes()}
        gone = sorted(records.keys() - alive - self._own, key=lambda name: records[name].updated_at)
        for name in gone[:-_ENDED_KEPT]:
            await self._state.remove(self._kind, name)
        if gone and gone != self._ended:
            self._ended = gone[-_ENDED_KEPT:]
            self._forget_at = self._clock.monotonic() + _HEALTHY_SECONDS
            if len(gone) >= _ENDED_ENOUGH:
                self._answers_left = _ANSWERS_ENOUGH

    async def begin(self, row: OutboxRow) -> int:
        """Record that a row is about to be sent; returns how many processes ended over it before. Raises
        StoreUnavailable."""
        record = await self._state.get(SUSPECT, self._name(row))
        runs = [] if record is None else [run for run in _runs_of(record.value) if run not in self._own]
        if len(runs) < limits.CRASHES_MAX:
            await self._state.put(SUSPECT, self._name(row), msgspec.json.encode([*runs, str(self._process_id())]))
        return len(runs)

    async def end(self, row: OutboxRow) -> None:
        """Note that this process lived to see the answer. Raises StoreUnavailable."""
        await self._state.remove(SUSPECT, self._name(row))
        self._answers_left = max(0, self._answers_left - 1)

    async def forget_when_due(self) -> None:
        """Forget the relays that ended, when this one has done well for a minute. Raises StoreUnavailable."""
        if self._ended and self._clock.monotonic() >= self._forget_at:
            for name in self._ended:
                await self._state.remove(self._kind, name)
            self._ended = []

    async def leave(self) -> None:
        """Take this relay's record back: it ends as it should. Raises StoreUnavailable."""
        while self._own:
            await self._state.remove(self._kind, next(iter(self._own)))
            self._own.pop()

    def _name(self, row: OutboxRow) -> str:
        return f"{self._kind}/{row.ref.shard}/{row.ref.id}"


def _runs_of(value: bytes) -> list[str]:
    try:
        return _runs.decode(value)
    except msgspec.MsgspecError:
        return []
