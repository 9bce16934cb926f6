"""The dashboard of a service, for its own process: what it shows is the service as it runs when somebody asks."""

from __future__ import annotations

from starlette.requests import Request

from spoolproof.clock import SystemClock
from spoolproof.errors import NotStarted
from spoolproof.lifecycle.registrations import OwnHost
from spoolproof.web.access import Access, Asked, Caller, Closed, Refusal, Stateless, basic_of
from spoolproof.web.people import Principal
from spoolproof.web.settings import DashboardSettings
from spoolproof.web.site import Dashboard
from spoolproof.web.source import Source, source_of


def of_service(host: OwnHost, auth: Caller | None) -> Dashboard:
    """Return the dashboard of a service, to be mounted."""
    running = Running(host)
    return Dashboard(running.source, ByPasswords(running) if auth is None else Asked(auth), SystemClock())


class Running:
    """What a service is a source of, made once for each of its runs."""

    def __init__(self, host: OwnHost) -> None:
        self._host = host
        self._made: tuple[object, Source] | None = None

    def source(self) -> Source:
        """Return it. Raises NotStarted."""
        runtime = self._host.runtime()
        if not runtime.is_started:
            raise NotStarted(f"service {self._host.name!r} has not started, or has ended")
        if self._made is None or self._made[0] is not runtime or not self._made[1].process_id:
            self._made = (runtime, source_of(self._host.name, runtime))
        return self._made[1]


class ByPasswords(Stateless):
    """By the passwords of the settings that the service runs with; nobody before it does, or without one."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._made: tuple[object, Access] | None = None

    async def enter(self, request: Request) -> Principal | Refusal:
        """Let in who has a password."""
        try:
            source = self._running.source()
        except NotStarted:
            return Refusal(503, "the service starts or has ended; try again soon")
        if self._made is None or self._made[0] is not source.settings:
            basic = basic_of(source.settings.of(DashboardSettings), source.clock)
            self._made = (source.settings, basic or Closed())
        return await self._made[1].enter(request)
