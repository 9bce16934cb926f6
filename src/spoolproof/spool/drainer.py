"""Empties spool files: this process's, and those that processes of its service left behind.

One turn looks for files nobody holds (every 15 s), asks a store that was left alone whether it is back (every 5 s), and
then gives each file its turn. `STRAIGHT` is shipped by a relay of the file's own, which always holds its shard. `HOME`
is appended to the store's outbox and removed after that commit; a crash between the two sends some twice, under the
same ids. Where the store is such a file itself, the relay ships both lanes. What the relay gave up on goes to the
store's dead letters. A file that keeps nothing is closed, which deletes it.

Must never happen here: a row removed before its confirm, or before the store's commit.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from spoolproof import limits
from spoolproof.clock import Clock
from spoolproof.errors import OutboxFull, StoreUnavailable
from spoolproof.failpoints import failpoint
from spoolproof.ids import Ids
from spoolproof.lifecycle.loop import Loop, Phase
from spoolproof.lifecycle.membership import Holding
from spoolproof.outbox.events import PUBLISHED
from spoolproof.outbox.relay import Relay
from spoolproof.outbox.suspects import RowSuspects
from spoolproof.ports.broker import Broker
from spoolproof.ports.dead_letters import DeadLetterFilter, DeadLetterState
from spoolproof.ports.outbox import OutboxRow
from spoolproof.ports.services import shard_name
from spoolproof.ports.spool import HOME, STRAIGHT, SpoolFile, Spools
from spoolproof.ports.store import Store
from spoolproof.ports.webhooks import EndpointState, Webhooks
from spoolproof.spool.events import SpoolAdopted, SpoolDrained, SpoolSalvaged
from spoolproof.spool.spool import Spool
from spoolproof.telemetry.events import emit
from spoolproof.telemetry.metrics import Labels, Measure


@dataclass(slots=True)
class _Emptying:
    """A file under way. moved: rows that are in the store and not yet
    removed; a disk that is too full for a delete must not make the store take them again and again."""

    file: SpoolFile
    relay: Relay
    began_at: float
    count_at: float = 0.0
    moved: list[OutboxRow] = field(default_factory=list)


class Drainer(Loop):
    """The loop."""

    name = "spool"
    phase = Phase.SHIP
    stall_seconds = 300.0  #: it also reads through what was left behind, to know that it is sound

    def __init__(
        self, spool: Spool, spools: Spools, service: str, store: Store, broker: Broker, *, clock: Clock, ids: Ids
    ) -> None:
        self.is_store_reached = False
        self.damaged: Sequence[str] = ()
        self.trouble = ""
        self.adopted = 0  #: events, in files left behind
        self._spool = spool
        self._spools = spools
        self._service = service
        self._store = store
        self._broker = broker
        self._clock = clock
        self._ids = ids
        self._under_way: list[_Emptying] = []
        self._is_store_there = False
        self._adopt_at = 0.0
        self._has_looked = False
        self._probe_at = 0.0
        self._ask_at = 0.0
        self._published: Counter[Labels] = Counter()  # by relays that have ended

    @property
    def is_idle(self) -> bool:
        """Whether it has looked for files, and none is under way."""
        return self._has_looked and not self._under_way and not self.trouble

    def measures(self) -> Iterable[Measure]:
        """Yield what its relays published; the gauges are the service's relay's."""
        for labels, count in list(self._published.items()):
            yield PUBLISHED, labels, count
        for one in list(self._under_way):
            yield from _published(one.relay)

    async def run_once(self) -> int:
        """Give every file a turn, or wait at most a second for one. May be killed at any line."""
        now = self._clock.monotonic()
        if now >= self._adopt_at:
            self._adopt_at = now + limits.SPOOL_ADOPT_SECONDS
            await self._adopt()
            self._has_looked = True
        await self._probe(now)
        await self._ask_for_webhooks(now)
        self._take_own()
        done = 0
        failed: StoreUnavailable | None = None
        for one in list(self._under_way):
            try:
                done += await self._empty(one)
            except StoreUnavailable as error:  # its own file; the others go on
                failed = error
        self._spool.watch()
        if failed is not None:
            raise failed
        if not self._under_way:
            await self._rest()
        return done

    async def drain(self) -> None:
        """Wait for the answers to what is on its way; the rest stays in its files."""
        for one in self._under_way:
            await one.relay.drain()

    async def stop(self) -> None:
        """Close every file: what is empty is gone, what is not is adopted by the next process."""
        under_way, self._under_way = self._under_way, []
        own = self._spool.close()
        for one in under_way:
            await one.relay.stop()
        for file in dict.fromkeys([*(one.file for one in under_way), *self._spool.left, *([own] if own else [])]):
            await file.stop()

    # --- which files -------------------------------------------------------------------------------------------------

    async def _adopt(self) -> None:
        while self._spool.left:
            await self._spool.left.pop().stop()  # and found again like any other
        try:
            for file in await self._spools.adopt():
                if found := file.salvaged:
                    emit(
                        SpoolSalvaged(
                            path=str(found.damaged),
                            rows=found.rows,
                            dead_letters=found.dead_letters,
                            unreadable=found.unreadable,
                        )
                    )
                self.adopted += file.rows
                emit(SpoolAdopted(path=str(file.path), rows=file.rows))
                self._begin(file)
            self.trouble = ""
        except (StoreUnavailable, OSError) as error:
            self.trouble = f"spool: files left behind cannot be taken over: {error}"
        self.damaged = [str(path) for path in self._spools.damaged()]

    def _take_own(self) -> None:
        file = self._spool.file
        if file is not None and all(one.file is not file for one in self._under_way):
            self._begin(file)

    def _begin(self, file: SpoolFile) -> None:
        fences = [one for one in file.fences if self._spools.is_home or one.name == shard_name(STRAIGHT)]
        shards = Holding(fences[0].kind, [one.name for one in fences], self._clock, math.inf)
        owner = fences[0].owner
        relay = Relay(
            *(file.outbox, file.dead_letters, file.wakeup, self._broker, shards),
            clock=self._clock,
            ids=self._ids,
            suspects=RowSuspects(file.state, file.leases, self._service, lambda: owner, clock=self._clock),
        )
        shards.confirm(fences, self._clock.monotonic())
        self._under_way.append(_Emptying(file, relay, self._clock.monotonic()))

    # --- one file ----------------------------------------------------------------------------------------------------

    async def _empty(self, one: _Emptying) -> int:
        if one.file in self._spool.left:
            await self._end(one)
            return 1
        done = await one.relay.run_once()
        done += await self._move(one)
        if self._clock.monotonic() >= one.count_at:
            one.count_at = self._clock.monotonic() + limits.OUTBOX_ESTIMATE_SECONDS
            await one.file.count()
        if not one.file.rows:
            await self._finish(one)
        return done

    async def _move(self, one: _Emptying) -> int:
        """Append what waits for the store to its outbox."""
        file = one.file
        await self._remove_moved(one)
        moved, may_move = 0, self._is_store_there and not self._spools.is_home
        for _ in range(limits.SPOOL_MOVES_PER_TURN if may_move and file.rows else 0):
            rows = (await file.outbox.fetch({HOME: 0}, (), limits.SPOOL_MOVE_ROWS)).rows
            if not rows:
                break
            try:
                await self._store.outbox.append([row.outgoing for row in rows], None)
            except StoreUnavailable:
                self._store_failed()
                break
            except OutboxFull:
                break  # they wait here as well as there
            one.moved = list(rows)
            failpoint("spool.after_move")
            self._store.wakeup.notify()
            moved += await self._remove_moved(one)
        return moved

    async def _remove_moved(self, one: _Emptying) -> int:
        rows = one.moved
        if rows:
            await one.file.outbox.remove([row.ref for row in rows])
            one.moved = []
            if one.file is self._spool.file:
                self._spool.moved([row.outgoing for row in rows])
        return len(rows)

    async def _finish(self, one: _Emptying) -> None:
        await one.file.count()
        if one.file.rows or not await self._bring_dead_letters(one.file):
            return
        if one.file is self._spool.file and self._spool.give_file() is None:
            return  # somebody writes to it again
        await self._end(one)
        seconds = self._clock.monotonic() - one.began_at
        emit(SpoolDrained(path=str(one.file.path), seconds=seconds))

    async def _end(self, one: _Emptying) -> None:
        self._under_way.remove(one)
        await one.relay.drain()  # nothing is on its way: it takes its own record back
        await one.relay.stop()
        for _, labels, count in _published(one.relay):
            self._published[labels] += int(count)
        if one.file not in self._spool.left:
            await one.file.stop()

    async def _bring_dead_letters(self, file: SpoolFile) -> bool:
        """Move what was given up on to where people look; False while that cannot be done."""
        for state in (DeadLetterState.OPEN, DeadLetterState.REPLAYING):
            while letters := await file.dead_letters.search(DeadLetterFilter(state=state)):
                for letter in letters:
                    if not self._is_store_there:
                        return False
                    try:
                        await self._store.dead_letters.add(replace(letter, state=DeadLetterState.OPEN))
                    except StoreUnavailable:
                        self._store_failed()
                        return False
                    await file.drop_dead_letter(letter.id)
        return True

    # --- the store ---------------------------------------------------------------------------------------------------

    def _store_failed(self) -> None:
        self._is_store_there = False
        self._probe_at = self._clock.monotonic() + limits.SPOOL_PROBE_SECONDS

    async def _probe(self, now: float) -> None:
        is_trusted = self._is_store_there and not self._spool.is_store_left
        if is_trusted or not self.is_store_reached or now < self._probe_at:
            return
        self._probe_at = now + limits.SPOOL_PROBE_SECONDS
        try:
            async with asyncio.timeout(limits.SPOOL_STORE_SECONDS):
                await self._store.ping()
        except (StoreUnavailable, TimeoutError):
            self._is_store_there = False
        else:
            self._is_store_there = True
            self._spool.store_answers()

    async def _ask_for_webhooks(self, now: float) -> None:
        if not self._is_store_there or now < self._ask_at:
            return
        try:
            endpoints = await self._store.port(Webhooks).all()
        except StoreUnavailable:
            return  # what was known still holds: nobody can add one now
        self._ask_at = now + limits.WEBHOOK_LOOK_SECONDS
        self._spool.has_webhooks = any(one.state is not EndpointState.DISABLED for one in endpoints)

    async def _rest(self) -> None:
        self._spool.stirred.clear()
        try:
            async with asyncio.timeout(limits.POLL_MAX_SECONDS):
                await self._spool.stirred.wait()
        except TimeoutError:
            return


def _published(relay: Relay) -> list[Measure]:
    return [one for one in relay.measures() if one[0] is PUBLISHED]
