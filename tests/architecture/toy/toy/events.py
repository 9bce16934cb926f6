"""What is told of toys."""

from __future__ import annotations

from spoolproof.telemetry.events import Event
from spoolproof.telemetry.metrics import gauge

TOYS = gauge("toys", "Toys there are.")


class ToysWound(Event, name="toy.wound", line="toys={toys}: every toy was wound up", counter="toys_wound_total"):
    """The process that leads has wound up every toy."""

    toys: int
