"""Local files that keep messages while the store is away: one per process, each with an outbox of its own.

A file belongs to whoever holds its lock, and the lock dies with its process: what a process left is adopted by the next
one that looks. A file has two lanes. `STRAIGHT` goes to the broker. `HOME` goes into the store's outbox, when there is
a store again: messages with an ordering key, which must not overtake what the store still holds of their key, and
events that webhooks want, whose rows the store writes.

Never here: deleting a file that keeps anything; using one without its lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

from spoolproof.message import Outgoing
from spoolproof.ports.leases import Fence
from spoolproof.ports.store import Store

STRAIGHT: Final = 0
HOME: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Salvaged:
    """What was read out of a damaged file. rows, dead_letters: kept in a fresh one; unreadable: places that gave
    nothing back; damaged: where the file itself stays, for people."""

    rows: int
    dead_letters: int
    unreadable: int
    damaged: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolLook:
    """A file as anybody may see it, also while its process uses it. is_used: a living process has its lock."""

    path: Path
    service: str
    is_used: bool
    rows: int = 0
    dead_letters: int = 0
    data_bytes: int = 0
    oldest_at: datetime | None = None
    error: str | None = None


class SpoolFile(Store, Protocol):
    """One file, as its owner uses it: a store of its own."""

    @property
    def path(self) -> Path: ...  # noqa: D102
    @property
    def fences(self) -> Sequence[Fence]:
        """Those of both lanes, held for as long as the file is."""

    @property
    def salvaged(self) -> Salvaged | None:
        """What its start had to read out of a damaged file, else None."""

    @property
    def rows(self) -> int:
        """How many messages wait in it."""

    @property
    def data_bytes(self) -> int:
        """How much it held at the last write or count."""

    @property
    def oldest_at(self) -> datetime | None:
        """When its oldest message was written, as of the last count."""

    async def put(self, records: Sequence[Outgoing], lanes: Sequence[int]) -> None:
        """Keep messages, each in its lane; durable on return, in the order of the calls.

        Raises SpoolFull, StoreUnavailable; then nothing of it is known to be kept.
        """

    async def count(self) -> None:
        """Count anew what is in it."""

    async def drop_dead_letter(self, id: str) -> None:
        """Forget one that is kept elsewhere."""


class Spools(Protocol):
    """The folder of a service's files."""

    @property
    def folder(self) -> Path | None:
        """Where they are; None: this service has no spool."""

    @property
    def is_home(self) -> bool:
        """Whether the file of this process is the only store its service has."""

    @property
    def open(self) -> Sequence[SpoolFile]:
        """The files this process holds."""

    @property
    def fullness(self) -> float:
        """The largest share, 0 to 1 or a little over, that any limit is used to: rows, bytes, disk."""

    def new(self) -> SpoolFile:
        """Return a file that does not exist yet; its start makes it."""

    async def adopt(self) -> Sequence[SpoolFile]:
        """Start every file that nobody holds, oldest first; a damaged one is salvaged, never deleted."""

    def damaged(self) -> Sequence[Path]:
        """Return the files that were found damaged and are kept for people."""
