"""How far a relay has read, so that it looks at nothing twice without a reason. Pure: time is passed in.

A cursor moves over what a page has seen, also over what the page left out. Four things lie behind it then, and each
has its way back:

- *Late writers.* A transaction gets its ids before it commits: below the cursor there may be rows that nobody could see
  when it passed. A page names the writers it could not see. While they are young the cursor waits for them, which takes
  milliseconds. One that is still at it after a second becomes a debt: the cursor moves on, remembers where it was, and
  goes back there once when that writer has ended. So a transaction somebody forgot costs one look back.
- *Pauses.* Rows of a paused destination were left out; when the pause ends, the cursor goes back to where it began.
- *Deferred rows*, and those behind them: the relay goes back to each row that is ready again.
- *What was read and forgotten unsent*: the relay goes back to it.

Order. Writers of one key that wait for each other, as those do that lock what they change, become visible in the order
of their ids. So a page that shows a debtor has ended is thrown away and read again from further back: it may hold rows
that were written after the late ones, and must go after them.

Must never happen: a cursor above a row that was neither read nor remembered in one of these ways.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from spoolproof import limits
from spoolproof.ports.outbox import Page, RowRef

_REVISIT_SECONDS = 2.0  #: our clock and the database's may count a deferral differently


@dataclass(frozen=True, slots=True)
class _Ahead:
    """Where the cursors may move to once these writers have ended."""

    seen_to: Mapping[int, int]
    unfinished: frozenset[int]
    since: float


class Progress:
    """The cursors of one relay, and what lies behind them."""

    def __init__(self) -> None:
        self._cursors: dict[int, int] = {}
        self._epochs: dict[int, int] = {}
        self._ahead: _Ahead | None = None
        self._debts: dict[int, dict[int, int]] = {}  #: writer → shard → where to go back to; bounded by open writers
        self._paused: frozenset[str] = frozenset()
        self._floors: dict[str, dict[int, int]] = {}  #: paused destination or pair → the same
        self._revisits: list[tuple[float, int, int]] = []  #: a heap of (time, shard, cursor); one per deferred row

    @property
    def cursors(self) -> dict[int, int]:
        """Shard → id up to which all is read; every shard that is held."""
        return dict(self._cursors)

    def hold(self, epochs: Mapping[int, int], now: float) -> None:
        """Note which shards are held, each under its epoch; one taken anew is read from the start.

        And once more when all that its former holder had deferred is due: a row it deferred may be removed by its late
        confirm, and what waits behind that row is then called back by nobody.
        """
        for shard in [shard for shard in self._epochs if self._epochs[shard] != epochs.get(shard)]:
            del self._epochs[shard], self._cursors[shard]
            for marks in (*self._debts.values(), *self._floors.values()):
                marks.pop(shard, None)
            self._revisits = [revisit for revisit in self._revisits if revisit[1] != shard]
            heapq.heapify(self._revisits)
        for shard in epochs.keys() - self._epochs.keys():
            self._epochs[shard] = epochs[shard]
            self._cursors[shard] = 0
            self.revisit(now + limits.UNROUTABLE_DELAYS_SECONDS[-1], RowRef(shard, 0))

    def go_back(self, ref: RowRef) -> None:
        """Read a row again, and what follows it."""
        self._lower(ref.shard, ref.id - 1)

    def revisit(self, at: float, ref: RowRef) -> None:
        """Go back to a row soon after `at`, whatever has become of it."""
        heapq.heappush(self._revisits, (at + _REVISIT_SECONDS, ref.shard, max(0, ref.id - 1)))

    def begin(self, paused: Collection[str], now: float) -> dict[int, int]:
        """Return the cursors a page is to be read from, leaving out what is paused."""
        self._paused = frozenset(paused)
        for ended in self._floors.keys() - self._paused:
            self._lower_all(self._floors.pop(ended))
        while self._revisits and self._revisits[0][0] <= now:
            _, shard, cursor = heapq.heappop(self._revisits)
            self._lower(shard, cursor)
        return self.cursors

    def note(self, page: Page, now: float) -> bool:
        """Move the cursors over a page read from where `begin` said. False: throw it away, read from further back."""
        if any(page.seen_to[shard] < cursor for shard, cursor in self._cursors.items()):
            self._start_over()  # the store has gone back in time, as a restored or promoted one does
            return False
        ended = [self._debts.pop(writer) for writer in self._debts.keys() - page.running]
        if any([self._lower_all(debt) for debt in ended]):
            return False
        unfinished = page.unfinished - self._debts.keys()
        ahead = self._ahead
        if not unfinished:
            self._ahead = None
            self._advance(page.seen_to, page.seen_to)
        elif ahead is None:
            self._ahead = _Ahead(page.seen_to, unfinished, now)
        elif not ahead.unfinished & unfinished:
            self._ahead = _Ahead(page.seen_to, unfinished, now)
            self._advance(ahead.seen_to, page.seen_to)
        elif now - ahead.since >= limits.LATE_WRITER_SECONDS:
            self._debts.update((writer, {}) for writer in ahead.unfinished & unfinished)
            self._ahead = None
            self._advance(ahead.seen_to, page.seen_to)
        return True

    def _advance(self, allowed: Mapping[int, int], seen_to: Mapping[int, int]) -> None:
        floors = [self._floors.setdefault(paused, {}) for paused in self._paused]
        for shard, before in self._cursors.items():
            cursor = min(allowed.get(shard, 0), seen_to[shard])
            if cursor > before:
                self._cursors[shard] = cursor
                for marks in (*self._debts.values(), *floors):
                    marks[shard] = min(marks.get(shard, before), before)

    def _lower(self, shard: int, cursor: int) -> bool:
        if cursor >= self._cursors.get(shard, 0):
            return False
        self._cursors[shard] = cursor
        return True

    def _lower_all(self, marks: Mapping[int, int]) -> bool:
        return any([self._lower(shard, cursor) for shard, cursor in marks.items()])

    def _start_over(self) -> None:
        self._cursors = dict.fromkeys(self._cursors, 0)
        self._ahead = None
        self._debts.clear()
        self._floors.clear()
