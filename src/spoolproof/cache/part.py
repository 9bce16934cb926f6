"""The caches of one process: `service.cache`, and the loops that keep the shared one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, overload

from spoolproof.cache.cache import Cache, Home, T
from spoolproof.cache.coder import Coder
from spoolproof.cache.events import IS_SHARED, PENDING
from spoolproof.cache.failover import Failover, Keeper, Listener
from spoolproof.cache.options import checked
from spoolproof.cache.running import Running
from spoolproof.errors import CacheConfigError
from spoolproof.lifecycle.entry import Context, Entry
from spoolproof.lifecycle.loop import Loop
from spoolproof.lifecycle.part import Part, Report
from spoolproof.lifecycle.registrations import Facet
from spoolproof.ports.broker import ConnectionState
from spoolproof.ports.cache import CacheAway, SharedCaches
from spoolproof.ports.health import Dependency, Need, Status
from spoolproof.telemetry.metrics import Measure

BYTES_MAX = 256 * 1024**2
"""What the memory of all caches of a process may take together."""


class Declared:
    """The caches of a service, by name."""

    def __init__(self) -> None:
        self.homes: dict[str, Home] = {}
        self.is_running = False

    def check(self) -> list[str]:
        """Return what is wrong with them taken together."""
        total = sum(home.options.bytes_max for home in self.homes.values())
        if total <= BYTES_MAX:
            return []
        shown = ", ".join(f"{home.name} {home.options.bytes_max:,}" for home in self.homes.values())
        return [f"caches may take {total:,} bytes of memory together, at most {BYTES_MAX:,}; lower bytes_max: {shown}"]


class CachePart(Part):
    """Runs the caches that were declared."""

    needs_store = False

    def __init__(self, of: Context) -> None:
        self._clock = of.clock
        self._declared = of.registrations.of(Declared)
        homes = self._declared.homes
        shared = of.the(SharedCaches).make() if homes else None
        self._failover = Failover(shared, of.store.state, of.service, clock=of.clock, ids=of.ids)
        self._caches: list[Running] = []
        for home in homes.values():
            running = Running(home.name, home.options, self._failover, clock=of.clock, random=of.random, spawn=of.spawn)
            self._failover.followers[home.name] = running
            self._caches.append(running)
            home.run(running)
        self._declared.is_running = True

    def loops(self) -> Sequence[Loop]:
        """Return what keeps the shared cache, if a cache was declared."""
        if not self._caches:
            return ()
        keeper = Keeper(self._failover, self._clock, self._tidy)
        return (keeper,) if self._failover.shared is None else (Listener(self._failover, self._clock), keeper)

    def _tidy(self) -> None:
        for one in self._caches:
            one.tidy()

    def report(self) -> Report:
        """Tell whether memory alone serves."""
        failover = self._failover
        if failover.shared is None:
            return Report()
        known = (self._dependency(failover),) if failover.shared.is_remote else ()
        if failover.is_shared:
            return Report(dependencies=known)
        waiting = f"; {len(failover.pending)} invalidations wait for it" if failover.pending else ""
        issue = f"cache: {failover.level} is not used ({failover.error}); memory serves{waiting}"
        return Report(dependencies=known, issues=(issue,))

    def _dependency(self, failover: Failover) -> Dependency:
        is_used = failover.is_shared
        return Dependency(
            key=failover.level,
            need=Need.OPTIONAL,  # memory serves without it
            status=Status.HEALTHY if is_used else Status.UNHEALTHY,
            state=ConnectionState.CONNECTED if is_used else ConnectionState.CONNECTING,
            url=f"{failover.level}://",
            since=failover.changed_at,
            away_seconds=0.0 if is_used else (self._clock.now() - failover.changed_at).total_seconds(),
            error=None if is_used else CacheAway.__name__,
            reason=None if is_used else "memory serves",
        )

    def measures(self) -> Iterable[Measure]:
        """Yield what the caches have counted."""
        for one in list(self._caches):
            yield from one.measures()
        if self._failover.shared is not None:
            yield IS_SHARED, (), self._failover.is_shared
            yield PENDING, (), len(self._failover.pending)

    def ended(self) -> None:
        """Let nobody use them any more."""
        self._declared.is_running = False
        for home in self._declared.homes.values():
            home.run(None)


class CacheFacet(Facet):
    """`service.cache(…)`."""

    @overload
    def __call__(self, name: str, *, of: type[T], **options: Any) -> Cache[T]: ...
    @overload
    def __call__(self, name: str, *, of: None = None, **options: Any) -> Cache[Any]: ...
    def __call__(self, name: str, *, of: Any = None, **options: Any) -> Cache[Any]:
        """Declare a cache; before the service starts, once for each name.

        name: a letter and up to 63 of a-z, 0-9, `_`, `.`, `-`. of: the class of its values: any type msgspec knows, or
        a pydantic model; None for plain values (text, numbers, bytes, None, lists and dicts of them). options: as
        `CacheOptions` says. Raises CacheConfigError with every fault.
        """
        declared = self.host.registrations.of(Declared)
        found = checked(name, options)
        if declared.is_running:
            raise CacheConfigError(name, ["caches are declared before the service starts"])
        if name in declared.homes:
            raise CacheConfigError(name, ["is declared already; pass on what the first declaration returned"])
        home = declared.homes[name] = Home(name, found)
        return Cache(home, name, Coder(name, of))


CACHE = Entry(CachePart, CacheFacet)
