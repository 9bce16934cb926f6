"""What is told of batches."""

from __future__ import annotations

from spoolproof.telemetry.events import WARNING, Event
from spoolproof.telemetry.metrics import counter, gauge, histogram

BATCHES = gauge("batches", "Batches that are kept, by state; told by one process of the service.", "job", "state")
ITEMS = counter("batch_items_total", "Items that came to a state here; once more for each replay.", "job", "state")
ITEM_SECONDS = histogram("batch_item_seconds", "How long a run of an item took that succeeded.", "job")


class BatchEnded(
    Event,
    name="batch.ended",
    line="job={job} id={id} state={state} total={total} succeeded={succeeded} failed={failed} invalid={invalid} "
    "unknown={unknown} pending={pending}{by}",
    counter="batches_ended_total",
    labels=("job", "state"),
):
    """Batches that are over."""

    job: str
    id: str
    state: str
    total: int
    succeeded: int
    failed: int
    invalid: int
    unknown: int
    pending: int
    by: str = ""


class BatchReplayed(Event, name="batch.replayed", line="job={job} id={id} items={items} actor={actor} reason={reason}"):
    """Items of a batch were sent again."""

    job: str
    id: str
    items: int
    actor: str
    reason: str


class ItemLost(
    Event,
    name="batch.item_given_up",
    level=WARNING,
    line="job={job} id={id} item={item} error={error}: it became a dead letter before its handler saw it",
    counter="batch_items_given_up_total",
    labels=("job",),
):
    """Items that became dead letters elsewhere than in their handler: in the relay, in the broker, or in a process that
    ended over them."""

    job: str
    id: str
    item: str
    error: str
