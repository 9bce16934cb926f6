"""One look at the embedded broker's file for `spoolproof doctor`: it is read, and nothing is made."""

from __future__ import annotations

from spoolproof.backoff import RandomSource
from spoolproof.clock import Clock
from spoolproof.errors import BrokerUnavailable
from spoolproof.ports.broker import Spawn
from spoolproof.urls import path_of


async def look(url: str, clock: Clock, random: RandomSource, spawn: Spawn) -> str:
    """Return what is found at a URL. Raises BrokerUnavailable for what is no database that can be written."""
    path = path_of(url)
    try:
        # no SQLite connection of this process has the file open: closing it here would drop that one's locks
        with path.open("r+b") as file:
            head = file.read(16)
    except FileNotFoundError:
        return f"{path} is made at the first start"
    except OSError as error:
        raise BrokerUnavailable(f"{error.strerror}: chown it to this user, or name another file") from error
    if head and head != b"SQLite format 3\0":
        raise BrokerUnavailable("it is not a SQLite file: name another one")
    return f"{path} is readable and writable"
