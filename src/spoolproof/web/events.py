"""What is told of the dashboard."""

from __future__ import annotations

from spoolproof.telemetry.events import Event


class DashboardListening(Event, name="dashboard.listening", line="url={url}"):
    """The dashboard answers from now on."""

    url: str


class ActDone(Event, name="dashboard.act", line="{action} {target}: {result} (by {actor})"):
    """Somebody acted through the dashboard; the audit trail has it too."""

    action: str
    target: str
    actor: str
    result: str
