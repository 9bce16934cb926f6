"""Which services share this database, and whose the rows of its outbox are.

Every service has a block of shards to itself: its rows are written there, and only its own processes take the leases of
these shards. Two services of one database may have different exchanges, or different brokers; a row shipped by the
other's relay would be confirmed, deleted, and never seen by its subscribers.

A service is its name. It keeps its block for as long as the database lives; whoever renames a service renames it in the
table too, or what waits in its block waits for a process of the old name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Protocol

_KIND = "outbox"
_WEBHOOK_KIND = "webhook"


@cache
def shard_name(shard: int) -> str:
    """Return the lease name of a shard, at least two digits."""
    return f"{shard:02d}"


@dataclass(frozen=True, slots=True)
class Block:
    """The shards of one service. first: the lowest; size: how many, the same for every service of a database."""

    first: int
    size: int

    @property
    def shards(self) -> range:
        """The numbers of its shards."""
        return range(self.first, self.first + self.size)

    @property
    def lease_kind(self) -> str:
        """The kind of its leases: one for each block, so that nobody takes, or counts, what is another service's.

        That of the first block is `outbox`, as in the release that knew no blocks: processes of both share the shards.
        """
        return f"{_KIND}/{self.first}" if self.first else _KIND

    @property
    def lease_names(self) -> list[str]:
        """The names of its leases, one for each shard."""
        return [shard_name(shard) for shard in self.shards]

    @property
    def webhooks(self) -> range:
        """The shards of its webhooks: a quarter as many, below zero, so that no block ever meets them."""
        return range(self.webhook_shard(self.shards[-1]), self.webhook_shard(self.first) + 1)

    def webhook_shard(self, shard: int) -> int:
        """Return where the webhooks of what is published in one of its shards go; as the stores' triggers say."""
        return -1 - shard // max(1, self.size // 4)

    @property
    def webhook_lease_kind(self) -> str:
        """The kind of the leases on its webhooks."""
        return f"{_WEBHOOK_KIND}/{self.first}" if self.first else _WEBHOOK_KIND


class Services(Protocol):
    """The table of services."""

    @property
    def own(self) -> Block:
        """The block that rows are written to: the claimed one, or the first before any claim."""

    @property
    def own_name(self) -> str:
        """The name that was claimed; empty before."""

    async def claim(self, service: str) -> Block:
        """Take a service's block, a new one if it never ran here, and write to it from now on.

        Idempotent, and safe for many processes at once. Raises SettingsError when no block is left, StoreUnavailable.
        """

    async def all(self) -> Mapping[str, Block]:
        """Return the block of every service that ever ran here, by name, first block first; perhaps none."""
