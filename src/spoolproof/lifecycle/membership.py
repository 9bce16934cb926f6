"""This process among its peers: its row in the process table and the leases it holds.

The protocol. Every third of a lease the process row and all leases are renewed; free leases are sought every 1.5 s
(± 20 %). A process takes at most its fair share, ceil(leases / live processes that want them), and gives one
surplus lease back per round, so joining and leaving settle without a coordinator.

Leases run on the database's clock. This process trusts its own hold no longer than two thirds of a lease after the
last *answered* renewal was *sent*, on a clock that counts suspend: the third that is left covers a slow answer. After
that `Holding.fence_for` gives nothing out until a renewal is answered again. A process that was frozen past its lease
therefore stops by itself, and what it still tries to write carries an old epoch, which the store refuses.

A process whose row has expired starts over under a new id: its peers may already have counted it as dead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from spoolproof import limits
from spoolproof.backoff import RandomSource, spread_seconds
from spoolproof.clock import Clock
from spoolproof.failpoints import failpoint
from spoolproof.ids import Ids
from spoolproof.lifecycle.events import PROCESSES, LeaseAcquired, LeaseLost, ProcessExpired
from spoolproof.lifecycle.loop import Loop, Phase
from spoolproof.ports.leases import Fence, Leases, Process
from spoolproof.telemetry.events import emit
from spoolproof.telemetry.metrics import Measure


class Holding:
    """The leases of one kind that this process holds."""

    def __init__(self, kind: str, names: Sequence[str], clock: Clock, fence_seconds: float) -> None:
        self.kind = kind
        self.names = tuple(names)
        self._clock = clock
        self._fence_seconds = fence_seconds
        self._fences: dict[str, Fence] = {}
        self._trusted_until = 0.0
        self.on_change: Callable[[], None] | None = None

    def fence_for(self, name: str) -> Fence | None:
        """Return the fence of a lease this process may act under now, else None."""
        return self._fences.get(name) if self._clock.monotonic() < self._trusted_until else None

    def held(self) -> dict[str, Fence]:
        """Return name → fence of every lease this process may act under now; empty when self-fenced."""
        return dict(self._fences) if self._clock.monotonic() < self._trusted_until else {}

    @property
    def is_trusted(self) -> bool:
        """Whether a renewal was answered lately enough to believe that peers count this process among the living."""
        return self._clock.monotonic() < self._trusted_until

    @property
    def is_fenced(self) -> bool:
        """Whether leases were held and may not be acted under: no renewal was answered in time."""
        return bool(self._fences) and self._clock.monotonic() >= self._trusted_until

    def known(self) -> list[Fence]:
        """Return every fence not known to be lost, trusted or not; what a renewal asks for."""
        return list(self._fences.values())

    def confirm(self, fences: Sequence[Fence], sent_at: float) -> None:
        """Note the answer to a renewal that was sent at `sent_at`: these and no others are held."""
        self._trusted_until = sent_at + self._fence_seconds
        self._set({fence.name: fence for fence in fences})

    def add(self, fences: Sequence[Fence], sent_at: float) -> None:
        """Note leases acquired by a request sent at `sent_at`; those held before are trusted no longer for it."""
        until = sent_at + self._fence_seconds
        self._trusted_until = min(self._trusted_until, until) if self._fences else until
        self._set({**self._fences, **{fence.name: fence for fence in fences}})

    def keep(self, fences: Sequence[Fence]) -> None:
        """Note that only these are still held."""
        self._set({fence.name: fence for fence in fences})

    def lose_all(self) -> None:
        """Forget every lease."""
        self._set({})

    def _set(self, fences: dict[str, Fence]) -> None:
        changed = fences != self._fences
        self._fences = fences
        if changed and self.on_change is not None:
            self.on_change()


class Membership(Loop):
    """The loop that keeps the process row and the leases."""

    name = "membership"
    phase = Phase.LEASES

    def __init__(
        self,
        process: Process,
        leases: Leases,
        holdings: Sequence[Holding],
        *,
        lease_seconds: float,
        clock: Clock,
        ids: Ids,
        random: RandomSource,
    ) -> None:
        self.process = process
        self._leases = leases
        self._holdings = tuple(holdings)
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._ids = ids
        self._random = random
        self._has_ensured = False
        self._peers: Sequence[Process] = ()
        self._renew_at = 0.0
        self.stall_seconds: float | None = max(limits.LOOP_STALLED_SECONDS, 3 * lease_seconds)

    async def run_once(self) -> int:
        """Beat, renew, seek or give back, then wait for the next round."""
        await self._round()
        seek_seconds = min(limits.SEEK_SECONDS, self._lease_seconds / 4)
        await self._clock.sleep(spread_seconds(seek_seconds, ratio=0.2, source=self._random))
        return sum(len(holding.known()) for holding in self._holdings)

    def measures(self) -> Iterator[Measure]:
        """Yield how many processes there are, by what they hold leases of."""
        states = [(role, "draining" if peer.is_draining else "running") for peer in self._peers for role in peer.roles]
        yield from ((PROCESSES, labels, count) for labels, count in Counter(states).items())

    async def drain(self) -> None:
        """Give every lease back at once, so that a peer need not wait for them to run out."""
        fences = [fence for holding in self._holdings for fence in holding.known()]
        for holding in self._holdings:
            holding.lose_all()
        await self._leases.release(fences)
        failpoint("lease.after_release")
        self.process = replace(self.process, is_draining=True)
        await self._leases.beat(self.process, expires_seconds=0.0)

    async def stop(self) -> None:
        """Forget the leases; a process that did not drain leaves them to run out."""
        for holding in self._holdings:
            holding.lose_all()

    async def _round(self) -> None:
        if not self._has_ensured:
            for holding in self._holdings:
                await self._leases.ensure(holding.kind, holding.names)
            self._has_ensured = True
        if self._clock.monotonic() >= self._renew_at:
            await self._beat_and_renew()
        peers = self._peers = await self._leases.processes()
        for holding in self._holdings:
            wanting = [peer for peer in peers if holding.kind in peer.roles and not peer.is_draining]
            await self._balance(holding, fair=-(-len(holding.names) // max(1, len(wanting))))

    async def _beat_and_renew(self) -> None:
        sent_at = self._clock.monotonic()
        if not await self._leases.beat(self.process, self._lease_seconds):
            emit(ProcessExpired(id=str(self.process.id)))
            self.process = replace(self.process, id=self._ids.uuid7())
            for holding in self._holdings:
                holding.lose_all()
            await self._leases.beat(self.process, self._lease_seconds)
        for holding in self._holdings:
            asked = holding.known()
            kept = await self._leases.renew(asked, self._lease_seconds) if asked else []
            failpoint("lease.after_renew")
            if len(kept) < len(asked):
                emit(LeaseLost(kind=holding.kind, lost=len(asked) - len(kept), kept=len(kept)))
            holding.confirm(kept, sent_at)
        self._renew_at = sent_at + self._lease_seconds * limits.RENEW_SHARE

    async def _balance(self, holding: Holding, fair: int) -> None:
        held = holding.known()
        if len(held) > fair:
            holding.keep(held[:-1])
            await self._leases.release(held[-1:])
        elif len(held) < fair:
            sent_at = self._clock.monotonic()
            taken = await self._leases.acquire(holding.kind, self.process.id, fair - len(held), self._lease_seconds)
            if taken:
                failpoint("lease.after_acquire")
                emit(LeaseAcquired(kind=holding.kind, names=",".join(fence.name for fence in taken)))
                holding.add(taken, sent_at)
