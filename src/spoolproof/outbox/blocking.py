"""`publish_sync`: an event through a user's own transaction, on a thread that has no event loop."""

from __future__ import annotations

import threading
from typing import Protocol

from spoolproof.clock import Clock
from spoolproof.ids import Ids
from spoolproof.message import Outgoing
from spoolproof.outbox.around import PublishAround
from spoolproof.outbox.options import PublishOptions
from spoolproof.outbox.publish import compose
from spoolproof.outbox.receipt import Place, Receipt, receipt_of


class Append(Protocol):
    """Adds a row in a user's transaction."""

    def __call__(self, outgoing: Outgoing, transaction: object) -> None: ...  # noqa: D102


class BlockingPublisher:
    """Publishes for one service, from any thread."""

    def __init__(self, append: Append, *, source: str, clock: Clock, around: PublishAround) -> None:
        self._append = append
        self._around = around
        self._source = source
        self._clock = clock
        self._own = threading.local()  # ids are made by one thread each

    def publish(self, payload: object, options: PublishOptions, transaction: object) -> Receipt:
        """Publish with the user's transaction. Raises as `Service.publish_sync`."""
        ids = getattr(self._own, "ids", None)
        if ids is None:
            ids = self._own.ids = Ids(self._clock)
        outgoing = compose(payload, options, source=self._source, clock=self._clock, ids=ids)

        def keep(outgoing: Outgoing) -> Receipt:
            self._append(outgoing, transaction)
            return receipt_of(outgoing, Place.TRANSACTION)

        return self._around.through_at_once(outgoing, keep) if self._around else keep(outgoing)
