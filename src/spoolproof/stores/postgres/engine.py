"""What an adapter on PostgreSQL may be made from."""

from __future__ import annotations

from dataclasses import dataclass

from spoolproof.clock import Clock
from spoolproof.ids import Ids
from spoolproof.ports.broker import Spawn
from spoolproof.stores.postgres.connections import Pool
from spoolproof.stores.postgres.services import PostgresServices


@dataclass(frozen=True, slots=True)
class Engine:
    """Connections by purpose, as `store` says, and what else there is to work with."""

    work: Pool
    upkeep: Pool
    services: PostgresServices
    clock: Clock
    ids: Ids
    spawn: Spawn
