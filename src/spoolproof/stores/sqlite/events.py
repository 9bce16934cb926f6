"""What is told of the SQLite store."""

from __future__ import annotations

from spoolproof.telemetry.events import WARNING, Event


class ProcessDead(Event, name="process.dead", level=WARNING, line="ids={ids}"):
    """Processes of this file have ended without drain; what they held is free."""

    ids: str
