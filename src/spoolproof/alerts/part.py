"""Alerts in one process: it tells its share of the facts, and judges all of them where it leads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from spoolproof.alerts import limits
from spoolproof.alerts.book import AlertFile, Book
from spoolproof.alerts.events import NOTIFICATIONS, AlertDelivered, AlertUndelivered
from spoolproof.alerts.judge import LEAD, Judge
from spoolproof.alerts.notify import Notifier, NotTaken
from spoolproof.alerts.settings import AlertSettings, rules_of
from spoolproof.alerts.sinks import make_sinks, request
from spoolproof.clock import Clock
from spoolproof.lifecycle.entry import Context, Entry
from spoolproof.lifecycle.loop import Loop
from spoolproof.lifecycle.membership import Holding
from spoolproof.lifecycle.part import Part
from spoolproof.telemetry.events import emit
from spoolproof.telemetry.folding import Folded
from spoolproof.telemetry.metrics import METER, Measure


class AlertsPart(Part):
    """The judge, and the heartbeat of whoever judges. Raises SettingsError for a URL or a number that cannot be."""

    needs_store = False  #: that the store is away is what people want to be told

    def __init__(self, of: Context) -> None:
        settings = of.settings.of(AlertSettings)
        rules, sinks = rules_of(settings), make_sinks(settings, of.clock)
        book = Book(of.service, of.store.state, of.the(AlertFile), clock=of.clock)
        notifier = Notifier(of.service, book, sinks, clock=of.clock, spawn=of.spawn)
        self._lead = Holding(f"alerts/{of.service}", [LEAD], of.clock, of.fence_seconds)
        self.judge = Judge(
            *(rules, book, notifier, of.store.state, of.store.leases, self._lead),
            process_id=of.process_id,
            clock=of.clock,
        )
        notifier.persist = self.judge.persist
        self._heartbeat = Heartbeat(settings.heartbeat_url.get_secret_value(), self.judge, of.clock)

    def holdings(self) -> Sequence[Holding]:
        """Return the lead."""
        return (self._lead,)

    def loops(self) -> Sequence[Loop]:
        """Return the judge, and the heartbeat where it is sent."""
        return (self.judge, self._heartbeat) if self._heartbeat.url else (self.judge,)

    def measures(self) -> Iterable[Measure]:
        """Return the judge's."""
        return self.judge.measures()


class Heartbeat(Loop):
    """Asks for a URL every five minutes, from the process that judges: silence is what its watchdog alarms for."""

    name = "alerts.heartbeat"

    def __init__(self, url: str, judge: Judge, clock: Clock) -> None:
        self.url = url
        self._judge = judge
        self._clock = clock
        self._folded = Folded(clock)
        self._sent_at: float | None = None

    async def run_once(self) -> int:
        """Send if it is time; an error, which may hold the URL, is told by its class."""
        await self._clock.sleep(limits.LOOK_SECONDS)
        now = self._clock.monotonic()
        is_time = self._sent_at is None or now - self._sent_at >= limits.HEARTBEAT_SECONDS
        if not is_time or not self._judge.is_judge:
            return 0
        try:
            await request("GET", self.url)
        except Exception as error:
            text = str(error) if isinstance(error, NotTaken) else type(error).__name__
            METER.add(NOTIFICATIONS, ("heartbeat", "failed"))
            self._folded.emit(AlertUndelivered(sink="heartbeat", error=text))
            return 0
        METER.add(NOTIFICATIONS, ("heartbeat", "sent"))
        self._sent_at = now
        if self._folded.has_told(AlertUndelivered, "heartbeat"):
            self._folded.over(AlertUndelivered, "heartbeat")
            emit(AlertDelivered(sink="heartbeat"))
        return 1


ALERTS = Entry(AlertsPart)
