"""The memory store's endpoints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING

from spoolproof import limits
from spoolproof.destination import Kind
from spoolproof.ports.webhooks import ALL_TYPES, Endpoint, EndpointState

if TYPE_CHECKING:
    from spoolproof.stores.memory.store import MemoryStore

ENDPOINTS = "webhook_endpoint"


def is_wanted(endpoint: Endpoint, type: str) -> bool:
    """Tell whether an event of a type has a row for an endpoint."""
    has_type = type in endpoint.types or ALL_TYPES in endpoint.types
    return has_type and endpoint.state is not EndpointState.DISABLED


class MemoryWebhooks:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def add(self, endpoint: Endpoint) -> bool:
        async with self._store.transaction() as tx:
            return tx.table(ENDPOINTS).setdefault(endpoint.name, endpoint) is endpoint

    async def all(self) -> Sequence[Endpoint]:
        return [endpoint for _, endpoint in sorted(self._store.table(ENDPOINTS).items())]

    async def change(self, name: str, state: EndpointState, note: str) -> bool:
        async with self._store.transaction() as tx:
            known: Endpoint | None = tx.table(ENDPOINTS).get(name)
            if known is None:
                return False
            since = None if state is EndpointState.ACTIVE else known.failing_since
            tx.table(ENDPOINTS)[name] = replace(known, state=state, note=note, failing_since=since)
            return True

    async def sign_with(self, name: str, secrets: Sequence[str]) -> bool:
        async with self._store.transaction() as tx:
            known: Endpoint | None = tx.table(ENDPOINTS).get(name)
            if known is None:
                return False
            tx.table(ENDPOINTS)[name] = replace(known, secrets=tuple(secrets))
            return True

    async def remove(self, name: str) -> bool:
        async with self._store.transaction() as tx:
            return tx.table(ENDPOINTS).pop(name, None) is not None

    async def note(self, name: str, failure: str | None, pause_after_seconds: float) -> EndpointState | None:
        async with self._store.transaction() as tx:
            known: Endpoint | None = tx.table(ENDPOINTS).get(name)
            if known is None:
                return None
            state, now = known.state, self._store.clock.now()
            since = None if failure is None else known.failing_since or now
            has_failed_long = since is not None and now - since >= timedelta(seconds=pause_after_seconds)
            if state is EndpointState.ACTIVE and has_failed_long:
                state = EndpointState.PAUSED
            if known.state is EndpointState.ACTIVE:
                known = replace(known, note=failure or "")
            tx.table(ENDPOINTS)[name] = replace(known, state=state, failing_since=since)
            return state

    async def waiting(self) -> Mapping[str, int]:
        destinations = (row.outgoing.destination for row in self._store.table("outbox").values())
        names = (one.name for one in destinations if one.kind is Kind.WEBHOOK)
        return Counter(islice(names, limits.ROWS_COUNTED_MAX))
