"""What an adapter on SQLite may be made from."""

from __future__ import annotations

from dataclasses import dataclass

from spoolproof.clock import Clock
from spoolproof.ids import Ids
from spoolproof.sqlite import Database
from spoolproof.stores.sqlite.services import SqliteServices


@dataclass(frozen=True, slots=True)
class Engine:
    """The file and what else there is to work with."""

    database: Database
    services: SqliteServices
    clock: Clock
    ids: Ids
