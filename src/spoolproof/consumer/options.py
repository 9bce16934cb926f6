"""What may be said of a handler: one list for whoever registers one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict

from spoolproof.consumer.policy_gate import GatingPolicy


class HandlerOptions(TypedDict, total=False):
    """The keyword arguments of `Service.on`; wrap it with `**options: Unpack[HandlerOptions]`."""

    queue: str | None
    """Default `<service>.<function>`."""
    timeout: float
    """Seconds an attempt may take. Default 30."""
    concurrency: int
    """Handlers at once in this process. Default 10."""
    prefetch: int | None
    """Unacked deliveries. Default 2 × concurrency, 10 × concurrency when ordered."""
    attempts: int | None
    """Before the dead letter. Default 8, 7 when ordered."""
    delays: Sequence[float] | None
    """Seconds before attempts 3, 4, … (2, 3, … when ordered), rounded up to 1, 5, 15, 60, 300, 900, 3600 or 21600; the
    last repeats."""
    dedupe: Literal["inbox", "none"] | str
    """`inbox`, the default, or `none`: at least once, without a transaction."""
    gate: GatingPolicy | Sequence[GatingPolicy]
    """A policy that every message of the queue needs, or several: while its breaker is open the queue is left alone,
    uncounted."""
    on_unknown: Literal["retry", "park"] | str | None
    """For handlers without a `Transaction`: claims each run, so that no two processes run a message at once, and says
    what follows when one ended in it: `retry` under the same idempotency key, or `park` as a dead letter for a
    person."""
    ordered: bool
    """Messages of one ordering key run one after the other, in the order they were published, in one process at a time;
    a failed one is tried again in its place."""
    on_key_failure: Literal["skip", "hold_key"] | str
    """When an ordered message was given up, its key goes on (`skip`, the default), or waits until it was replayed with
    success or discarded."""
    formerly: Sequence[str]
    """Queues this handler had before it was renamed: what is in them is handled as if it were in this one, and nothing
    more comes into them."""
