"""`spoolproof cache`: what is in the shared cache of a service, and taking it away."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, TypeVar

import typer

from spoolproof.cache.envelope import peek
from spoolproof.cache.failover import Failover
from spoolproof.cache.options import NAME, check_key
from spoolproof.cli.exits import Refused
from spoolproof.cli.group import Group
from spoolproof.cli.options import AsJson
from spoolproof.cli.output import emit, say, table
from spoolproof.cli.store import with_store
from spoolproof.clock import SystemClock
from spoolproof.errors import CacheKeyInvalid, NotFound, Unavailable
from spoolproof.ids import Ids
from spoolproof.ports.cache import TOMBSTONE, Action, CacheAway, Invalidation, SharedCache
from spoolproof.ports.store import Store
from spoolproof.settings import load_settings
from spoolproof.wiring import build_cache, missing_cache

T = TypeVar("T")

ServiceName = Annotated[str, typer.Argument(metavar="SERVICE", help="The service's name.")]
CacheName = Annotated[str, typer.Argument(metavar="CACHE", help="The cache, or a part of it as products/tenant-7.")]
Key = Annotated[str | None, typer.Argument(metavar="[KEY]", help="One of its keys.")]
Keys = Annotated[list[str] | None, typer.Argument(metavar="[KEY]...", help="Its keys.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="All entries with this tag; may be given again.")]


def show(service: ServiceName, cache: CacheName, key: Key = None, as_json: AsJson = False) -> None:
    """Show one entry, or without a key whether the shared cache answers and what waits for it."""
    target = cache if key is None else _target(cache, key)

    async def look(failover: Failover, shared: SharedCache) -> dict[str, object]:
        try:
            barriers = failover.barriers = await shared.sync()
        except CacheAway as error:
            raise Unavailable(f"the cache of {service} is away: {error}") from error
        if key is None:
            kept = await failover.kept()
            return {"shared": shared.name, "barriers": len(barriers.hard) + len(barriers.soft), "waiting": len(kept)}
        (raw,) = (await shared.read([target], 1.0)).found
        if raw is None:
            raise NotFound(f"{cache} of {service} has no entry {key!r} in {shared.name}")
        return _document(raw, failover)

    found = {"service": service, "cache": cache, "key": key, **_with(service, cache, look)}
    if as_json:
        emit("cache.show", found)
    else:
        table(("field", "value"), list(found.items()))


def _document(raw: bytes, failover: Failover) -> dict[str, object]:
    if raw[:1] == TOMBSTONE:
        return {"state": "removed"}
    found = peek(raw)
    if found is None:
        return {"state": "unreadable", "bytes": len(raw)}
    envelope, fresh_ms = found
    is_gone, is_stale = failover.bar(envelope.tags, envelope.sequence)
    now_ms = int(SystemClock().now().timestamp() * 1000)
    state = "removed" if is_gone else "stale" if is_stale or fresh_ms <= now_ms else "fresh"
    moments = {"loaded_at": envelope.loaded_ms, "fresh_until": fresh_ms, "dead_at": envelope.dead_ms}
    return {
        "state": state,
        **{name: datetime.fromtimestamp(value / 1000, UTC) if value else None for name, value in moments.items()},
        "bytes": len(raw),
        "tags": [tag.partition("#")[2] for tag in envelope.tags if "#" in tag],
    }


def expire(
    service: ServiceName, cache: CacheName, keys: Keys = None, tags: Tags = None, as_json: AsJson = False
) -> None:
    """Let entries be stale: loaded anew by the next who asks, and served only if that fails."""
    _take_away("expire", service, cache, keys, tags, as_json)


def remove(
    service: ServiceName, cache: CacheName, keys: Keys = None, tags: Tags = None, as_json: AsJson = False
) -> None:
    """Let entries be gone, in the memory of every process, too."""
    _take_away("remove", service, cache, keys, tags, as_json)


def clear(service: ServiceName, cache: CacheName, as_json: AsJson = False) -> None:
    """Remove all entries of a cache, or of a part of it."""
    _do("clear", service, cache, [Invalidation(action=Action.REMOVE, target=cache, is_tag=True)], as_json)


def _take_away(
    verb: str, service: str, cache: str, keys: list[str] | None, tags: list[str] | None, as_json: bool
) -> None:
    action = Action(verb)
    wanted = [Invalidation(action=action, target=_target(cache, key)) for key in keys or ()]
    wanted += [Invalidation(action=action, target=f"{cache}#{tag}", is_tag=True) for tag in tags or ()]
    if not wanted:
        raise Refused(f"cache {verb} {service} {cache}: no key and no --tag", "name some, or: spoolproof cache clear")
    _do(verb, service, cache, wanted, as_json)


def _do(verb: str, service: str, cache: str, wanted: list[Invalidation], as_json: bool) -> None:
    async def work(failover: Failover, shared: SharedCache) -> str:
        try:
            await shared.sync()
            await shared.invalidate(wanted)
        except CacheAway as error:
            failover.error = str(error)
            await failover.keep(wanted)
            return "kept"
        return "done"

    state = _with(service, cache, work)
    if as_json:
        emit(f"cache.{verb}", {"service": service, "cache": cache, "invalidations": len(wanted), "state": state})
    elif state == "done":
        say(f"done: {verb} of {len(wanted)} in {cache} of {service}")
    else:
        say("the shared cache is away: it is kept in the store, and done by the first process that reaches both")


def _target(cache: str, key: str) -> str:
    check_key(key)
    return f"{cache}:{key}"


def _with(service: str, cache: str, work: Callable[[Failover, SharedCache], Awaitable[T]]) -> T:
    if not all(NAME.fullmatch(part) for part in cache.split("/")):
        raise CacheKeyInvalid(f"cache {cache!r}: write its name as products, or a part of it as products/tenant-7")
    settings, clock = load_settings(), SystemClock()
    if path := missing_cache(settings, service):
        raise NotFound(f"{service} has no cache at {path.resolve()}; start it first, or name it in SPOOLPROOF_CACHE")

    async def run(store: Store) -> T:
        shared = build_cache(settings, service, clock=clock)
        if shared is None:
            raise Refused(
                f"the cache of {service} is in the memory of its processes", "set SPOOLPROOF_CACHE=redis://… or sqlite"
            )
        failover = Failover(shared, store.state, service, clock=clock, ids=Ids(clock))
        try:
            await failover.open()
            return await work(failover, shared)
        finally:
            await shared.close()

    return with_store(run)


GROUP = Group(
    "cache",
    {"show": show, "expire": expire, "remove": remove, "clear": clear},
    "What the processes of a service cache together.",
    also=("caches",),
)
