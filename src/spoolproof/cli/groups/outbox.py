"""`spoolproof outbox`: what waits for the broker, since when, and who ships it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from spoolproof import limits
from spoolproof.cli.group import Group
from spoolproof.cli.options import AsJson
from spoolproof.cli.output import emit, plain, say, table
from spoolproof.cli.store import with_store
from spoolproof.outbox.shards import KIND
from spoolproof.ports.leases import LeaseStatus, Process
from spoolproof.ports.outbox import Backlog
from spoolproof.ports.store import Store


@dataclass(frozen=True, slots=True)
class _Status:
    store: str
    backlog: Backlog
    leases: Sequence[LeaseStatus]
    processes: Sequence[Process]


def status(as_json: AsJson = False) -> None:
    """Show how many events wait, since when, and which process ships each shard."""
    found = with_store(_look)
    shards = [_shard(lease, found.processes) for lease in found.leases]
    backlog = found.backlog
    if as_json:
        emit(
            "outbox.status",
            {
                "store": found.store,
                "rows": backlog.rows,
                "is_capped": backlog.rows >= limits.ROWS_COUNTED_MAX,
                "deferred": backlog.deferred,
                "oldest_at": backlog.oldest_at,
                "shards": shards,
            },
        )
        return
    more = "+" if backlog.rows >= limits.ROWS_COUNTED_MAX else ""
    since = "" if backlog.oldest_at is None else f", the oldest since {plain(backlog.oldest_at)}"
    say(f"{backlog.rows}{more} events wait, {backlog.deferred} of them for their next attempt{since}")
    if not shards:
        say("no relay has ever run on this store; start one: spoolproof run MODULE:SERVICE")
        return
    table(
        ("shard", "relay", "epoch", "lease until"),
        [(one["shard"], one["relay"] or "nobody", one["epoch"], one["expires_at"]) for one in shards],
    )


async def _look(store: Store) -> _Status:
    return _Status(
        store.name,
        await store.outbox.backlog(),
        await store.leases.status(KIND),
        await store.leases.processes(),
    )


def _shard(lease: LeaseStatus, processes: Sequence[Process]) -> dict[str, Any]:
    owner = next((one for one in processes if one.id == lease.owner), None)
    is_owned = lease.owner is not None and not lease.is_expired
    named = str(lease.owner) if owner is None else f"{owner.service} on {owner.host}, pid {owner.pid}"
    return {
        "shard": lease.name,
        "relay": named if is_owned else None,
        "epoch": lease.epoch,
        "expires_at": lease.expires_at if is_owned else None,
    }


GROUP = Group("outbox", {"status": status}, "Events that wait for the broker.", also=("outboxes",))
