"""Looks at the facts every five seconds and moves the alerts: in every process its own share, in one all of them.

Who judges: the process with the lease, and while the store is away one of each machine, by the file (`book`). It takes
the shares of all processes that live; one that is gone without having said so has crashed. While the store is away
it judges by its own share and the last it read of the others, and lets alone what nobody tells: no row is no news.

Must never happen: an alert that needs what it reports. Nothing here goes through the broker, or waits for a sink.
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from spoolproof.alerts import limits
from spoolproof.alerts.book import EXITS, SHARE, Book, ShareRow
from spoolproof.alerts.engine import (
    Alert,
    AlertState,
    Shares,
    follow,
    identity_of,
    shares_of,
    values_of,
)
from spoolproof.alerts.events import ALERTS, CLOCK_SKEW, PROCESS_EXITS, AlertFired, AlertResolved, ProcessCrashed
from spoolproof.alerts.fact import History, Rise
from spoolproof.alerts.notify import Notifier
from spoolproof.alerts.rule import Rule, Severity
from spoolproof.clock import Clock, is_replaced
from spoolproof.errors import NotStarted, StoreUnavailable
from spoolproof.lifecycle.loop import Loop
from spoolproof.lifecycle.membership import Holding
from spoolproof.ports.leases import Leases
from spoolproof.ports.state import State
from spoolproof.telemetry.events import ERROR, WARNING, emit
from spoolproof.telemetry.metrics import METER, Labels, Measure, Sample

LEAD = "judge"
_SHARE_BYTES_MAX = 48 * 1024  #: a row of the store takes 64 KiB
_EXITS_MAX = 50


class Judge(Loop):
    """The loop. rules: with the numbers of the settings. samples: what is measured in this process."""

    name = "alerts"

    def __init__(
        self,
        rules: Sequence[Rule],
        book: Book,
        notifier: Notifier,
        state: State,
        leases: Leases,
        lead: Holding,
        *,
        process_id: Callable[[], UUID],
        clock: Clock,
        samples: Callable[[], Iterable[Sample]] = METER.samples,
    ) -> None:
        self._rules = {rule.name: rule for rule in rules}
        self.book = book
        self._notifier = notifier
        self._state = state
        self._leases = leases
        self._lead = lead
        self._process_id = process_id
        self._clock = clock
        self._samples = samples
        facts = [fact for rule in rules for fact in (rule.fact, rule.when) if fact is not None]
        windowed = {
            name for fact in facts if fact.seconds for name in (fact.metric, getattr(fact, "whole", "")) if name
        }
        self._history = History(windowed)
        self._others: list[Shares] = []  # as they were last read
        self._written: tuple[str, bytes, float] | None = None  # this process's row: name, value, when
        self.is_judge = False
        self._is_away = False
        self.name_in_file = f"{socket.gethostname()}:{os.getpid()}"
        self._put_at: tuple[datetime, datetime] | None = None
        self.skew_seconds: float | None = None

    async def start(self) -> None:
        """Take what was counted before for the beginning."""
        self._history.take(self._samples(), self._clock.monotonic())

    async def run_once(self) -> int:
        """Rest, then look once."""
        await self._clock.sleep(limits.LOOK_SECONDS)
        return await self.look_once()

    async def look_once(self) -> int:
        """Measure, tell, and judge where this process does; returns how many alerts there are."""
        self._history.take(self._samples(), self._clock.monotonic())
        own = shares_of(self._rules.values(), self._history)
        try:
            await self._look(own)
        except StoreUnavailable:  # the loops that need it tell of it
            self._is_away = True
            self.is_judge = self.book.judges_by_file(self.name_in_file) or (self.is_judge and self.book.has_no_file)
            if self.is_judge:
                self._move([own, *self._others], holds=True)
                self._notifier.turn(self._rules)
                self.book.keep_in_file(self.name_in_file)
        return len(self.book.alerts)

    async def persist(self) -> None:
        """Keep what was told, at once: a restart must not tell it again."""
        if self._is_away:
            self.book.keep_in_file(self.name_in_file)
            return
        with suppress(StoreUnavailable):
            await self.book.keep()

    async def drain(self) -> None:
        """Say that this process ends as it should. Raises StoreUnavailable."""
        if self._written is not None:
            row = ShareRow(host=socket.gethostname(), pid=os.getpid(), is_drained=True)
            await self._state.put(self.book.kind, self._written[0], msgspec.json.encode(row))
            self._written = None

    def measures(self) -> Iterator[Measure]:
        """Yield the alerts, in the process that judges, and the skew of this machine."""
        if self.is_judge:
            for rule in self._rules.values():
                counts = Counter(one.state for one in self.book.alerts.values() if one.rule == rule.name)
                for state in (AlertState.PENDING, AlertState.FIRING):
                    yield ALERTS, (rule.name, rule.severity.value, state.value), counts[state]
        if self.skew_seconds is not None:
            yield CLOCK_SKEW, (), self.skew_seconds

    # --- with the store ----------------------------------------------------------------------------------------------

    async def _look(self, own: Shares) -> None:
        judges = self._lead.fence_for(LEAD) is not None
        await self._tell_share({} if judges else own)
        takes_over = not judges or not self.is_judge
        await self.book.look(takes_over=takes_over)
        self._measure_skew()
        self.is_judge = judges
        if not judges:
            self._is_away = False
            return
        if takes_over or self._is_away:
            self.book.join_copy()
        self._is_away = False
        self._others = [_shares(row) for row in await self._living_shares()]
        self._move([own, *self._others], holds=False)
        self._notifier.turn(self._rules)
        self._drop_what_is_over()
        await self.book.keep()
        await self.book.forget_silences()

    async def _tell_share(self, own: Shares) -> None:
        """Write this process's row where it says something new, and now and then because it lives."""
        try:
            name = f"{SHARE}{self._process_id()}"
        except NotStarted:
            raise StoreUnavailable("the store was not reached yet") from None
        row = ShareRow(host=socket.gethostname(), pid=os.getpid(), shares=_travelling(own))
        value = msgspec.json.encode(row)
        if len(value) > _SHARE_BYTES_MAX:  # hundreds of labels: those of one rule say as much
            value = msgspec.json.encode(msgspec.structs.replace(row, shares={k: v[:20] for k, v in row.shares.items()}))
        now = self._clock.monotonic()
        written = self._written
        if written is not None and written[0] != name:
            await self._state.remove(self.book.kind, written[0])  # it goes on under a new id: nobody has crashed
            written = None
        if written is None or written[1] != value or now - written[2] >= limits.SHARE_SECONDS:
            began = self._clock.now()
            await self._state.put(self.book.kind, name, value)
            self._written = (name, value, now)
            self._put_at = began, self._clock.now()

    def _measure_skew(self) -> None:
        """Compare the moment at which a row was written by both clocks."""
        if self._written is None or self._put_at is None or is_replaced():
            return
        (began, ended), self._put_at = self._put_at, None
        at = self.book.read_back.get(self._written[0])
        if at is not None and ended - began < timedelta(seconds=0.5):
            self.skew_seconds = max(0.0, (began - at).total_seconds(), (at - ended).total_seconds())

    async def _living_shares(self) -> list[ShareRow]:
        """Return the rows of the other processes that live; count those that do not, and forget them."""
        living = {str(one.id) for one in await self._leases.processes()}
        gone = {id: row for id, row in self.book.shares.items() if row.is_drained or id not in living}
        gone.pop(self._me, None)  # our own lease has run out; we are not gone
        crashed = {id: row for id, row in gone.items() if not row.is_drained and id not in self.book.exits}
        if crashed:
            known = list(self.book.exits.items())[-_EXITS_MAX:]
            self.book.exits = dict(known) | dict.fromkeys(crashed, self._clock.now())
            await self._state.put(self.book.kind, EXITS, msgspec.json.encode(self.book.exits))
        for id, row in crashed.items():
            METER.add(PROCESS_EXITS, ("crashed",))
            emit(ProcessCrashed(id=id, host=row.host, pid=row.pid))
        for id, row in gone.items():
            if await self._state.remove(self.book.kind, SHARE + id) and row.is_drained:
                METER.add(PROCESS_EXITS, ("drained",))
        return [row for id, row in self.book.shares.items() if id not in gone and id != self._me]

    @property
    def _me(self) -> str:
        return "" if self._written is None else self._written[0].removeprefix(SHARE)

    def _drop_what_is_over(self) -> None:
        """Forget what everybody knows to be over; for a while it is kept, so that what comes and goes is one story."""
        now = self._clock.now()
        for identity, one in list(self.book.alerts.items()):
            is_told = not any(told.state is AlertState.FIRING for told in one.told.values())
            is_over = one.state is AlertState.RESOLVED and now - one.since >= timedelta(seconds=limits.FURTHER_SECONDS)
            if is_over and is_told:
                del self.book.alerts[identity]

    # --- with or without ---------------------------------------------------------------------------------------------

    def _move(self, shares: Sequence[Shares], *, holds: bool) -> None:
        """Follow every alert. holds: what nobody tells stays as it is."""
        now = self._clock.now()
        for rule in self._rules.values():
            values = self._values(rule, shares, now)
            known = {
                tuple(one.labels[name] for name in rule.fact.labels): one
                for one in self.book.alerts.values()
                if one.rule == rule.name and one.labels.keys() == set(rule.fact.labels)
            }
            for key in {**values, **known}:
                if holds and key not in values:
                    continue
                labels = dict(zip(rule.fact.labels, key, strict=True))
                before = known.get(key)
                after = follow(rule, labels, before, values.get(key), now)
                self._note(rule, identity_of(rule.name, labels), before, after, now)
        for identity in [one for one, alert in self.book.alerts.items() if alert.rule not in self._rules]:
            del self.book.alerts[identity]  # switched off, or of another release

    def _values(self, rule: Rule, shares: Sequence[Shares], now: datetime) -> Mapping[Labels, float]:
        if isinstance(rule.fact, Rise) and rule.fact.metric == PROCESS_EXITS.name:
            since = now - timedelta(seconds=rule.fact.seconds)
            return {(): sum(at > since for at in self.book.exits.values())}
        return values_of(rule, shares, now)

    def _note(self, rule: Rule, identity: str, before: Alert | None, after: Alert | None, now: datetime) -> None:
        if after is None:
            self.book.alerts.pop(identity, None)
            return
        ack = self.book.acks.get(identity)
        if ack is not None and after.fired_at is not None and ack.at >= after.fired_at:
            after = msgspec.structs.replace(after, acknowledged_by=ack.author)
        self.book.alerts[identity] = after
        if before is not None and before.state is after.state:
            return
        level = ERROR if rule.severity is Severity.PAGE else WARNING
        if after.state is AlertState.FIRING:
            words = rule.words(after.labels, after.value)
            emit(AlertFired(alert=identity, severity=rule.severity, **words), level=level)
        elif after.state is AlertState.RESOLVED and before is not None and before.fired_at is not None:
            seconds = (now - before.fired_at).total_seconds()
            emit(AlertResolved(alert=identity, severity=rule.severity, seconds=seconds), level=level)


def _travelling(shares: Shares) -> dict[str, list[tuple[list[str], list[float]]]]:
    return {rule: [(list(labels), list(parts)) for labels, parts in one.items()] for rule, one in shares.items()}


def _shares(row: ShareRow) -> Shares:
    return {rule: {tuple(labels): tuple(parts) for labels, parts in one} for rule, one in row.shares.items()}
