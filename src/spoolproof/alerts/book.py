"""What is known of the alerts of a service, and where it is kept: a row each in the store, and a file of this machine.

Rows of one kind in the table of small facts, by name: `alert:IDENTITY` and `exits`, written by whoever judges;
`share:PROCESS`, what that process has of every fact, written by it alone; `silence:ID`, `ack:IDENTITY`, by people.

The file is a copy, written when an alert changes and, while the store is away, at every turn: then it also says who of
this machine judges. Two that begin at once settle it with the next turn, long before anybody is notified.

Must never happen: an alert forgotten, or told of twice, because the store was away or another process judges now.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

import msgspec

from spoolproof.alerts.engine import Alert
from spoolproof.alerts.events import AlertRowUnreadable
from spoolproof.clock import Clock
from spoolproof.ports.state import State
from spoolproof.telemetry.folding import Folded

T = TypeVar("T")

ALERT, SHARE, SILENCE, ACK, EXITS = "alert:", "share:", "silence:", "ack:", "exits"
_FILE_JUDGE_SECONDS = 20.0  #: after so long without a word in the file somebody else of this machine judges


def kind_of(service: str) -> str:
    """Return the kind of the rows of a service."""
    return f"alert/{service}"


class Silence(msgspec.Struct, frozen=True, kw_only=True):
    """Nobody is told of alerts of this rule, with these labels, until then."""

    id: str
    rule: str
    labels: dict[str, str]
    author: str
    reason: str
    begins_at: datetime
    ends_at: datetime

    def covers(self, alert: Alert, now: datetime) -> bool:
        """Whether it is about this alert, and not over."""
        return (
            alert.rule == self.rule
            and now < self.ends_at
            and all(alert.labels.get(name) == value for name, value in self.labels.items())
        )


class Acknowledged(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody has an alert in hand."""

    author: str
    at: datetime


class ShareRow(msgspec.Struct, frozen=True, kw_only=True):
    """What a process has of every fact. is_drained: it has ended as it should."""

    host: str
    pid: int
    shares: dict[str, list[tuple[list[str], list[float]]]] = {}
    is_drained: bool = False


class Copy(msgspec.Struct, frozen=True, kw_only=True):
    """What the file holds. judge: the process that wrote it last."""

    judge: str
    at: datetime
    alerts: list[Alert]
    silences: list[Silence] = []


@dataclass(frozen=True, slots=True)
class AlertFile:
    """Where the copy of this machine is; None: nothing is kept beside the store."""

    path: Path | None


class Book:
    """The alerts by identity, silences by id, and what else the store held at the last look."""

    def __init__(self, service: str, state: State, file: AlertFile, *, clock: Clock) -> None:
        self.kind = kind_of(service)
        self.alerts: dict[str, Alert] = {}
        self.silences: dict[str, Silence] = {}
        self.acks: dict[str, Acknowledged] = {}
        self.shares: dict[str, ShareRow] = {}
        self.exits: dict[str, datetime] = {}
        self.read_back: dict[str, datetime] = {}  # when each share was written, by the store's clock
        self._kept: dict[str, Alert] = {}  # as the store has them
        self._state = state
        self._file = file.path
        self._clock = clock
        self._folded = Folded(clock)
        self._keeping = asyncio.Lock()

    async def look(self, *, takes_over: bool) -> None:
        """Read all rows. takes_over: alerts are what the rows say, and else what this process knows of them, who has
        judged since its last look. Raises StoreUnavailable."""
        rows = await self._state.all(self.kind)
        found = {name: record.value for name, record in rows.items()}
        self.read_back = {name: record.updated_at for name, record in rows.items() if name.startswith(SHARE)}
        self._kept = self._those(found, ALERT, Alert)
        self.silences = self._those(found, SILENCE, Silence)
        self.acks = self._those(found, ACK, Acknowledged)
        self.shares = self._those(found, SHARE, ShareRow)
        self.exits = (self._read(EXITS, found[EXITS], dict[str, datetime]) or {}) if EXITS in found else {}
        if takes_over:
            self.alerts = dict(self._kept)

    async def keep(self) -> None:
        """Write what has changed to the file, then to the store. Raises StoreUnavailable."""
        async with self._keeping:
            alerts = dict(self.alerts)
            if alerts == self._kept:
                return
            self.keep_in_file("")
            for identity, alert in alerts.items():
                if self._kept.get(identity) != alert:
                    await self._state.put(self.kind, ALERT + identity, msgspec.json.encode(alert))
            for identity in self._kept.keys() - alerts.keys():
                await self._state.remove(self.kind, ALERT + identity)
                await self._state.remove(self.kind, ACK + identity)
            self._kept = alerts

    async def forget_silences(self) -> None:
        """Remove those that are over. Raises StoreUnavailable."""
        now = self._clock.now()
        for id in [id for id, one in self.silences.items() if one.ends_at <= now]:
            await self._state.remove(self.kind, SILENCE + id)

    @property
    def has_no_file(self) -> bool:
        """Whether nothing is kept beside the store: this process alone can go on without it."""
        return self._file is None

    # --- the file of this machine ------------------------------------------------------------------------------------

    def judges_by_file(self, process: str) -> bool:
        """Whether this process judges while the store is away; takes over what the file knows if so."""
        if self._file is None:
            return False
        copy = self._copy()
        now = self._clock.now()
        if copy is not None and copy.judge != process:
            if copy.judge and abs(now - copy.at) < timedelta(seconds=_FILE_JUDGE_SECONDS):
                return False
            self.join_copy()
        self.keep_in_file(process)
        return True

    def join_copy(self) -> None:
        """Take over what the file knows better: it was written while the store was away."""
        copy = self._copy()
        if copy is None:
            return
        for alert in copy.alerts:
            known = self.alerts.get(alert.identity)
            if known is None or known.since < alert.since:
                self.alerts[alert.identity] = alert
            elif known.since == alert.since:
                self.alerts[alert.identity] = msgspec.structs.replace(known, told=known.told | alert.told)
        self.silences = {one.id: one for one in copy.silences} | self.silences

    def keep_in_file(self, judge: str) -> None:
        """Write the copy; a disk that does not take it has an alert of its own. judge: who judges by it; "" where the
        store says that."""
        if self._file is None:
            return
        copy = Copy(
            judge=judge,
            at=self._clock.now(),
            alerts=list(self.alerts.values()),
            silences=list(self.silences.values()),
        )
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            fresh = self._file.with_suffix(f".{os.getpid()}")
            fresh.write_bytes(msgspec.json.encode(copy))
            fresh.replace(self._file)

    def _copy(self) -> Copy | None:
        if self._file is None:
            return None
        with suppress(OSError):
            return self._read(str(self._file), self._file.read_bytes(), Copy)
        return None

    def _those(self, rows: Mapping[str, bytes], prefix: str, kind: type[T]) -> dict[str, T]:
        found = {
            name.removeprefix(prefix): self._read(name, rows[name], kind) for name in rows if name.startswith(prefix)
        }
        return {name: one for name, one in found.items() if one is not None}

    def _read(self, name: str, value: bytes, kind: type[T]) -> T | None:
        try:
            return msgspec.json.decode(value, type=kind)
        except (msgspec.MsgspecError, ValueError) as error:
            self._folded.emit(AlertRowUnreadable(row=name, error=str(error)))
            return None
