"""Redis as the shared cache.

What decides is decided in Redis, by scripts that run alone. Keys of a service are `sp:{service}:…`, with the braces
that keep them together where Redis is a cluster; beside the entries there are four: `@sequence` (counts barriers),
`@barriers` (a hash of them), `@epoch` (which run of which server the rest belongs to) and `@bell` (counts what was told
to the other processes, on a channel of the same name: a gap in it is a message lost).

A Redis that was restarted, or a replica in its place, may have forgotten the last removals and kept what they removed.
So every new connection asks for the server's run id before it is used; where that is not the one in `@epoch`, or one of
the four is missing, everything of the service is barred. The counter goes on from the server's clock in microseconds,
so that no number is ever given twice.

Never here: KEYS, SCAN, FLUSHDB; a retry (the next read is one); a wait without a limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

from spoolproof.caches.redis_address import pool_options
from spoolproof.errors import MissingExtra
from spoolproof.ids import random_id
from spoolproof.ports.cache import (
    TOMBSTONE_SECONDS,
    Action,
    Barriers,
    CacheAway,
    Heard,
    Invalidation,
    Listener,
    Reading,
    Write,
)
from spoolproof.urls import seeds_of

CONNECTIONS_MAX = 32
IDLE_MAX = 8  #: kept for reads
ANSWER_SECONDS = 0.5  #: of connecting, writing and scripts; a read says itself how long it waits
POLL_SECONDS = 1.0
CHECK_SECONDS = 5.0  #: how late a lost message is noticed
PORTION = 500
BARRIERS_MAX = 10_000

_BELL = """
local n = redis.call('INCR', bell)
redis.call('PUBLISH', bell, n .. ' ' .. told)
"""
_EPOCH = """
local s, known = redis.call('GET', KEYS[1]), tonumber(ARGV[2])
local is_whole = s and tonumber(s) >= known and redis.call('HEXISTS', KEYS[2], '@') == 1
if is_whole and redis.call('GET', KEYS[3]) == ARGV[1] then
  return s
end
local t = redis.call('TIME')
local n = string.format('%.0f', math.max(t[1] * 1000000 + t[2], tonumber(s or '0') + 1, known + 1))
redis.call('SET', KEYS[1], n)
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[2], '@', n, 'h*', n)
redis.call('SET', KEYS[3], ARGV[1])
redis.call('PUBLISH', KEYS[4], redis.call('INCR', KEYS[4]) .. ' - - 0 ')
return n
"""
_WRITE = """
if ARGV[1] ~= '*' then
  if redis.call('GETRANGE', KEYS[1], 0, 16) ~= ARGV[1] then return 0 end
  local t = redis.call('TIME')
  if t[1] * 1000 + t[2] / 1000 > tonumber(ARGV[4]) then return 0 end
  if redis.call('EXISTS', KEYS[3]) == 0 or redis.call('HEXISTS', KEYS[2], '@') == 0 then return 0 end
  for i = 6, #ARGV do
    local b = redis.call('HGET', KEYS[2], ARGV[i])
    if b and tonumber(b) > tonumber(ARGV[5]) then return 0 end
  end
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""
_PUT = (
    """
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
local bell, told = KEYS[2], ARGV[3]
"""
    + _BELL
    + "return 1"
)
_KEY = (
    """
if ARGV[1] == 'expire' and redis.call('GETRANGE', KEYS[1], 0, 0) == '\\1' then
  redis.call('SETRANGE', KEYS[1], 1, ARGV[2] .. '\\0\\0\\0\\0\\0\\0\\0\\0')
else
  redis.call('SET', KEYS[1], '\\0' .. ARGV[2], 'PX', ARGV[3])
end
local bell, told = KEYS[2], ARGV[4]
"""
    + _BELL
    + "return 1"
)
_BARRIER = (
    """
if redis.call('EXISTS', KEYS[1]) == 0 or redis.call('HEXISTS', KEYS[2], '@') == 0 then return 0 end
local n = redis.call('INCR', KEYS[1])
n = string.format('%.0f', n)
if redis.call('HLEN', KEYS[2]) > tonumber(ARGV[2]) then
  redis.call('DEL', KEYS[2])
  redis.call('HSET', KEYS[2], '@', n, 'h*', n)
end
redis.call('HSET', KEYS[2], ARGV[1], n)
local bell, told = KEYS[3], ARGV[3] .. ' ' .. n .. ' ' .. ARGV[4]
"""
    + _BELL
    + "return 1"
)


