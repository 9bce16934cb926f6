"""Where Redis is: at an address, or where sentinels or the nodes of a cluster say, asked anew for every connection.

All keys of a service lie in one slot of a cluster, so that the scripts can run; what is looked for is the one node that
has it. A connection to a server that has been demoted, or has given the slot away, ends with the first answer that says
so, and the next one is made to where it is now.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from spoolproof.urls import Seeds

Find = Callable[[], Awaitable[tuple[str, int]]]
_MOVED = ("READONLY", "MOVED", "ASK", "CLUSTERDOWN", "MASTERDOWN")


def pool_options(seeds: Seeds, key: str, seconds: float) -> dict[str, Any]:
    """Return what makes a connection pool find its server. key: of the service's slot in a cluster. seconds: that
    sentinels and nodes have for an answer."""
    import redis.asyncio as redis
    from redis import exceptions

    find = _by_sentinels(seeds, seconds) if seeds.scheme == "redis+sentinel" else _in_cluster(seeds, key, seconds)

    class Found(redis.Connection):
        async def connect(self) -> None:
            if not self.is_connected:
                self.host, self.port = await find()
            connect: Any = super().connect
            await connect()

        async def read_response(self, *given: Any, **named: Any) -> Any:
            try:
                return await super().read_response(*given, **named)
            except exceptions.ResponseError as error:
                known = isinstance(error, exceptions.ReadOnlyError | exceptions.AskError | exceptions.ClusterDownError)
                if not known and not str(error).startswith(_MOVED):
                    raise
                await self.disconnect(nowait=True)
                raise exceptions.ConnectionError(f"it is not there any more: {error}") from error

    return {"connection_class": Found, "username": seeds.user or None, "password": seeds.password or None} | (
        {"db": int(seeds.db)} if seeds.db else {}
    )


def _by_sentinels(seeds: Seeds, seconds: float) -> Find:
    from redis.asyncio import sentinel as sentinels

    limits = {"socket_timeout": seconds, "socket_connect_timeout": seconds}
    make: Any = sentinels.Sentinel

    async def find() -> tuple[str, int]:
        asked = make(list(seeds.hosts), sentinel_kwargs=limits)
        try:
            host, port = await asked.discover_master(seeds.name)
            return str(host), int(port)
        finally:
            for one in asked.sentinels:
                await one.aclose()

    return find


def _in_cluster(seeds: Seeds, key: str, seconds: float) -> Find:
    import redis.asyncio as redis
    from redis.crc import key_slot

    slot = key_slot(key.encode())

    async def ask(host: str, port: int) -> tuple[str, int]:
        client = redis.Redis(
            host=host,
            port=port,
            username=seeds.user or None,
            password=seeds.password or None,
            socket_timeout=seconds,
            socket_connect_timeout=seconds,
        )
        try:
            execute: Any = client.execute_command
            ranges = await execute("CLUSTER", "SLOTS")
        finally:
            await client.aclose()
        for first, last, primary, *_ in ranges:
            if first <= slot <= last:  # a node without a name for itself is the one that was asked
                return (primary[0] or host.encode()).decode(), int(primary[1])
        raise redis.ConnectionError(f"no node of the cluster has slot {slot}")

    async def find() -> tuple[str, int]:
        for host, port in seeds.hosts[:-1]:
            with suppress(redis.RedisError, OSError):
                return await ask(host, port)
        return await ask(*seeds.hosts[-1])

    return find
