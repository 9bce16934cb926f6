"""The event that a batch publishes with its end."""

from __future__ import annotations

import msgspec

from spoolproof.codec import event


@event("spoolproof.batch_finished", may_be_unrouted=True)
class BatchFinished(msgspec.Struct, frozen=True, kw_only=True):
    """A batch is over: none of its items is pending, or it was cancelled (state). The five numbers sum to the total."""

    batch_id: str
    job: str
    state: str
    total: int
    succeeded: int
    failed: int
    invalid: int
    unknown: int
    pending: int
