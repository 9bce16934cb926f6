"""What is told of the PostgreSQL store."""

from __future__ import annotations

from spoolproof.telemetry.events import Event


class WakeUpLost(
    Event, name="store.wakeup_lost", line="error={error}: other processes are noticed up to a second later"
):
    """The connection that listens for rows of other processes is gone."""

    error: str