def _packed(*words: str) -> bytes:
    """Return a command as Redis reads it (RESP, https://redis.io/docs/latest/develop/reference/protocol-spec/)."""
    encoded = [word.encode() for word in words]
    return b"*%d\r\n" % len(encoded) + b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded])


class RedisCache:
    """Implements `ports.cache.SharedCache`. Raises MissingExtra."""

    name = "redis"
    is_remote = True

    def __init__(self, url: str, service: str) -> None:
        try:
            import redis.asyncio as redis
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
        except ImportError:
            raise MissingExtra("redis", "redis") from None
        self._redis = redis
        self._prefix = f"sp:{{{service}}}:"
        self._sequence, self._barriers, self._epoch, self._bell = (
            f"sp:{{{service}}}@{name}" for name in ("sequence", "barriers", "epoch", "bell")
        )
        self._origin = random_id()[:12]
        self._idle: list[Any] = []
        self._waiting = 0
        self._known = 0  #: the greatest counter that was ever seen
        seeds = seeds_of(url)
        make: Any = redis.BlockingConnectionPool
        if seeds is None:
            make = partial(redis.BlockingConnectionPool.from_url, url)
        else:
            make = partial(make, **pool_options(seeds, self._sequence, ANSWER_SECONDS))
        self._pool: Any = make(
            max_connections=CONNECTIONS_MAX,
            timeout=ANSWER_SECONDS,
            socket_timeout=ANSWER_SECONDS,
            socket_connect_timeout=ANSWER_SECONDS,
            retry=Retry(NoBackoff(), 0),
            health_check_interval=15,
            protocol=2,
            redis_connect_func=self._connected,
        )
        self._client: Any = redis.Redis(connection_pool=self._pool)
        scripts = (_WRITE, _PUT, _KEY, _BARRIER)
        self._write, self._put, self._key, self._barrier = (self._client.register_script(one) for one in scripts)

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        for connection in self._idle:
            with suppress(Exception):  # one that is broken is gone anyway
                await connection.disconnect(nowait=True)
        self._idle.clear()
        with suppress(Exception):
            await self._client.aclose()
        with suppress(Exception):
            await self._pool.aclose()

    async def _connected(self, connection: Any) -> None:
        """Make sure, on a connection nobody has used yet, that the server is the one that was there."""
        await connection.on_connect()
        await connection.send_command("INFO", "server")
        info = dict(
            line.split(":", 1) for line in bytes(await connection.read_response()).decode().splitlines() if ":" in line
        )
        keys = (self._sequence, self._barriers, self._epoch, self._bell)
        await connection.send_command("EVAL", _EPOCH, len(keys), *keys, info["run_id"], self._known)
        self._known = max(self._known, int(await connection.read_response()))

    async def sync(self) -> Barriers:
        async with self._answering(ANSWER_SECONDS):
            await self._client.execute_command("PING")
            async with self._client.pipeline(transaction=True) as pipe:
                pipe.get(self._sequence)
                pipe.hgetall(self._barriers)
                sequence, barriers = await pipe.execute()
            if sequence is None or b"@" not in barriers:
                await self._forgotten()
        self._known = max(self._known, int(sequence))
        named = [(field.decode(), int(value)) for field, value in barriers.items()]
        hard, soft = ({field[1:]: n for field, n in named if field[0] == kind} for kind in "hs")
        return Barriers(int(sequence), hard, soft)

    async def _forgotten(self) -> None:
        """Something of the four was deleted under us: whoever connects anew puts it right."""
        while self._idle:
            connection = self._idle.pop()
            await connection.disconnect(nowait=True)
            await self._pool.release(connection)
        await self._pool.disconnect(inuse_connections=False)
        raise CacheAway("its keys were deleted; everything is barred at the next connection")

    async def read(self, keys: Sequence[str], seconds: float) -> Reading:
        known = self._known  # before it is asked: answers may overtake each other
        found: list[bytes | None] = []
        sequence: Any = None
        try:  # not `_answering`, which costs a tenth of the answer
            async with asyncio.timeout(seconds):
                for start in range(0, len(keys), PORTION):
                    names = [self._prefix + key for key in keys[start : start + PORTION]]
                    # the counter of the first portion goes for all: what was taken away later is found by its number
                    *values, counted = await self._mget(*names, self._sequence)
                    found += values
                    sequence = sequence if start else counted
                if sequence is None or int(sequence) < known:
                    await self._forgotten()
        except CacheAway:
            raise
        except Exception as error:
            raise self._away(error, seconds) from error
        self._known = max(self._known, int(sequence))
        return Reading(found, int(sequence))

    async def _mget(self, *names: str) -> list[Any]:
        """Ask on a connection that is kept for reads: taking one from the pool and giving it back costs more than the
        question. One that was closed while it was idle is replaced by one that asks for the run id."""
        while self._idle:
            connection = self._idle.pop()
            try:
                return await self._asked(connection, names)
            except (self._redis.ConnectionError, OSError):
                continue
        self._waiting += 1
        try:
            connection = await self._pool.get_connection()
        finally:
            self._waiting -= 1
        return await self._asked(connection, names)

    async def _asked(self, connection: Any, names: Sequence[str]) -> list[Any]:
        is_whole = False
        connection.socket_timeout = None  # whoever reads has a limit of his own, around all of it
        try:
            await connection.send_packed_command(_packed("MGET", *names))
            found: list[Any] = await connection.read_response()
            is_whole = True
            return found
        finally:
            if is_whole and not self._waiting and len(self._idle) < IDLE_MAX:
                self._idle.append(connection)
            else:
                connection.socket_timeout = ANSWER_SECONDS
                if not is_whole:
                    await connection.disconnect(nowait=True)
                await self._pool.release(connection)

    async def write(self, writes: Sequence[Write]) -> Sequence[bool]:
        done: list[bool] = []
        async with self._answering(ANSWER_SECONDS):
            for start in range(0, len(writes), PORTION):
                async with self._client.pipeline(transaction=False) as pipe:
                    for one in writes[start : start + PORTION]:
                        await self._add(pipe, one)
                    done += [bool(answer) for answer in await pipe.execute()]
        return done

    async def _add(self, pipe: Any, one: Write) -> None:
        key, milliseconds = self._prefix + one.key, max(1, int(one.seconds * 1000))
        if one.seen is None:
            told = f"{self._origin} - {Action.REMOVE} 0 {one.key}"
            await self._put(keys=[key, self._bell], args=[one.raw, milliseconds, told], client=pipe)
            return
        fields = [kind + tag for tag in ("*", *one.tags) for kind in "hs"]
        arguments: list[Any] = [one.seen, one.raw, milliseconds, one.until_ms, one.sequence, *fields]
        await self._write(keys=[key, self._barriers, self._sequence], args=arguments, client=pipe)

    async def invalidate(self, invalidations: Sequence[Invalidation]) -> None:
        for start in range(0, len(invalidations), PORTION):
            portion = invalidations[start : start + PORTION]
            try:
                async with self._answering(ANSWER_SECONDS):
                    async with self._client.pipeline(transaction=False) as pipe:
                        for one in portion:
                            await self._take_away(pipe, one)
                        answers = await pipe.execute()
                    if not all(answers):
                        await self._forgotten()
            except CacheAway as error:
                if error.is_full:
                    await self._unlink([one.target for one in portion if not one.is_tag])
                raise

    async def _take_away(self, pipe: Any, one: Invalidation) -> None:
        told = f"{one.action} {int(one.is_tag)} {one.target}"
        if one.is_tag:
            field = ("h" if one.action is Action.REMOVE else "s") + one.target
            keys = [self._sequence, self._barriers, self._bell]
            await self._barrier(keys=keys, args=[field, BARRIERS_MAX, self._origin, told], client=pipe)
            return
        arguments: list[Any] = [str(one.action), bytes.fromhex(random_id()), int(TOMBSTONE_SECONDS * 1000)]
        keys = [self._prefix + one.target, self._bell]
        await self._key(keys=keys, args=[*arguments, f"{self._origin} - {told}"], client=pipe)

    async def _unlink(self, keys: Sequence[str]) -> None:
        """Take values away where there is no memory for a tombstone; whoever asked keeps at it until there is."""
        with suppress(CacheAway):
            async with self._answering(ANSWER_SECONDS):
                if keys:
                    await self._client.execute_command("UNLINK", *(self._prefix + key for key in keys))

    async def listen(self, heard: Listener) -> None:
        async with self._client.pubsub() as pubsub:
            async with self._answering(ANSWER_SECONDS):
                await pubsub.subscribe(self._bell)
                await pubsub.get_message(timeout=ANSWER_SECONDS)
                last = int(await self._client.execute_command("GET", self._bell) or 0)
            heard(Heard(None))
            loop = asyncio.get_running_loop()
            checked_at, told = loop.time(), last
            while True:
                async with self._answering(POLL_SECONDS + ANSWER_SECONDS):
                    message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=POLL_SECONDS)
                if message is not None:
                    last = self._hear(message["data"], last, heard)
                if loop.time() - checked_at < CHECK_SECONDS:
                    continue
                if told > last:  # what had been told a while ago has not come
                    last = told
                    heard(Heard(None))
                async with self._answering(ANSWER_SECONDS):
                    told = int(await self._client.execute_command("GET", self._bell) or 0)
                last, checked_at = min(last, told), loop.time()

    def _hear(self, data: bytes, last: int, heard: Listener) -> int:
        number, origin, sequence, action, is_tag, target = data.decode().split(" ", 5)
        if int(number) != last + 1 or action == "-":
            heard(Heard(None))
        elif origin != self._origin or is_tag == "1":
            one = Invalidation(action=Action(action), target=target, is_tag=is_tag == "1")
            heard(Heard(one, int(sequence) if is_tag == "1" else 0))
        return int(number)

    @asynccontextmanager
    async def _answering(self, seconds: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(seconds):
                yield
        except CacheAway:
            raise
        except Exception as error:
            raise self._away(error, seconds) from error

    def _away(self, error: Exception, seconds: float) -> CacheAway:
        """The one place where Redis' errors become ours; what is no error of its kind is raised as it is."""
        errors, text = self._redis, str(error) or type(error).__name__
        if isinstance(error, TimeoutError | errors.TimeoutError):
            return CacheAway(f"no answer in {seconds:g} s", is_slow=True)
        if isinstance(error, errors.AuthenticationError):
            return CacheAway(f"{text}; see the password in SPOOLPROOF_CACHE or REDIS_PASSWORD")
        if isinstance(error, errors.RedisError | OSError):
            is_ours = isinstance(error, errors.ResponseError) and not text.startswith(("NOAUTH", "WRONGPASS", "NOPERM"))
            return CacheAway(text, is_full=is_ours or text.startswith("No connection available"))
        if isinstance(error, ValueError | KeyError):  # whatever answers there speaks another protocol
            return CacheAway(f"not understood: {text}")
        raise error
