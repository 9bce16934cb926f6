"""Where people are told: what apprise can reach, Alertmanager, and a watchdog that misses us when we are silent.

What these libraries raise may hold the URL, which is a secret: it ends here.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from spoolproof.alerts import limits
from spoolproof.alerts.engine import AlertState
from spoolproof.alerts.notify import Notification, NotTaken, Sink
from spoolproof.alerts.rule import Severity
from spoolproof.alerts.settings import Targets
from spoolproof.clock import Clock
from spoolproof.errors import MissingExtra, SettingsError
from spoolproof.telemetry.logging import silence


class AppriseSink:
    """One URL of apprise: mail, Slack, Teams, ntfy, a phone. Raises ValueError, without the URL, for one it does not
    know; MissingExtra."""

    is_whole = False

    def __init__(self, url: str, severities: frozenset[Severity]) -> None:
        try:
            import apprise
        except ImportError as error:
            raise MissingExtra("apprise", "alerts") from error
        silence("apprise")  # it writes URLs
        self.id = _id_of(url)
        self.name = urlsplit(url).scheme or "apprise"
        self.severities = severities
        self._apprise: Any = apprise.Apprise()
        with warnings.catch_warnings():  # its plugins use modules that Python has taken away since
            warnings.simplefilter("ignore", DeprecationWarning)
            is_known = self._apprise.add(url)
        if not is_known:
            raise ValueError("is no URL that apprise knows")

    async def send(self, notes: Sequence[Notification]) -> None:
        """Send each as a message."""
        for note in notes:
            kind = "success" if not note.is_firing else "failure" if note.rule.severity is Severity.PAGE else "warning"
            if not await self._apprise.async_notify(title=note.title, body=note.body, notify_type=kind):
                raise NotTaken("it did not take the message")


class AlertmanagerSink:
    """Alertmanager, API v2: it groups, mutes and routes; what it hears nothing of for five minutes is over."""

    is_whole = True
    name = "alertmanager"
    severities = frozenset(Severity)

    def __init__(self, url: str, clock: Clock) -> None:
        self.id = _id_of(url)
        self._url = f"{url.rstrip('/')}/api/v2/alerts"
        self._clock = clock

    async def send(self, notes: Sequence[Notification]) -> None:
        """Post all of them at once."""
        await request("POST", self._url, [self._document(note) for note in notes])

    def _document(self, note: Notification) -> Mapping[str, object]:
        (alert,) = note.alerts
        ends_at = alert.since
        if alert.state is AlertState.FIRING:
            ends_at = self._clock.now() + timedelta(seconds=5 * limits.WHOLE_SECONDS)
        words = note.rule.words(alert.labels, alert.value)
        return {
            "labels": {
                "alertname": note.rule.name,
                "severity": note.rule.severity.value,
                "service": note.service,
                **alert.labels,
            },
            "annotations": {"summary": words["what"], "description": f"{words['safe']} {words['remedy']}"},
            "startsAt": (alert.fired_at or alert.since).isoformat(),
            "endsAt": ends_at.isoformat(),
        }


async def request(method: str, url: str, body: object = None) -> None:
    """Send one request. Raises NotTaken for an answer that is no success, MissingExtra, and aiohttp's errors."""
    try:
        import aiohttp
    except ImportError as error:
        raise MissingExtra("aiohttp", "alerts") from error
    limit = aiohttp.ClientTimeout(total=limits.SEND_SECONDS)
    async with (
        aiohttp.ClientSession(timeout=limit, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False) as session,
        session.request(method, url, json=body, allow_redirects=False) as response,
    ):
        if not 200 <= response.status < 300:
            raise NotTaken(f"it answered {response.status}")


def make_sinks(settings: Targets, clock: Clock) -> list[Sink]:
    """Return what the settings name. Raises SettingsError, which shows no URL; MissingExtra."""
    sinks: list[Sink] = []
    faults = []
    for severity, urls in ((Severity.PAGE, settings.page), (Severity.WARN, settings.warn)):
        for number, url in enumerate(urls, 1):
            try:
                sinks.append(AppriseSink(url, frozenset((severity,))))
            except ValueError as error:
                faults.append(
                    f"SPOOLPROOF_ALERT_URLS_{severity.upper()}: URL {number} {error}; the forms are at "
                    "https://github.com/caronc/apprise/wiki (it may hold a secret and is not shown)"
                )
    if faults:
        raise SettingsError(faults)
    if url := settings.alertmanager_url.get_secret_value():
        sinks.append(AlertmanagerSink(url, clock))
    if settings.alertmanager_url.get_secret_value() or settings.heartbeat_url.get_secret_value():
        _check_aiohttp()
    return sinks


def _check_aiohttp() -> None:
    try:
        import aiohttp  # noqa: F401
    except ImportError as error:
        raise MissingExtra("aiohttp", "alerts") from error


def _id_of(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()[:12]
