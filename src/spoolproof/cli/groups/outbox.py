"""`spoolproof outbox`: what waits for the broker, since when, and who ships it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spoolproof.cli.group import Group
from spoolproof.cli.options import AsJson
from spoolproof.cli.output import emit, plain, say, table
from spoolproof.cli.store import with_store
from spoolproof.outbox import document


def status(as_json: AsJson = False) -> None:
    """Show how many events wait, since when, and which process ships each shard, for every service of the store."""
    found = with_store(document.status)
    if as_json:
        emit("outbox.status", found)
        return
    say(_sentence(found))
    if len(found["services"]) > 1:
        for one in found["services"]:
            say(f"{one['service']}: {_sentence(one)}{_unshipped(one)}")
    if not found["shards"]:
        say("no relay has ever run on this store; start one: spoolproof run MODULE:SERVICE")
        return
    table(
        ("service", "shard", "relay", "epoch", "lease until"),
        [
            (one["service"], one["shard"], one["relay"] or "nobody", one["epoch"], one["expires_at"])
            for one in found["shards"]
        ],
    )


def _sentence(counts: Mapping[str, Any]) -> str:
    more = "+" if counts["is_capped"] else ""
    since = "" if counts["oldest_at"] is None else f", the oldest since {plain(counts['oldest_at'])}"
    return f"{counts['rows']}{more} events wait, {counts['deferred']} of them for their next attempt{since}"


def _unshipped(one: Mapping[str, Any]) -> str:
    if not one["rows"] or one["is_served"]:
        return ""
    return f"; no process of {one['service']} runs, and no other service ships its events"


GROUP = Group("outbox", {"status": status}, "Events that wait for the broker.", also=("outboxes",))
