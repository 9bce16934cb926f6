"""Carries between the processes of a service what was said of a policy in one of them: an operator's isolation, its
release, a reset, a dependency's "not before".

Every few seconds a process reads what is in the store, takes over what is news to it, and writes what is news to the
store. Two that write the same row at once lose one of the two values, until the next turn of whoever wrote it.

Must never happen: a call that waits for this.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from spoolproof import limits
from spoolproof.clock import Clock
from spoolproof.ids import derived_id
from spoolproof.lifecycle.loop import Loop
from spoolproof.maintenance.events import FactNotTold, FactUnreadable
from spoolproof.maintenance.fact import ISOLATION, Fact, apply_facts, facts_of, read_fact
from spoolproof.policies import Registry
from spoolproof.ports.state import State, StateRecord
from spoolproof.telemetry.events import emit

_KEPT_SECONDS = 60.0  #: a row outlives its fact by this: clocks differ
_UNREADABLE_SECONDS = 86_400.0  #: no fact is told for longer; until then another release may know what it says


class FactExchange(Loop):
    """The loop that reads and writes them."""

    name = "policies.facts"

    def __init__(self, service: str, policies: Registry, state: State, *, clock: Clock) -> None:
        self._kind = f"fact/{service}"
        self._policies = policies
        self._state = state
        self._clock = clock

    async def run_once(self) -> int:
        """Exchange, and rest. Raises StoreUnavailable."""
        await self._exchange()
        await self._clock.sleep(limits.FACTS_SECONDS)
        return 1

    async def drain(self) -> None:
        """Tell what happened since the last turn. Raises StoreUnavailable."""
        await self._exchange()

    async def _exchange(self) -> None:
        now = self._clock.now()
        stored: dict[str, Fact] = {}
        for row, record in (await self._state.all(self._kind)).items():
            fact = _read(row, record)
            if fact is not None and not fact.is_over(now.timestamp() - _KEPT_SECONDS):
                stored[row] = fact
            elif fact is not None or now - record.updated_at > timedelta(seconds=_UNREADABLE_SECONDS):
                await self._state.remove(self._kind, row)
        apply_facts(self._policies, [fact.to_dict() for fact in stored.values()])
        for fact in (fact for policy in self._policies.all() for fact in facts_of(policy)):
            try:
                if fact.is_news_to(stored.get(row := _row_of(fact))):
                    await self._state.put(self._kind, row, msgspec.json.encode(fact.to_dict()))
            except (TypeError, ValueError) as error:  # a key or reason that is no text, or too long for any row
                emit(FactNotTold(policy=fact.policy, kind=fact.kind, error=str(error)))


async def tell_fact(state: State, service: str, fact: Fact) -> None:
    """Tell every process of a service a fact, as one of its own would. Raises StoreUnavailable, ValueError."""
    await state.put(f"fact/{service}", _row_of(fact), msgspec.json.encode(fact.to_dict()))


async def known_facts(state: State, service: str, now: datetime) -> list[Fact]:
    """Return the facts of a service that are not over. Raises StoreUnavailable."""
    found = [_read(row, record) for row, record in (await state.all(f"fact/{service}")).items()]
    return [fact for fact in found if fact is not None and not fact.is_over(now.timestamp())]


def _read(row: str, record: StateRecord) -> Fact | None:
    try:
        return read_fact(msgspec.json.decode(record.value))
    except (msgspec.MsgspecError, TypeError, ValueError) as error:
        emit(FactUnreadable(row=row, error=str(error)))
        return None


def _row_of(fact: Fact) -> str:
    return f"{fact.policy}:{derived_id(fact.kind, fact.key or '', fact.id if fact.kind == ISOLATION else '')}"
