"""What is told and measured of requests."""

from __future__ import annotations

from spoolproof.telemetry.events import WARNING, Event
from spoolproof.telemetry.metrics import counter, gauge

REQUESTS = counter("requests_total", "Requests by how they ended for who asked: answered, or timeout.", "outcome")
REQUESTS_WAITING = gauge("requests_waiting", "Requests of this process that wait for their answer.")


class AnsweredLate(
    Event,
    name="request.answered_late",
    level=WARNING,
    line="{type}, the answer to request {request_id}, came when nobody waited for it any more; what its handler did "
    "stands",
    counter="requests_answered_late_total",
    folds=("type",),
):
    """The answer to a request came after its timeout: who asked was told that the outcome is unknown, and now it is
    known."""

    type: str
    request_id: str
