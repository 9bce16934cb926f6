"""Ships outbox rows to the broker; a row goes only after a confirm and no return.

How. One turn fetches ready rows of the shards this process holds, hands them to the broker as far as its window has
room, and settles what was answered meanwhile. Answers arrive through the sink between turns and refill the window at
once, so it stays full while a turn waits for the database. Statements run one after the other, never two at once:
that is what makes the bookkeeping below sound.

Order. At most one row of a (destination, key) is in flight; its followers wait in memory. Any answer but a confirm
forgets every row that is not in flight and reads them again, so a follower never overtakes. How far was read, and what
lies behind that, is in `outbox/progress.py`.

A row in memory is buffered, a follower, in flight, answered (its fate not yet written) or confirmed (its row not yet
deleted). `_known` holds them all, so no read takes a row twice. Confirmed rows stay known until their delete has
committed: an outage of the store republishes nothing in a living process.

Rows that end their process: see `outbox/suspects.py`. While it says so, one row is in flight at a time.

Must never happen: a delete without its confirm; a send under a lease that may have run out; two sends of one row
without an answer to the first.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from typing import assert_never, cast

from spoolproof import limits
from spoolproof.clock import Clock
from spoolproof.destination import Destination, Kind
from spoolproof.errors import BrokerUnavailable, EncodeError, WindowFull
from spoolproof.failpoints import failpoint
from spoolproof.ids import Ids
from spoolproof.lifecycle.loop import Loop, Phase
from spoolproof.lifecycle.membership import Holding
from spoolproof.outbox.events import (
    CONFIRM_SECONDS,
    IN_FLIGHT,
    PAUSED,
    PUBLISHED,
    RelayGaveUp,
    RelayNacked,
    RelayReturned,
)
from spoolproof.outbox.fate import DeferRow, GiveUp, Keep, Remove, fate_of
from spoolproof.outbox.given_up import consumer_of, relay_dead_letter
from spoolproof.outbox.pauses import Pauses
from spoolproof.outbox.progress import Progress
from spoolproof.outbox.suspects import CRASH_LOOP, RowSuspects
from spoolproof.ports.broker import Confirmed, Outlet, PublishOutcome, Returned
from spoolproof.ports.dead_letters import RECORDED, DeadLetters
from spoolproof.ports.outbox import Outbox, OutboxRow, RowRef
from spoolproof.ports.services import shard_name
from spoolproof.ports.wakeup import WakeUp
from spoolproof.telemetry import tracing
from spoolproof.telemetry.events import emit
from spoolproof.telemetry.folding import Folded
from spoolproof.telemetry.metrics import METER, Measure, Metric

_FLUSH_SECONDS = 5.0  #: how long a drain waits for outstanding confirms; what is left is sent again by a peer

Key = tuple[Destination, str]


class Relay(Loop):
    """The loop that ships the shards this process holds."""

    name = "relay"
    phase = Phase.SHIP

    def __init__(
        self,
        outbox: Outbox,
        dead_letters: DeadLetters,
        wakeup: WakeUp,
        broker: Outlet,
        shards: Holding,
        *,
        clock: Clock,
        ids: Ids,
        suspects: RowSuspects | None = None,
        pauses: Pauses | None = None,
        confirm_seconds: Metric = CONFIRM_SECONDS,
    ) -> None:
        """suspects: finds the row that ends its process; None: nothing looks for one. pauses: who is left alone.
        confirm_seconds: how long a confirm takes."""
        self._outbox = outbox
        self._dead_letters = dead_letters
        self._wakeup = wakeup
        self._broker = broker
        self._shards = shards
        self._clock = clock
        self._ids = ids
        self._suspects = suspects
        self._held: set[str] = set()
        self._pauses = pauses or Pauses()
        self._folded = Folded(clock)
        self._progress = Progress()
        self._known: set[RowRef] = set()
        self._buffer: deque[OutboxRow] = deque()  # bounded: a read happens only when it is half empty
        self._followers: dict[Key, deque[OutboxRow]] = {}
        self._in_flight: dict[RowRef, float] = {}  # when it was sent
        self._keys_in_flight: set[Key] = set()
        self._answered: deque[tuple[OutboxRow, PublishOutcome | GiveUp]] = deque()  # bounded by the window
        self._confirmed: dict[RowRef, None] = {}
        self._fetch_rows = limits.RELAY_BATCH_ROWS_MAX
        self.answers: defaultdict[tuple[Destination, type], int] = defaultdict(int)  # read at a scrape
        self._confirm_seconds = METER.spread(confirm_seconds)
        self._generation = 0
        self._delete_at = 0.0
        self._poll_seconds = limits.POLL_FIRST_SECONDS
        self._stirred = asyncio.Event()
        self._is_draining = False
        shards.on_change = self._shards_changed

    @property
    def paused(self) -> Sequence[str]:
        """Destinations, and `destination type` pairs, that are left alone for now."""
        return self._pauses.paused(self._clock.monotonic())

    def measures(self) -> Iterator[Measure]:
        """Yield what was published, what is on its way, and how much is left alone."""
        for (destination, outcome), count in list(self.answers.items()):
            yield PUBLISHED, (str(destination), outcome.__name__.removesuffix("Error").lower()), count
        yield IN_FLIGHT, (), len(self._in_flight)
        yield PAUSED, (), len(self.paused)

    async def run_once(self) -> int:
        """Ship and settle one batch, or wait at most a second for something to do. May be killed at any line."""
        has_fetched = await self._fetch()
        if self._is_alone:
            await self._send_alone()
        self._pump()
        settled = await self._settle()
        if has_fetched:
            self._poll_seconds = limits.POLL_FIRST_SECONDS
        else:
            await self._wait()
        return settled

    async def drain(self) -> None:
        """Send nothing more; wait for the answers to what is in flight and delete what was confirmed."""
        self._is_draining = True
        self._forget_unsent()
        deadline = self._clock.monotonic() + _FLUSH_SECONDS
        while self._known and self._clock.monotonic() < deadline:
            self._delete_at = 0.0
            await self._settle()
            if self._in_flight:
                await self._until_stirred(deadline - self._clock.monotonic())
        if self._suspects is not None:
            await self._suspects.leave()
        failpoint("drain.after_flush")

    async def stop(self) -> None:
        """Forget everything in memory; the rows are in the store."""
        self._is_draining = True
        self._forget_unsent()

    # --- read ------------------------------------------------------------------------------------------------------

    async def _fetch(self) -> bool:
        """Read ready rows into the buffer if it has room; True if any came."""
        held = self._shards.held()
        waiting = len(self._known) - len(self._in_flight) - len(self._confirmed)
        has_room = waiting < self._fetch_rows // 2 and len(self._confirmed) < limits.CONFIRMED_UNDELETED_MAX
        if not held or self._is_draining or not has_room:
            return False
        if self._suspects is not None:
            if held.keys() - self._held:
                await self._suspects.look()
            self._held = set(held)
            await self._suspects.forget_when_due()
        generation = self._generation
        self._progress.hold({int(name): fence.epoch for name, fence in held.items()}, self._clock.monotonic())
        await self._promote_due()
        now = self._clock.monotonic()
        paused = self._pauses.paused(now)
        cursors = self._progress.begin(paused, now)
        skip = [ref.id for ref in self._known if ref.id > cursors.get(ref.shard, 0)]
        page = await self._outbox.fetch(cursors, paused, -(-self._fetch_rows // len(held)), skip)
        if generation != self._generation:
            return True  # a row before these failed, or its shard went, while they were read
        failpoint("relay.after_fetch")
        if not self._progress.note(page, self._clock.monotonic()):
            return True  # a late writer has ended: its rows go before some of these
        return self._take(page.rows) or (page.has_more and self._progress.cursors != cursors)

    async def _promote_due(self) -> None:
        try:
            for ref in await self._outbox.promote_due(self._progress.cursors):
                self._progress.go_back(ref)
        except BaseException:
            self._progress = Progress()  # the answer that is lost may have named rows that nobody names again
            raise

    def _take(self, rows: Sequence[OutboxRow]) -> bool:
        size = 0
        before = len(self._known)
        for row in rows:
            if row.ref not in self._known:
                self._known.add(row.ref)
                self._buffer.append(row)
                size += len(row.outgoing.message.body)
        # large bodies: read fewer rows at a time, so that memory stays bounded in bytes too
        if size > limits.PUBLISH_WINDOW_BYTES_MAX:
            self._fetch_rows = max(2, self._fetch_rows // 2)
        elif size < limits.PUBLISH_WINDOW_BYTES_MAX // 4:
            self._fetch_rows = min(limits.RELAY_BATCH_ROWS_MAX, self._fetch_rows * 2)
        return len(self._known) > before

    # --- send ------------------------------------------------------------------------------------------------------

    @property
    def _is_alone(self) -> bool:
        return self._suspects is not None and self._suspects.is_alone

    async def _send_alone(self) -> None:
        """Send one row with nothing beside it, and leave a record should the process not live to see the answer."""
        if self._suspects is None or self._in_flight or self._answered or not self._buffer or not self._broker.room():
            return
        row = self._buffer[0]
        ended = await self._suspects.begin(row)
        if not self._buffer or self._buffer[0] is not row or self._is_draining:
            return await self._suspects.end(row)  # its shard went meanwhile
        if ended >= limits.CRASHES_MAX:
            self._buffer.popleft()
            text = f"{ended} times the process that published it ended before the answer"
            self._answered.append((row, GiveUp(CRASH_LOOP, text)))
        else:
            self._pump(only_one=True)
            while row.ref in self._in_flight:
                await self._until_stirred(limits.POLL_MAX_SECONDS)
        await self._settle()
        await self._suspects.end(row)

    def _pump(self, *, only_one: bool = False) -> None:
        """Hand buffered rows to the broker while it has room; also called by the sink, so it never waits."""
        if not self._buffer or self._is_draining or (self._is_alone and not only_one):
            return
        room = min(1, self._broker.room()) if only_one else self._broker.room()
        trusted = self._shards.held() if room else {}
        now = self._clock.monotonic()
        sent = 0
        traced = None if tracing.tracer() is None else list[OutboxRow]()
        while self._buffer and sent < room:
            row = self._buffer.popleft()
            outgoing = row.outgoing
            key = _key_of(row)
            if key is not None and key in self._keys_in_flight:
                self._followers.setdefault(key, deque()).append(row)
            elif shard_name(row.ref.shard) not in trusted or not self._pauses.admit(
                outgoing.destination, outgoing.message.type, now
            ):
                self._forget(row)
                self._forget_unsent()  # its followers must not overtake it when it may be sent again
                break
            elif self._submit(row, key, now):
                sent += 1
                if traced is not None:
                    traced.append(row)
            else:
                break
        if traced:
            _trace(traced)
        if sent:
            failpoint("relay.after_write")

    def _submit(self, row: OutboxRow, key: Key | None, now: float) -> bool:
        self._in_flight[row.ref] = now
        try:
            self._broker.submit(row.outgoing, row, self._sink)
        except (WindowFull, BrokerUnavailable):
            del self._in_flight[row.ref]
            self._buffer.appendleft(row)
            return False
        except EncodeError as error:
            del self._in_flight[row.ref]
            self.answers[row.outgoing.destination, EncodeError] += 1
            self._answered.append((row, GiveUp("encode", str(error))))
        if key is not None:
            self._keys_in_flight.add(key)
        return True

    def _sink(self, results: Sequence[tuple[object, PublishOutcome]]) -> None:
        """Take answers from the broker, note them, and fill the room they made."""
        has_confirmed = False
        now = self._clock.monotonic()
        for token, outcome in results:
            row = cast(OutboxRow, token)  # what _submit passed
            sent_at = self._in_flight.pop(row.ref)
            self.answers[row.outgoing.destination, type(outcome)] += 1
            if isinstance(outcome, Confirmed):
                has_confirmed = True
                self._confirm_seconds.observe(now - sent_at)
                self._note_confirmed(row)
            else:
                self._answered.append((row, outcome))
        if has_confirmed:
            failpoint("relay.after_confirm")  # a crash here sends again, same ids: the inbox absorbs it
        self._pump()
        self._stirred.set()

    def _note_confirmed(self, row: OutboxRow) -> None:
        self._confirmed[row.ref] = None
        self._pauses.confirmed(row.outgoing.destination, row.outgoing.message.type)
        self._release_key(row)

    def _release_key(self, row: OutboxRow) -> None:
        key = _key_of(row)
        if key is None:
            return
        self._keys_in_flight.discard(key)
        followers = self._followers.get(key)
        if followers:
            self._buffer.appendleft(followers.popleft())
            if not followers:
                del self._followers[key]

    # --- settle ----------------------------------------------------------------------------------------------------

    async def _settle(self) -> int:
        """Write the fate of every answered row and delete the confirmed ones; returns how many rows that were."""
        settled = 0
        while self._answered:
            row, outcome = self._answered[0]
            await self._write_fate(row, outcome)
            self._answered.popleft()
            settled += 1
        now = self._clock.monotonic()
        if self._confirmed and (len(self._confirmed) >= limits.DELETE_BATCH_ROWS_MAX or now >= self._delete_at):
            refs = list(self._confirmed)
            failpoint("relay.before_delete")
            await self._outbox.remove(refs)
            failpoint("relay.after_delete")
            for ref in refs:
                del self._confirmed[ref]
                self._known.discard(ref)
            self._delete_at = self._clock.monotonic() + limits.DELETE_INTERVAL_SECONDS
            settled += len(refs)
        return settled

    async def _write_fate(self, row: OutboxRow, outcome: PublishOutcome | GiveUp) -> None:
        outgoing = row.outgoing
        destination, type_name = outgoing.destination, outgoing.message.type
        now = self._clock.monotonic()
        if isinstance(outcome, Returned):
            failpoint("relay.after_return")
            if not outgoing.may_be_unrouted:
                self._pauses.returned(destination, type_name, now)
        is_missing = self._pauses.is_missing(destination, type_name)
        fate = outcome if isinstance(outcome, GiveUp) else fate_of(row, outcome, is_paused=is_missing)
        if isinstance(fate, Remove):
            self._note_confirmed(row)
            return
        fence = self._shards.fence_for(shard_name(row.ref.shard))
        match fate:
            case DeferRow(seconds, error) if fence is not None:
                await self._outbox.defer(row.ref, seconds, error, fence)
                # others behind it wait for it; should it go by other means than its promotion, nobody calls them
                self._progress.revisit(self._clock.monotonic() + seconds, row.ref)
                failpoint("relay.after_defer")
                if isinstance(outcome, Returned):
                    self._folded.emit(
                        RelayReturned(
                            type=type_name,
                            destination=str(destination),
                            id=outgoing.message.id,
                            error=error,
                            attempt=row.attempts + 1,
                        )
                    )
            case GiveUp(reason, error) if fence is not None:
                failpoint("relay.before_give_up")
                consumer = await consumer_of(row, self._dead_letters)
                dead_letter = relay_dead_letter(
                    row, reason, error, consumer=consumer, now=self._clock.now(), id=self._ids.message_id()
                )
                await self._outbox.give_up(row.ref, dead_letter, fence)
                failpoint("relay.after_give_up")
                METER.add(RECORDED, (consumer, reason))
                emit(RelayGaveUp(id=outgoing.message.id, reason=reason, error=error))
            case Keep(rests="destination"):
                # an exchange leads to many queues, of which one declined: only what goes there waits
                is_shared = destination.kind in (Kind.EVENTS, Kind.EXCHANGE)
                self._pauses.rest(destination, type_name if is_shared else None, now)
                self._folded.emit(RelayNacked(destination=str(destination)))
            case Keep(rests="type"):
                self._pauses.rest(destination, type_name, now)  # the broker has said why
            case Keep() | DeferRow() | GiveUp():  # the last two without a fence: whoever has the lease now decides
                self._pauses.unanswered(destination, type_name, now)
            case _:
                assert_never(fate)
        self._forget(row)
        self._release_key(row)
        self._forget_unsent()

    # --- forget and wait ---------------------------------------------------------------------------------------------

    def _forget_unsent(self) -> None:
        """Drop every row that is not in flight and read them again: their order may have changed."""
        self._generation += 1
        for rows in (self._buffer, *self._followers.values()):
            for row in rows:
                self._forget(row)
        self._buffer.clear()
        self._followers.clear()

    def _forget(self, row: OutboxRow) -> None:
        self._known.discard(row.ref)
        self._progress.go_back(row.ref)

    def _shards_changed(self) -> None:
        self._forget_unsent()
        self._wakeup.notify()

    async def _wait(self) -> None:
        if self._in_flight or self._answered:
            await self._until_stirred(limits.POLL_FIRST_SECONDS)
        elif self._confirmed:
            await self._clock.sleep(max(0.0, self._delete_at - self._clock.monotonic()))
        elif self._buffer:
            await self._broker.wait_for_room(limits.POLL_MAX_SECONDS)
        elif await self._wakeup.wait(self._poll_seconds):
            self._poll_seconds = limits.POLL_FIRST_SECONDS
        else:
            self._poll_seconds = min(limits.POLL_MAX_SECONDS, 2 * self._poll_seconds)

    async def _until_stirred(self, seconds: float) -> None:
        self._stirred.clear()
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._stirred.wait()
        except TimeoutError:
            return


def _trace(rows: Sequence[OutboxRow]) -> None:
    for destination in dict.fromkeys(row.outgoing.destination for row in rows):
        batch = [row.outgoing.message for row in rows if row.outgoing.destination == destination]
        tracing.sent(str(destination), [(message.traceparent, message.tracestate) for message in batch])


def _key_of(row: OutboxRow) -> Key | None:
    key = row.outgoing.message.key
    return None if key is None else (row.outgoing.destination, key)
