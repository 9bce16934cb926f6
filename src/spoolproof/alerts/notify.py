"""Tells people: straight from what is known of the alerts to the sinks, and never through the broker they are about.

There is no queue of notifications. Each alert remembers what each sink was last told of it; what differs from how it is
now is due, in groups by rule: 30 s after the first, five minutes after the last, and again every four hours. So an
outage of a sink, a restart and another judge all end in the same: what was told is not told again, what was not is.

Must never happen: a wait for a sink, in whoever judges. A URL in a log line: it holds the secret.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import msgspec

from spoolproof.alerts import limits
from spoolproof.alerts.book import Book
from spoolproof.alerts.engine import Alert, AlertState, Told, is_muted
from spoolproof.alerts.events import NOTIFICATIONS, AlertDelivered, AlertGivenUp, AlertUndelivered
from spoolproof.alerts.rule import Rule, Severity
from spoolproof.clock import Clock
from spoolproof.failpoints import failpoint
from spoolproof.ports.broker import Spawn
from spoolproof.telemetry.events import emit
from spoolproof.telemetry.folding import Folded
from spoolproof.telemetry.metrics import METER


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """One message to people. service: whose alerts these are, all of one rule. words: of each, by identity."""

    service: str
    rule: Rule
    alerts: tuple[Alert, ...]

    @property
    def is_firing(self) -> bool:
        """Whether any of them still is."""
        return any(one.state is AlertState.FIRING for one in self.alerts)

    @property
    def title(self) -> str:
        """One line."""
        state = "firing" if self.is_firing else "resolved"
        return f"[{self.rule.severity}] {self.service}: {self.rule.name} {state}"

    @property
    def body(self) -> str:
        """For each alert what is wrong and since when; then what is safe meanwhile and what to do."""
        lines = []
        for one in self.alerts[: limits.ALERTS_SHOWN]:
            words = self.rule.words(one.labels, one.value)
            since = (one.fired_at or one.since).isoformat(timespec="seconds").replace("+00:00", "Z")
            lines.append(f"{'Resolved' if one.state is AlertState.RESOLVED else 'Since ' + since}: {words['what']}")
        if len(self.alerts) > limits.ALERTS_SHOWN:
            lines.append(f"… and {len(self.alerts) - limits.ALERTS_SHOWN} more: spoolproof alert ls")
        if self.is_firing:
            words = self.rule.words(self.alerts[0].labels, self.alerts[0].value)
            lines += ["", words["safe"], words["remedy"]]
        return "\n".join(lines)


class Sink(Protocol):
    """Where people are told. id: stable, no secret; name: its kind. is_whole: it is given everything that fires, every
    minute, and groups by itself. severities: what it is told of."""

    id: str
    name: str
    is_whole: bool
    severities: frozenset[Severity]

    async def send(self, notes: Sequence[Notification]) -> None:
        """Tell. Raises anything if that was not taken; the text must hold no secret."""


class Notifier:
    """Finds what is due for whom, and sends it in tasks of its own. persist: keeps what was told."""

    def __init__(self, service: str, book: Book, sinks: Sequence[Sink], *, clock: Clock, spawn: Spawn) -> None:
        self._service = service
        self._book = book
        self._sinks = tuple(sinks)
        self._clock = clock
        self._spawn = spawn
        self._folded = Folded(clock)
        self._busy: set[str] = set()
        self._failures: dict[str, tuple[int, float]] = {}  # by sink: in a row, and when it is tried again
        self._whole: dict[str, tuple[float, object]] = {}  # by sink: when it was last given everything, and what
        self.persist: Callable[[], Awaitable[None]] = book.keep

    def turn(self, rules: Mapping[str, Rule]) -> None:
        """Start what is due now, one message at a time for each sink."""
        now = self._clock.now()
        for sink in self._sinks:
            if sink.id in self._busy or self._clock.monotonic() < self._failures.get(sink.id, (0, 0.0))[1]:
                continue
            notes = self._all(sink, rules, now) if sink.is_whole else self._next(sink, rules, now)
            if notes:
                self._busy.add(sink.id)
                self._spawn(self._send(sink, notes), f"alerts.{sink.name}")

    def _next(self, sink: Sink, rules: Mapping[str, Rule], now: datetime) -> list[Notification]:
        for name, rule in rules.items():
            group = [one for one in self._book.alerts.values() if one.rule == name and rule.severity in sink.severities]
            chosen = due(group, sink.id, now, lambda one: self.is_quiet(one, rules, now))
            if chosen:
                return [Notification(service=self._service, rule=rules[name], alerts=tuple(chosen))]
        return []

    def _all(self, sink: Sink, rules: Mapping[str, Rule], now: datetime) -> list[Notification]:
        """Return what fires, and what has ended since it was told; if that is news, or a minute has passed."""
        alerts = [
            one
            for one in self._book.alerts.values()
            if (one.state is AlertState.FIRING and not self.is_quiet(one, rules, now))
            or (one.state is AlertState.RESOLVED and _state_told(one, sink.id) is AlertState.FIRING)
        ]
        shown = [(one.identity, one.state) for one in alerts]
        sent_at, known = self._whole.get(sink.id, (-limits.WHOLE_SECONDS, None))
        if not alerts or (shown == known and self._clock.monotonic() - sent_at < limits.WHOLE_SECONDS):
            return []
        self._whole[sink.id] = self._clock.monotonic(), shown
        return [Notification(service=self._service, rule=rules[one.rule], alerts=(one,)) for one in alerts]

    def is_quiet(self, alert: Alert, rules: Mapping[str, Rule], now: datetime) -> bool:
        """Whether nobody is to be told of it: it is silenced, or another one that fires is its cause."""
        firing = [one for one in self._book.alerts.values() if one.state is AlertState.FIRING]
        return any(one.covers(alert, now) for one in self._book.silences.values()) or is_muted(
            alert, rules[alert.rule], firing
        )

    async def _send(self, sink: Sink, notes: Sequence[Notification]) -> None:
        error = ""
        try:
            async with asyncio.timeout(limits.SEND_SECONDS):
                await sink.send(notes)
        except TimeoutError:
            error = f"no answer within {limits.SEND_SECONDS:g} s"
        except Exception as caught:  # whatever a library raises; its text may hold the URL
            error = str(caught) if isinstance(caught, NotTaken) else type(caught).__name__
        finally:
            self._busy.discard(sink.id)
        if error:
            self._failed(sink, notes, error)
        else:
            failpoint("alert.after_send")
            METER.add(NOTIFICATIONS, (sink.name, "sent"))
            if self._failures.pop(sink.id, None) is not None:
                self._folded.over(AlertUndelivered, sink.name)
                emit(AlertDelivered(sink=sink.name))
            self._told(sink, notes, is_given_up=False)
        await self.persist()

    def _failed(self, sink: Sink, notes: Sequence[Notification], error: str) -> None:
        METER.add(NOTIFICATIONS, (sink.name, "failed"))
        self._folded.emit(AlertUndelivered(sink=sink.name, error=error))
        count = self._failures.get(sink.id, (0, 0.0))[0] + 1
        seconds = min(limits.RETRY_SECONDS_MAX, 2.0 ** min(count - 1, 16))
        self._failures[sink.id] = count, self._clock.monotonic() + seconds
        self._whole.pop(sink.id, None)
        now = self._clock.now()
        for note in notes:
            if any(now - one.since < timedelta(seconds=limits.GIVE_UP_SECONDS) for one in note.alerts):
                continue
            METER.add(NOTIFICATIONS, (sink.name, "given_up"))
            emit(AlertGivenUp(sink=sink.name, alert=note.rule.name))
            self._told(sink, [note], is_given_up=True)

    def _told(self, sink: Sink, notes: Iterable[Notification], *, is_given_up: bool) -> None:
        for sent in (one for note in notes for one in note.alerts):
            now = self._book.alerts.get(sent.identity)
            if now is not None:
                told = Told(state=sent.state, at=self._clock.now(), is_given_up=is_given_up)
                if sink.is_whole and (known := now.told.get(sink.id)) is not None and known.state is told.state:
                    continue  # it is told every minute: nothing to keep
                self._book.alerts[sent.identity] = msgspec.structs.replace(now, told={**now.told, sink.id: told})


class NotTaken(Exception):
    """A sink said no; the text is ours, without its URL."""


def due(group: Sequence[Alert], sink: str, now: datetime, is_quiet: Callable[[Alert], bool]) -> list[Alert]:
    """Return what a sink is told now of the alerts of one rule; nothing if it is not time."""
    news = [one for one in group if _is_news(one, sink) and (one.state is AlertState.RESOLVED or not is_quiet(one))]
    last = max((one.told[sink].at for one in group if sink in one.told), default=None)
    if news:
        at = min(one.since for one in news) + timedelta(seconds=limits.FIRST_SECONDS)
        if last is not None:
            at = max(at, last + timedelta(seconds=limits.FURTHER_SECONDS))
        return news if now >= at else []
    repeated = [
        one for one in group if one.state is AlertState.FIRING and not one.acknowledged_by and not is_quiet(one)
    ]
    is_time = last is not None and now - last >= timedelta(seconds=limits.REPEAT_SECONDS)
    return repeated if is_time else []


def _is_news(alert: Alert, sink: str) -> bool:
    if alert.state is AlertState.FIRING:
        return _state_told(alert, sink) is not AlertState.FIRING
    return alert.state is AlertState.RESOLVED and _state_told(alert, sink) is AlertState.FIRING


def _state_told(alert: Alert, sink: str) -> AlertState | None:
    told = alert.told.get(sink)
    return None if told is None else told.state
