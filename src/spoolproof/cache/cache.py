"""A cache as an application declares and uses it: `products = service.cache("products", ttl_seconds=60)`.

Declared before the service starts, used while it runs. A part of it (`within`) has keys and a `clear` of its own; what
bounds it is the whole cache's. Entries carry, beside their own tags, one for each part they are in, so that clearing is
removing a tag.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from enum import Enum
from functools import partial, wraps
from string import Formatter
from typing import Any, Generic, ParamSpec, TypeVar, get_type_hints
from uuid import UUID

from spoolproof.cache.coder import Coder
from spoolproof.cache.many import Many
from spoolproof.cache.options import NAME, CacheOptions, check_key
from spoolproof.cache.read import Ask, Reader
from spoolproof.cache.running import Running
from spoolproof.errors import CacheConfigError, CacheKeyInvalid, NotStarted
from spoolproof.ports.cache import Action, CacheStats, Invalidation, Served

T = TypeVar("T")
P = ParamSpec("P")

Loader = Callable[[str], Awaitable[T] | T]
_IN_KEYS = (str, int, bool, UUID, Decimal, date, Enum, type(None))


class Home:
    """What a cache and its parts have in common. running, reader, many: while the service runs."""

    def __init__(self, name: str, options: CacheOptions) -> None:
        self.name = name
        self.options = options
        self.running: Running | None = None
        self.reader: Reader
        self.many: Many

    def run(self, running: Running | None) -> None:
        """Begin or end to be used."""
        if running is not None:
            self.reader, self.many = Reader(running), Many(running)
        self.running = running


class Cache(Generic[T]):
    """A cache of values of one class."""

    def __init__(self, home: Home, path: str, coder: Coder) -> None:
        self._home = home
        self._path = path
        self._prefix = f"{path}:"
        self._coder = coder
        steps = path.split("/")
        self._parts = tuple("/".join(steps[: count + 1]) for count in range(len(steps)))

    # --- read --------------------------------------------------------------------------------------------------------

    async def get_or_load(self, key: str, load: Loader[T], *, tags: Sequence[str] = ()) -> T:
        """Return the value of a key; loaded by `load(key)` when nothing fresh is there, once for all who ask.

        A load that fails or lasts is answered by a stale value if there is one; `fetch` says so. Raises the loader's
        error, TimeoutError after `hard_timeout_seconds`, BulkheadFull, CacheRecursion, CacheKeyInvalid, NotStarted.
        """
        running = self._home.running
        if running is not None and type(key) is str:
            full = self._prefix + key
            kept = running.find(full)
            if (
                kept is not None
                and kept.generation == running.generation
                and running.now() < kept.refresh_at
                and kept.coder is self._coder
            ):
                running.memory_hits += 1
                running.touch(full)
                value: T = kept.value if kept.is_shareable else kept.copy()
                return value
        return (await self.fetch(key, load, tags=tags)).value

    async def fetch(self, key: str, load: Loader[T], *, tags: Sequence[str] = ()) -> Served[T]:
        """As `get_or_load`; returns the value with its age, where it is from, and why it is not fresh."""
        self._running  # noqa: B018  started?
        ask = Ask(self._full(key), key, partial(load, key), self._tags(tags), self._coder)
        return await self._home.reader.fetch(ask)

    async def get(self, key: str, default: T | None = None) -> T | None:
        """Return the value of a key if it is fresh in memory or the shared cache, else the default."""
        running = self._home.running
        if running is not None and type(key) is str:
            full = self._prefix + key
            kept = running.find(full)
            if (
                kept is not None
                and kept.generation == running.generation
                and running.now() < kept.fresh_until
                and kept.coder is self._coder
            ):
                running.memory_hits += 1
                running.touch(full)
                value: T = kept.value if kept.is_shareable else kept.copy()
                return value
        self._running  # noqa: B018
        found = await self._home.many.one(self._full(key), self._coder)
        return default if found is None else found.copy()

    async def get_many(self, keys: Iterable[str]) -> dict[str, T]:
        """Return the values of those keys that are fresh, by key; one question for every 500. Raises LimitReached for
        more than 10,000 keys."""
        self._running  # noqa: B018
        return await self._home.many.get(self._named(keys), self._coder)

    async def get_or_load_many(
        self,
        keys: Iterable[str],
        load: Callable[[list[str]], Awaitable[Mapping[str, T]]],
        *,
        tags: Sequence[str] = (),
    ) -> dict[str, T]:
        """Return the values of some keys, what is missing by one call of `load(missing keys)`.

        A key the loader does not return is not in the result. If it raises, stale values of all that was missing are
        served where there are any; else its error is raised.
        """
        self._running  # noqa: B018
        return await self._home.many.get_or_load(self._named(keys), load, self._tags(tags), self._coder)

    async def last_good(self, key: str) -> Served[T] | None:
        """Return the newest value there is, fresh or stale, with its age, without loading one; None if there is none.
        What was removed is not."""
        self._running  # noqa: B018
        return await self._home.many.last_good(self._full(key), self._coder)

    async def keeping(self, key: str) -> Callable[[T], Awaitable[None]] | None:
        """Return what keeps a value that you load from now on: called with it, it stores it unless the key was taken
        away meanwhile. None while a fresh value is there."""
        self._running  # noqa: B018
        return await self._home.many.keeping(self._full(key), self._tags(()), self._coder)

    def key_maker(
        self, template: str, function: Callable[..., Any]
    ) -> Callable[[Sequence[Any], Mapping[str, Any]], str]:
        """Return what makes a key of a call's arguments, by a template as `cached` takes. Raises CacheConfigError."""
        return KeyMaker(self._path, template, function)

    # --- write -------------------------------------------------------------------------------------------------------

    async def set(self, key: str, value: T, *, tags: Sequence[str] = (), ttl_seconds: float | None = None) -> None:
        """Put a value; while the shared cache is away it is in memory, and what is there is removed later.

        Raises CacheValueInvalid for one that is too large or does not come back as it is, CacheUnavailable.
        """
        await self.set_many({key: value}, tags=tags, ttl_seconds=ttl_seconds)

    async def set_many(
        self, values: Mapping[str, T], *, tags: Sequence[str] = (), ttl_seconds: float | None = None
    ) -> None:
        """Put several, in one go for every 500; each is checked before the first is written. Raises as `set`."""
        self._running  # noqa: B018
        named = self._named(values)
        await self._home.many.set(
            {full: values[key] for full, key in named.items()}, self._tags(tags), self._coder, ttl_seconds
        )

    async def expire(self, *keys: str) -> None:
        """Let values be stale from now on, everywhere; they are served only when nothing newer can be had.

        All four that take away return when it is done in the shared cache, or kept in the store until it is, and raise
        CacheUnavailable when neither could be.
        """
        await self._running.invalidate([self._off(self._full(key), Action.EXPIRE) for key in keys])

    async def remove(self, *keys: str) -> None:
        """Let values be gone everywhere, and never be served again."""
        await self._running.invalidate([self._off(self._full(key), Action.REMOVE) for key in keys])

    async def expire_tag(self, *tags: str) -> None:
        """As `expire`, for all entries of this cache, or part of it, with one of these tags."""
        marked = [f"{self._path}#{tag}" for tag in _checked_tags(tags)]
        await self._running.invalidate([self._off(tag, Action.EXPIRE, True) for tag in marked])

    async def remove_tag(self, *tags: str) -> None:
        """As `remove`, for all entries of this cache, or part of it, with one of these tags."""
        marked = [f"{self._path}#{tag}" for tag in _checked_tags(tags)]
        await self._running.invalidate([self._off(tag, Action.REMOVE, True) for tag in marked])

    async def clear(self) -> None:
        """Remove all entries of this cache, or part of it."""
        await self._running.invalidate([self._off(self._path, Action.REMOVE, True)])

    @staticmethod
    def _off(target: str, action: Action, is_tag: bool = False) -> Invalidation:
        return Invalidation(action=action, target=target, is_tag=is_tag)

    # --- more --------------------------------------------------------------------------------------------------------

    def within(self, name: str) -> Cache[T]:
        """Return a part of this cache, with keys, tags and a `clear` of its own. Raises CacheConfigError."""
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise CacheConfigError(self._path, [f"within({name!r}): use a letter and up to 63 of a-z, 0-9, _, ., -"])
        return Cache(self._home, f"{self._path}/{name}", self._coder)

    def cached(
        self, template: str, *, tags: Sequence[str] = (), ttl_seconds: float | None = None
    ) -> Callable[[Callable[P, Awaitable[Any]]], Callable[P, Awaitable[Any]]]:
        """Cache what an async function returns, by a key made of its arguments: `@products.cached("product:{sku}")`.

        template: names parameters in braces; their values are text, numbers, UUIDs, dates, enums or None. The class of
        the values is what the function is annotated to return, or that of the cache. Raises CacheConfigError.
        """

        def decorate(function: Callable[P, Awaitable[Any]]) -> Callable[P, Awaitable[Any]]:
            if not inspect.iscoroutinefunction(function):
                raise CacheConfigError(self._path, [f"@cached on {function!r}: write async def"])
            of = get_type_hints(function).get("return")
            coder = self._coder if of is None or of is Any else Coder(self._path, of)
            key_of, own = KeyMaker(self._path, template, function), self._tags(tags)
            home, prefix = self._home, self._prefix

            @wraps(function)
            async def call(*arguments: P.args, **named: P.kwargs) -> Any:
                running = home.running
                if running is None:
                    raise self._not_started()
                key = key_of(arguments, named)
                full = prefix + key
                kept = running.find(full)
                if (
                    kept is not None
                    and kept.generation == running.generation
                    and running.now() < kept.refresh_at
                    and kept.coder is coder
                ):
                    running.memory_hits += 1
                    running.touch(full)
                    return kept.value if kept.is_shareable else kept.copy()
                ask = Ask(full, key, partial(function, *arguments, **named), own, coder, ttl_seconds)
                return (await home.reader.fetch(ask)).value

            return call

        return decorate

    def stats(self) -> CacheStats:
        """Return what this cache has done in this process since it started."""
        return self._running.settled()

    @property
    def _running(self) -> Running:
        running = self._home.running
        if running is None:
            raise self._not_started()
        return running

    def _not_started(self) -> NotStarted:
        return NotStarted(f"cache {self._path!r} is used before its service was started, or after it was stopped")

    def _full(self, key: str) -> str:
        check_key(key)
        return self._prefix + key

    def _named(self, keys: Iterable[str]) -> dict[str, str]:
        if isinstance(keys, str):
            raise CacheKeyInvalid(f"keys {keys!r}: give a list of keys")
        return {self._full(key): key for key in keys}

    def _tags(self, tags: Sequence[str]) -> tuple[str, ...]:
        return (*self._parts, *(f"{part}#{tag}" for tag in _checked_tags(tags) for part in self._parts))


