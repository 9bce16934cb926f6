"""What waits for the broker, as a document: what `--json` prints and a page shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spoolproof import limits
from spoolproof.ports.leases import LeaseStatus, Process
from spoolproof.ports.outbox import Backlog
from spoolproof.ports.store import Store


async def status(store: Store) -> dict[str, Any]:
    """Return the rows that wait, of all services and of each, and which process ships each shard.

    `is_served` of a service: whether a process of it lives; no other service ships its events.
    """
    processes = await store.leases.processes()
    services: list[dict[str, Any]] = []
    shards: list[dict[str, Any]] = []
    for name, block in (await store.services.all()).items():
        is_served = any(process.service == name for process in processes)
        counts = _counts(await store.outbox.backlog(block.shards))
        services.append({"service": name, "is_served": is_served, **counts})
        shards += [_shard(name, lease, processes) for lease in await store.leases.status(block.lease_kind)]
    return {"store": store.name, **_counts(await store.outbox.backlog()), "services": services, "shards": shards}


def _counts(backlog: Backlog) -> dict[str, Any]:
    return {
        "rows": backlog.rows,
        "is_capped": backlog.rows >= limits.ROWS_COUNTED_MAX,
        "deferred": backlog.deferred,
        "oldest_at": backlog.oldest_at,
    }


def _shard(service: str, lease: LeaseStatus, processes: Sequence[Process]) -> dict[str, Any]:
    owner = next((one for one in processes if one.id == lease.owner), None)
    is_owned = lease.owner is not None and not lease.is_expired
    named = str(lease.owner) if owner is None else f"{owner.service} on {owner.host}, pid {owner.pid}"
    return {
        "service": service,
        "shard": lease.name,
        "relay": named if is_owned else None,
        "epoch": lease.epoch,
        "expires_at": lease.expires_at if is_owned else None,
    }
