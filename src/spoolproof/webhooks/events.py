"""What is told of webhooks."""

from __future__ import annotations

from spoolproof.telemetry.events import ERROR, WARNING, Event
from spoolproof.telemetry.metrics import counter, histogram

ATTEMPTS = counter(
    "webhook_attempts_total",
    "Requests to endpoints: delivered, failed (not taken, or no connection), unknown (no answer), blocked (where none "
    "may go).",
    *("endpoint", "outcome"),
)
SECONDS = histogram("webhook_delivered_seconds", "From handing a webhook over to the answer that it was taken.")


class WebhookFailed(
    Event, name="webhook.failed", level=WARNING, line="endpoint={endpoint} id={id} error={error}", folds=("endpoint",)
):
    """An attempt failed; the next comes by the schedule, and after the tenth it is a dead letter."""

    endpoint: str
    id: str
    error: str


class EndpointDisabled(
    Event,
    name="webhook.endpoint_disabled",
    level=ERROR,
    line="endpoint={endpoint} error={error}: it wants no more; what waits for it becomes dead letters, new events pass "
    "it by; spoolproof webhook resume {endpoint}",
):
    """An endpoint answered 410."""

    endpoint: str
    error: str


class EndpointPaused(
    Event,
    name="webhook.paused",
    level=ERROR,
    line="endpoint={endpoint} error={error}: it took nothing for 72 hours; its events wait; mend it, then: spoolproof "
    "webhook resume {endpoint}",
):
    """An endpoint failed for too long."""

    endpoint: str
    error: str