def _checked_tags(tags: Sequence[str]) -> Sequence[str]:
    if isinstance(tags, str):
        raise CacheKeyInvalid(f"tags={tags!r}: give a list of tags")
    for tag in tags:
        check_key(tag)
    return tags


class KeyMaker:
    """Makes keys from the arguments of a call, without binding them by the signature each time."""

    def __init__(self, name: str, template: str, function: Callable[..., Any]) -> None:
        parameters = list(inspect.signature(function).parameters.values())
        places = {one.name: place for place, one in enumerate(parameters)}
        pieces = list(Formatter().parse(template))
        faults = [
            f"{{{field}}} is no parameter of {function.__qualname__}({', '.join(places)})"
            for _, field, _, _ in pieces
            if field is not None and field not in places
        ]
        if any(one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD) for one in parameters):
            faults.append(f"{function.__qualname__} takes * or **; name its parameters")
        if any(spec or conversion for _, _, spec, conversion in pieces):
            faults.append("a field is its name alone, without ! or :")
        if faults:
            raise CacheConfigError(name, [f"@cached({template!r}): {fault}" for fault in faults])
        self._template = template
        self._fields = [field for _, field, _, _ in pieces if field is not None]
        self._format = "".join(
            text.replace("%", "%%") + ("" if field is None else "%s") for text, field, _, _ in pieces
        )
        self._takes = [(places[one], one, parameters[places[one]].default) for one in self._fields]

    def __call__(self, arguments: Sequence[Any], named: Mapping[str, Any]) -> str:
        """Return the key. Raises TypeError for a value that is no part of a key."""
        values = []
        for place, name, default in self._takes:
            value = arguments[place] if place < len(arguments) else named.get(name, default)
            values.append(value if type(value) is str and "%" not in value and ":" not in value else _text(name, value))
        return self._format % tuple(values)


def _text(name: str, value: object) -> str:
    if not isinstance(value, _IN_KEYS):
        raise TypeError(
            f"{name}={type(value).__name__}: in a key stand str, int, bool, UUID, Decimal, date, datetime, Enum, None"
        )
    if isinstance(value, Enum):
        value = value.value
    # what separates fields in most templates must not come from a value: two calls would share one key
    return str(value).replace("%", "%25").replace(":", "%3A")
