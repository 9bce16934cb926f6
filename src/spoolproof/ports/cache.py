"""What several processes cache together: Redis, or a file of one machine.

Nothing here compares clocks of two machines to decide which of two writes counts. A write of what was loaded names the
version that was found before the load began; whoever removed or wrote meanwhile has put another one in its place, and
the write is refused. What takes away many entries is a *barrier*: a number for a tag, taken from one counter. An entry
carries the counter's value from before its load, and is no more once a barrier of one of its tags has a greater one.

An entry is bytes: a head of `HEAD_BYTES` (a kind, a version, when it ceases to be fresh) that adapters may read and
change, and a body only `cache.envelope` knows.

Never here: an invalidation that is acknowledged and then lost by us; a scan over keys.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Generic, Protocol, TypeVar

T = TypeVar("T")

TOMBSTONE: Final = b"\x00"
ENTRY: Final = b"\x01"
VERSION_BYTES: Final = 16
SEEN_BYTES: Final = 1 + VERSION_BYTES
HEAD_BYTES: Final = SEEN_BYTES + 8
NOTHING: Final = b""
"""What was seen where nothing was found."""
TOMBSTONE_SECONDS: Final = 3600.0
"""How long a removed key refuses what was loaded before. A load is over after half a minute, and a write that comes
later than that is refused by its age; the rest is for clocks that differ."""


class Action(StrEnum):
    """remove: the value is gone. expire: it is stale from now on, and may be served when nothing else can be had."""

    REMOVE = "remove"
    EXPIRE = "expire"


@dataclass(frozen=True, slots=True, kw_only=True)
class Invalidation:
    """What is to be taken away: one key, or everything with a tag (`is_tag`)."""

    action: Action
    target: str
    is_tag: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """An entry on its way. seen: the first SEEN_BYTES found under its key before the load, None for one that counts
    whatever is there. tags, sequence: of its entry. until_ms: refused after this moment of the shared cache's clock."""

    key: str
    raw: bytes
    seconds: float
    seen: bytes | None = None
    tags: tuple[str, ...] = ()
    sequence: int = 0
    until_ms: int = 0


@dataclass(frozen=True, slots=True)
class Reading:
    """What was found, in the order asked for, and the counter at that moment."""

    found: Sequence[bytes | None]
    sequence: int


@dataclass(frozen=True, slots=True)
class Barriers:
    """Every barrier there is: tag → counter, for what is gone (hard) and what is stale (soft)."""

    sequence: int
    hard: Mapping[str, int]
    soft: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Heard:
    """What another process did. invalidation None: something was missed, or the connection was lost; nothing in memory
    is to be called fresh before the shared cache was asked. sequence: of a barrier; 0 for a key."""

    invalidation: Invalidation | None
    sequence: int = 0


Listener = Callable[[Heard], None]


class SharedCache(Protocol):
    """A cache that outlives this process. Every method raises CacheAway within its time limit."""

    @property
    def name(self) -> str:
        """Its word in metrics and `Served.source`."""

    @property
    def is_remote(self) -> bool:
        """Whether it is a server, which may be away while this machine is well."""

    async def start(self) -> None:
        """Get ready to be asked; needs no server."""

    async def sync(self) -> Barriers:
        """Return the barriers, once it is certain that what is there is what was left there: after a restart, a
        fail-over or a flush everything is barred first."""

    async def read(self, keys: Sequence[str], seconds: float) -> Reading:
        """Return the entries of some keys."""

    async def write(self, writes: Sequence[Write]) -> Sequence[bool]:
        """Write each by itself; False: refused, because what was seen is not there any more."""

    async def invalidate(self, invalidations: Sequence[Invalidation]) -> None:
        """Take away, and tell the other processes. All of it is done when this returns, and may be when it raises."""

    async def listen(self, heard: Listener) -> None:
        """Tell what other processes do until the connection is lost; raises CacheAway then."""

    async def close(self) -> None:
        """Let go of every connection. Idempotent."""


class CacheAway(Exception):
    """The shared cache cannot do it now. is_full: it takes no writes, and reads may go on. is_slow: it has not answered
    in time, which may be the only time."""

    def __init__(self, text: str, *, is_full: bool = False, is_slow: bool = False) -> None:
        self.is_full = is_full
        self.is_slow = is_slow
        super().__init__(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served(Generic[T]):
    """A value and where it is from.

    fresh: within its time to live. age_seconds: since it was loaded. source: `loader`, `memory`, `redis`, `sqlite`,
    `default`, `function`. reason: why it is not fresh, not the loader's, or not of the first rung: `error`, `timeout`,
    `throttled`, `shed`, `breaker_open`, `unhealthy`, `level`, `drill`, or None. rung: of a ladder. missing: what a
    partial answer lacks.
    """

    value: T
    fresh: bool
    age_seconds: float
    source: str
    reason: str | None = None
    rung: str = ""
    missing: tuple[str, ...] = ()

    def headers(self, name: str = "spoolproof") -> dict[str, str]:
        """Return `Age` and `Cache-Status` (RFC 9211) for an answer over HTTP, and of a ladder's `Spoolproof-Rung`."""
        status = "fwd=miss" if self.source in ("loader", "function") else "hit"
        detail = f"; detail={self.reason}" if self.reason else ""
        stale = "" if self.fresh else "; fwd=stale"
        rung = {"Spoolproof-Rung": self.rung} if self.rung else {}
        return {"Age": str(int(self.age_seconds)), "Cache-Status": f"{name}; {status}{stale}{detail}", **rung}


class LastGood(Protocol):
    """What a ladder falls back on; a cache is one."""

    async def last_good(self, key: str) -> Served[Any] | None:
        """Return the newest value there is, fresh or not, without loading one."""

    async def keeping(self, key: str) -> Callable[[Any], Awaitable[None]] | None:
        """Return what keeps a value that is loaded from now on, unless it is taken away meanwhile; None while a fresh
        one is there."""

    def key_maker(
        self, template: str, function: Callable[..., Any]
    ) -> Callable[[Sequence[Any], Mapping[str, Any]], str]:
        """Return what makes a key of a call's arguments. Raises CacheConfigError."""


@dataclass(slots=True)
class CacheStats:
    """What one cache has done in this process. hits, misses: by level. errors: loads that failed."""

    hits: dict[str, int] = field(default_factory=dict)
    misses: dict[str, int] = field(default_factory=dict)
    stale: int = 0
    loads: int = 0
    errors: int = 0
    refused: int = 0
    unstored: int = 0

    def ratio(self, level: str) -> float | None:
        """Return hits of all reads of a level, None before the first."""
        hits, misses = self.hits.get(level, 0), self.misses.get(level, 0)
        return hits / (hits + misses) if hits + misses else None

    def copied(self) -> CacheStats:
        """Return one that does not change any more."""
        values: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        return CacheStats(**values | {"hits": dict(self.hits), "misses": dict(self.misses)})


class SharedCaches:
    """Makes the shared cache of the settings; None where memory is all there is."""

    def __init__(self, make: Callable[[], SharedCache | None]) -> None:
        self.make = make
