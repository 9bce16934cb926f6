"""What work on batches that are stored is done with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from spoolproof.clock import Clock
from spoolproof.outbox.publish import Publisher
from spoolproof.ports.batches import Batches
from spoolproof.ports.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """publisher: of the service whose batches they are. stir: has somebody look whether a batch is over."""

    store: Store
    publisher: Publisher
    clock: Clock
    stir: Callable[[], None] = lambda: None

    @property
    def batches(self) -> Batches:
        """The tables."""
        return self.store.port(Batches)
