"""Endpoints on PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from spoolproof import limits
from spoolproof.ports.webhooks import Endpoint, EndpointState
from spoolproof.statements import load_statements
from spoolproof.stores.postgres.store import PostgresStore
from spoolproof.stores.values import storable

_SQL = load_statements(__package__, "webhooks.sql")


class PostgresWebhooks:
    def __init__(self, store: PostgresStore) -> None:
        self._upkeep = store.upkeep

    async def add(self, endpoint: Endpoint) -> bool:
        secrets, types = list(endpoint.secrets), list(endpoint.types)
        return await self._changed("add", endpoint.name, endpoint.url, secrets, types)

    async def all(self) -> Sequence[Endpoint]:
        return [
            Endpoint(
                name=row["name"],
                url=row["url"],
                secrets=tuple(row["secrets"]),
                types=tuple(row["types"]),
                state=EndpointState(row["state"]),
                failing_since=row["failing_since"],
                note=row["note"],
            )
            for row in await self._upkeep.fetch(_SQL["all"])
        ]

    async def change(self, name: str, state: EndpointState, note: str) -> bool:
        return await self._changed("change", name, state.value, storable(note))

    async def sign_with(self, name: str, secrets: Sequence[str]) -> bool:
        return await self._changed("sign_with", name, list(secrets))

    async def remove(self, name: str) -> bool:
        return await self._changed("remove", name)

    async def note(self, name: str, failure: str | None, pause_after_seconds: float) -> EndpointState | None:
        text = None if failure is None else storable(failure)
        state = await self._upkeep.fetch_value(_SQL["note"], name, text, pause_after_seconds)
        return None if state is None else EndpointState(state)

    async def waiting(self) -> Mapping[str, int]:
        rows = await self._upkeep.fetch(_SQL["waiting"], limits.ROWS_COUNTED_MAX)
        return {row["name"]: row["rows"] for row in rows}

    async def _changed(self, name: str, *values: object) -> bool:
        return await self._upkeep.execute(_SQL[name], *values) == 1
