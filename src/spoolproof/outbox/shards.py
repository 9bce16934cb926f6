"""The leases of the outbox: one per shard, named by its number."""

from __future__ import annotations

from functools import cache

KIND = "outbox"


@cache
def shard_name(shard: int) -> str:
    """Return the lease name of a shard: two digits, so that names sort as numbers."""
    return f"{shard:02d}"


def shard_names(shards: int) -> list[str]:
    """Return the lease names of all shards."""
    return [shard_name(shard) for shard in range(shards)]
