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
from spoolproof.ports.leases import LeaseStatus, Process
from spoolproof.ports.outbox import Backlog
from spoolproof.ports.store import Store


@dataclass(frozen=True, slots=True)
class _Outbox:
    """What is found of one service."""

    service: str
    backlog: Backlog
    leases: Sequence[LeaseStatus]


@dataclass(frozen=True, slots=True)
class _Status:
    store: str
    backlog: Backlog
    services: Sequence[_Outbox]
    processes: Sequence[Process]


def status(as_json: AsJson = False) -> None:
    """Show how many events wait, since when, and which process ships each shard, for every service of the store."""
    found = with_store(_look)
    shards = [_shard(one.service, lease, found.processes) for one in found.services for lease in one.leases]
    if as_json:
        services = [{"service": one.service, **_counts(one.backlog)} for one in found.services]
        emit(
            "outbox.status",
            {"store": found.store, **_counts(found.backlog), "services": services, "shards": shards},
        )
        return
    say(_sentence(found.backlog))
    if len(found.services) > 1:
        for one in found.services:
            say(f"{one.service}: {_sentence(one.backlog)}{_unshipped(one, found.processes)}")
    if not shards:
        say("no relay has ever run on this store; start one: spoolproof run MODULE:SERVICE")
        return
    table(
        ("service", "shard", "relay", "epoch", "lease until"),
        [(one["service"], one["shard"], one["relay"] or "nobody", one["epoch"], one["expires_at"]) for one in shards],
    )


async def _look(store: Store) -> _Status:
    services = [
        _Outbox(name, await store.outbox.backlog(block.shards), await store.leases.status(block.lease_kind))
        for name, block in (await store.services.all()).items()
    ]
    return _Status(store.name, await store.outbox.backlog(), services, await store.leases.processes())


def _counts(backlog: Backlog) -> dict[str, Any]:
    return {
        "rows": backlog.rows,
        "is_capped": backlog.rows >= limits.ROWS_COUNTED_MAX,
        "deferred": backlog.deferred,
        "oldest_at": backlog.oldest_at,
    }


def _sentence(backlog: Backlog) -> str:
    more = "+" if backlog.rows >= limits.ROWS_COUNTED_MAX else ""
    since = "" if backlog.oldest_at is None else f", the oldest since {plain(backlog.oldest_at)}"
    return f"{backlog.rows}{more} events wait, {backlog.deferred} of them for their next attempt{since}"


def _unshipped(one: _Outbox, processes: Sequence[Process]) -> str:
    if not one.backlog.rows or any(process.service == one.service for process in processes):
        return ""
    return f"; no process of {one.service} runs, and no other service ships its events"


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


GROUP = Group("outbox", {"status": status}, "Events that wait for the broker.", also=("outboxes",))
