"""The dashboard in a process of its service: `service.dashboard(auth=…)`, to be mounted. It runs nothing of its own.

What it needs beyond the package is imported when somebody asks for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from spoolproof.errors import MissingExtra
from spoolproof.lifecycle.entry import Context, Entry
from spoolproof.lifecycle.part import Part
from spoolproof.lifecycle.registrations import Facet, OwnHost

if TYPE_CHECKING:
    from spoolproof.web.access import Caller
    from spoolproof.web.site import Dashboard


class DashboardPart(Part):
    """Nothing: the host's server runs it."""

    def __init__(self, of: Context) -> None:
        """Take nothing of a process."""


class DashboardFacet(Facet):
    """`service.dashboard(…)`."""

    def __call__(self, *, auth: Caller | None = None) -> Dashboard:
        """Return the dashboard as an ASGI application: `app.mount("/ops", service.dashboard(auth=…))`.

        auth: a function of the Starlette request, plain or async, that returns a `spoolproof.web.people.Principal`, or
        None for nobody. Default: the passwords of the service's settings (SPOOLPROOF_DASHBOARD_PASSWORD and its like);
        without those nobody gets in. Usable before the start. Raises MissingExtra.
        """
        try:
            from spoolproof.web.mount import of_service
        except ImportError as error:
            raise MissingExtra(error.name or "starlette", "web") from error
        return of_service(cast(OwnHost, self.host), auth)


DASHBOARD = Entry(DashboardPart, facet=DashboardFacet)
