"""Keeps what breakers know in the store, so that a service that dies while one is open does not run into the same
outage again at its restart.

Each transition marks its policy, on whatever thread it happens; this loop saves what is marked, the newest state only.
A cooldown is no transition: the loop looks for those every few seconds, which costs no call anything, and a shorter one
is not worth a row. A store that is away costs nothing but lateness: the mark stays, and no call waits for a save. A
closed breaker without a cooldown has no row. Rows are kept per service, not per process: the last writer wins, and a
restarted process takes over whatever its siblings last knew, at most 24 h old.

Must never happen: a call that waits for the store, or fails because of it; a start that fails over a snapshot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import msgspec

from spoolproof.clock import Clock
from spoolproof.errors import LimitReached, Unavailable
from spoolproof.ids import derived_id
from spoolproof.lifecycle.loop import Loop
from spoolproof.maintenance.breaker_log import BreakerLog, Name
from spoolproof.maintenance.events import NotRestored, NotSaved
from spoolproof.policies import Policy, Registry
from spoolproof.policies.events import BreakerChanged
from spoolproof.ports.state import State, StateRecord
from spoolproof.telemetry.events import emit

_LOOK_SECONDS = 5.0  #: how late a policy or key that is new is watched, and a cooldown is seen
_RECORD_SECONDS_MAX = 86_400.0  #: what a policy restores; an older row is of no use to anybody


@dataclass(slots=True)
class Watched:
    """A policy or key that is watched. cooldown_until: as last seen, in its monotonic seconds; 0 without one."""

    circuit: object
    unwatch: Callable[[], None]
    cooldown_until: float = 0.0


class Breakers(Loop):
    """The loop that saves breakers, and what restores them before anything runs."""

    name = "policies.breakers"

    def __init__(self, service: str, policies: Registry, state: State, *, clock: Clock) -> None:
        self._kind = f"breaker/{service}"
        self._policies = policies
        self._state = state
        self._clock = clock
        self.log = BreakerLog(clock)
        self._watched: dict[Name, Watched] = {}  # bounded as the registry is
        self._marked: dict[Name, Policy] = {}
        self._stirred = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def restore(self) -> None:
        """Take over what was saved, for every policy there is. Never raises over what it finds; logs it."""
        try:
            records = await self._state.all(self._kind)
            for name, record in records.items():
                self._restore(name, record)
            for name, record in records.items():
                if self._clock.now() - record.updated_at > timedelta(seconds=_RECORD_SECONDS_MAX):
                    await self._state.remove(self._kind, name)
        except (Unavailable, LimitReached) as error:
            emit(NotRestored(error=str(error)))

    async def start(self) -> None:
        """Watch every breaker."""
        self._loop = asyncio.get_running_loop()
        self._watch()

    async def run_once(self) -> int:
        """Save what is marked, or wait a few seconds for something to be."""
        self._watch()
        saved = await self._save()
        self._stirred.clear()
        if self._marked:
            return saved
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                await self._stirred.wait()
        except TimeoutError:
            pass
        return saved

    async def drain(self) -> None:
        """Save what is still marked, if the store is there."""
        await self._save()

    async def stop(self) -> None:
        """Watch no more. Idempotent."""
        self._loop = None
        for watched in self._watched.values():
            watched.unwatch()
        self._watched.clear()

    # --- watch -------------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Watch breakers that are new, and let go of those that are no more."""
        found: set[Name] = set()
        for policy in self._policies.all():
            name = (policy.name, policy.key)
            circuit = policy.machines.circuit
            known = self._watched.get(name)
            found.add(name)
            if known is None or known.circuit is not circuit:
                if known is not None:
                    known.unwatch()
                known = self._watched[name] = Watched(circuit, policy.watch(self._marker(name, policy)))
                if policy.state != "closed":  # it changed before it was watched
                    self._marked[name] = policy
                    self.log.found(policy)
            until = policy.machines.cooldown.until
            cooldown_until = until if until > policy.clock.monotonic() else 0.0
            if cooldown_until != known.cooldown_until:
                known.cooldown_until = cooldown_until
                self._marked[name] = policy
        for name in self._watched.keys() - found:
            self._watched.pop(name).unwatch()
            self.log.gone(name)

    def _marker(self, name: Name, policy: Policy) -> Callable[[BreakerChanged], None]:
        def mark(change: BreakerChanged) -> None:
            self._marked[name] = policy
            self.log.changed(policy, change)
            loop = self._loop
            try:
                if loop is not None:
                    loop.call_soon_threadsafe(self._stirred.set)
            except RuntimeError:
                return  # the loop is closed, and the service with it

        return mark

    # --- keep --------------------------------------------------------------------------------------------------------

    async def _save(self) -> int:
        names = list(self._marked)
        for name in names:
            policy = self._marked.pop(name)
            try:
                await self._save_one(name, policy)
            except BaseException:
                self._marked.setdefault(name, policy)  # the next turn tries again, with whatever is true by then
                raise
        return len(names)

    async def _save_one(self, name: Name, policy: Policy) -> None:
        snapshot = policy.snapshot()
        try:
            row = _row_name(name)
            if snapshot.get("state", "closed") == "closed" and snapshot.get("cooldown_until") is None:
                await self._state.remove(self._kind, row)
                return
            value = msgspec.json.encode({"key": policy.key, "snapshot": snapshot})
            await self._state.put(self._kind, row, value)
        except (ValueError, OverflowError) as error:  # too large, or a key that is no text: every turn would meet it
            emit(NotSaved(policy=policy.name, error=str(error)))

    def _restore(self, row: str, record: StateRecord) -> None:
        try:
            policy = self._policies.get(row.partition(":")[0])
        except KeyError:
            return  # renamed or removed in this release; its row goes when it is old
        try:
            document = msgspec.json.decode(record.value)
            key, snapshot = document["key"], document["snapshot"]
        except (msgspec.MsgspecError, KeyError, TypeError):
            key, snapshot = None, None  # damaged: the policy says so with an event
        if isinstance(key, str):
            policy = policy.for_key(key)
        if policy.state == "closed":  # else it has lived on in this process and knows better
            policy.restore(snapshot)


def _row_name(name: Name) -> str:
    policy, key = name
    return policy if key is None else f"{policy}:{derived_id(policy, key)}"
