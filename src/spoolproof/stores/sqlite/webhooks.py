"""Endpoints on SQLite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from spoolproof import limits
from spoolproof.ports.webhooks import Endpoint, EndpointState
from spoolproof.sqlite import load_statements
from spoolproof.stores.sqlite.store import SqliteStore
from spoolproof.stores.sqlite.times import instant_of
from spoolproof.stores.values import storable

_SQL = load_statements(__package__, "webhooks.sql")
_texts = msgspec.json.Decoder(tuple[str, ...])


class SqliteWebhooks:
    def __init__(self, store: SqliteStore) -> None:
        self._database = store.database

    async def add(self, endpoint: Endpoint) -> bool:
        return await self._changed("add", endpoint.name, endpoint.url, _json(endpoint.secrets), _json(endpoint.types))

    async def all(self) -> Sequence[Endpoint]:
        rows = await self._database.read(lambda connection: connection.execute(_SQL["all"]).fetchall())
        return [
            Endpoint(
                name=name,
                url=url,
                secrets=_texts.decode(secrets),
                types=_texts.decode(types),
                state=EndpointState(state),
                failing_since=None if since is None else instant_of(since),
                note=note,
            )
            for name, url, secrets, types, state, since, note in rows
        ]

    async def change(self, name: str, state: EndpointState, note: str) -> bool:
        return await self._changed("change", name, state.value, storable(note))

    async def sign_with(self, name: str, secrets: Sequence[str]) -> bool:
        return await self._changed("sign_with", name, _json(secrets))

    async def remove(self, name: str) -> bool:
        return await self._changed("remove", name)

    async def note(self, name: str, failure: str | None, pause_after_seconds: float) -> EndpointState | None:
        values = (name, failure and storable(failure), pause_after_seconds)
        rows = await self._database.write(lambda connection: connection.execute(_SQL["note"], values).fetchall())
        return EndpointState(rows[0][0]) if rows else None

    async def waiting(self) -> Mapping[str, int]:
        values = (limits.ROWS_COUNTED_MAX,)
        return dict(await self._database.read(lambda db: db.execute(_SQL["waiting"], values).fetchall()))

    async def _changed(self, name: str, *values: str) -> bool:
        return await self._database.write(lambda connection: connection.execute(_SQL[name], values).rowcount == 1)


def _json(values: Sequence[str]) -> str:
    return msgspec.json.encode(values).decode()
