"""What the processes of a service know of its level together: what an operator has set, and where each of them is.

Rows of the state table, one of the operator and one of each process that leaves something out. A row that is over says
nothing, and whoever meets it removes it, so a process that died leaves nothing behind for long.

Must never happen: a level that stays because nobody takes it back.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

from spoolproof.clock import Clock
from spoolproof.degradation.errors import DegradationError
from spoolproof.degradation.events import OverrideUnreadable
from spoolproof.degradation.levels import LEVELS, NAMES
from spoolproof.ports.state import State, StateRecord
from spoolproof.telemetry.events import emit

SET = "set"
"""The name of the operator's row; those of processes are their ids."""
SECONDS = 3600.0
SECONDS_MAX = 86_400.0
REASON_MAX = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A level somebody is at, or has set. until, at: wall-clock seconds. actor: who set it, or the process."""

    level: int
    reason: str
    actor: str
    until: float
    at: float

    def document(self) -> dict[str, Any]:
        """Return it for people and JSON."""
        moments = {name: datetime.fromtimestamp(getattr(self, name), UTC) for name in ("at", "until")}
        return {"level": self.level, "name": NAMES[self.level], "reason": self.reason, "actor": self.actor, **moments}


@dataclass(frozen=True, slots=True)
class Known:
    """What the store says now. set: by an operator. processes: those that leave something out, by id."""

    set: Told | None = None
    processes: dict[str, Told] = field(default_factory=dict)


def kind_of(service: str) -> str:
    """Return the kind of the rows of a service."""
    return f"degradation/{service}"


def checked(level: object, reason: object, seconds: object) -> None:
    """Raise DegradationError for what nobody can set."""
    faults = []
    if level not in LEVELS or isinstance(level, bool):
        faults.append(f"level={level!r}: 0 ({NAMES[0]}) to 3 ({NAMES[3]})")
    if not isinstance(reason, str) or not 0 < len(reason.strip()) <= REASON_MAX or not reason.isprintable():
        faults.append(f"reason={reason!r}: 1 to {REASON_MAX} printable characters; it is shown to everybody")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= SECONDS_MAX:
        faults.append(f"seconds={seconds!r}: above 0 and at most {SECONDS_MAX:g} (24 h)")
    if faults:
        raise DegradationError("; ".join(faults))


async def set_level(
    state: State, service: str, level: int, *, reason: str, actor: str, seconds: float = SECONDS, clock: Clock
) -> Told:
    """Set the level of all processes of a service, until `seconds` are over. Raises DegradationError and
    StoreUnavailable."""
    checked(level, reason, seconds)
    now = clock.now().timestamp()
    told = Told(level=level, reason=reason, actor=actor, until=now + seconds, at=now)
    await put(state, service, SET, told)
    return told


async def clear_level(state: State, service: str) -> bool:
    """Take back what was set; False if nothing was. Raises StoreUnavailable."""
    return await state.remove(kind_of(service), SET)


async def put(state: State, service: str, name: str, told: Told) -> None:
    """Write a row. Raises StoreUnavailable."""
    await state.put(kind_of(service), name, msgspec.json.encode(asdict(told)))


async def known(state: State, service: str, clock: Clock) -> Known:
    """Return what is set and where the processes are, and remove what is over. Raises StoreUnavailable."""
    now = clock.now().timestamp()
    found: dict[str, Told] = {}
    for name, record in (await state.all(kind_of(service))).items():
        told = _read(name, record)
        if told is None or told.until <= now or told.until > record.updated_at.timestamp() + SECONDS_MAX + 60:
            await state.remove(kind_of(service), name)
        else:
            found[name] = told
    return Known(found.pop(SET, None), found)


def _read(name: str, record: StateRecord) -> Told | None:
    try:
        told = msgspec.json.decode(record.value, type=Told)
        checked(told.level, told.reason, 1)
    except (msgspec.MsgspecError, DegradationError) as error:
        emit(OverrideUnreadable(row=name, error=str(error)))
        return None
    return told
