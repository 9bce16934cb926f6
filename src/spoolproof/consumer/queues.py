"""Finds queues of this service that no handler reads any more: what a renamed or deleted handler leaves behind.

Such a queue stays bound and goes on filling, and a replay into it is handled by nobody. The broker alone does not know
whose queues it has, so the store does: every process with consumers keeps a row for each queue it reads, renewed once a
minute by one of them. A row that nobody renews, and whose queue is still in the broker, is stranded: at once when no
other process of the service lives, else after three minutes, which outlast the old release of a rolling deploy. The row
then says so, for `spoolproof doctor` and whoever replays; it goes when the queue does, and is as before when a process
reads the queue again.

Time here is that of this process only, from one look to the next: rows carry a version, no clock has to be compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from spoolproof.clock import Clock
from spoolproof.consumer.events import QueueStranded
from spoolproof.errors import BrokerUnavailable, Conflict, NotFound
from spoolproof.lifecycle.loop import Loop
from spoolproof.ports.broker import Broker
from spoolproof.ports.leases import Leases
from spoolproof.ports.state import State, StateRecord
from spoolproof.ports.store import Store
from spoolproof.telemetry.events import emit

_LOOK_SECONDS = 60.0
_SETTLE_SECONDS = 3.0  #: after the start: until then this process and its peers may not be in the process table
_UNREAD_SECONDS = 180.0  #: three looks of a process that does read it


class QueueRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept of a queue. stranded_since: None while a process reads it. messages: how many waited when last
    counted. types: what it was bound to when it was last read."""

    stranded_since: datetime | None = None
    messages: int = 0
    types: tuple[str, ...] = ()

    def sentence(self, queue: str, service: str) -> str:
        """Say what is wrong with a stranded queue."""
        return f"queue {queue}: no handler of {service} reads it any more; {self.messages} messages wait in it"


REMEDY = (
    "name it in the handler that took its place, formerly=[{queue!r}], or move what is in it: spoolproof queue retire "
    "{queue}"
)


def kind_of(service: str) -> str:
    """Return the kind of state under which a service's queues are kept."""
    return f"queue/{service}"


def read_row(record: StateRecord) -> QueueRow:
    """Return what a row says; one that cannot be read says nothing."""
    try:
        return msgspec.json.decode(record.value, type=QueueRow)
    except msgspec.MsgspecError:
        return QueueRow()


async def stranded_queues(state: State, service: str) -> Mapping[str, QueueRow]:
    """Return the stranded queues of a service by name; perhaps none. Raises StoreUnavailable."""
    rows = {name: read_row(record) for name, record in (await state.all(kind_of(service))).items()}
    return {name: row for name, row in rows.items() if row.stranded_since is not None}


async def owner_of(store: Store, queue: str) -> str:
    """Return the service that has a queue. Raises NotFound, or Conflict when two have."""
    owners = [name for name in await store.services.all() if queue in await store.state.all(kind_of(name))]
    if not owners:
        raise NotFound(f"no service of this store has a queue {queue!r}; `spoolproof queue ls` lists those there are")
    if len(owners) > 1:
        raise Conflict(f"queue {queue!r} is read by {' and '.join(owners)}: it is not one's to retire")
    return owners[0]


async def forget_queue(state: State, service: str, queue: str) -> None:
    """Forget a queue that is no more. Raises StoreUnavailable."""
    await state.remove(kind_of(service), queue)


async def document(store: Store) -> dict[str, Any]:
    """Return every queue of every service: what `queue ls --json` prints. Raises StoreUnavailable."""
    found = []
    for service in await store.services.all():
        for name, record in (await store.state.all(kind_of(service))).items():
            row = read_row(record)
            since = None if row.stranded_since is None else row.stranded_since.isoformat()
            one = {"stranded_since": since, "messages": row.messages, "types": list(row.types)}
            found.append({"service": service, "queue": name, **one})
    return {"queues": found}


class QueueWatch(Loop):
    """The loop that keeps the rows of the queues this process reads and finds those that nobody does."""

    name = "queues"
    stall_seconds: float | None = 3 * _LOOK_SECONDS

    def __init__(
        self,
        service: str,
        queues: Mapping[str, tuple[str, ...]],
        state: State,
        leases: Leases,
        broker: Broker,
        *,
        clock: Clock,
    ) -> None:
        """queues: those that this process reads, with the types they are bound to."""
        self._service = service
        self._queues = {name: QueueRow(types=types) for name, types in queues.items()}
        self._state = state
        self._leases = leases
        self._broker = broker
        self._clock = clock
        self._versions: dict[str, tuple[int, float]] = {}  # of each row as last seen, and since when it is that one
        self._stranded: dict[str, QueueRow] = {}
        self._has_settled = False

    def issues(self) -> tuple[str, ...]:
        """Return a sentence for each stranded queue."""
        return tuple(row.sentence(name, self._service) for name, row in self._stranded.items())

    async def run_once(self) -> int:
        """Look at every row, then rest. Raises StoreUnavailable."""
        if not self._has_settled:
            await self._clock.sleep(_SETTLE_SECONDS)
            self._has_settled = True
        await self._look()
        await self._clock.sleep(_LOOK_SECONDS)
        return 1

    async def _look(self) -> None:
        records = await self._state.all(kind_of(self._service))
        unchanged = self._note_versions(records)
        for name, row in self._queues.items():
            record = records.get(name)
            is_due = record is None or unchanged[name] >= _LOOK_SECONDS or read_row(record) != row
            if is_due:
                await self._put(name, row)
        processes = await self._leases.processes()
        is_alone = sum(1 for process in processes if process.service == self._service) <= 1
        found: dict[str, QueueRow] = {}
        for name in records.keys() - self._queues.keys():
            row = read_row(records[name])
            if row.stranded_since is not None or is_alone or unchanged[name] >= _UNREAD_SECONDS:
                judged = await self._judge(name, row)
                if judged is not None:
                    found[name] = judged
        self._stranded = dict(sorted(found.items()))

    def _note_versions(self, records: Mapping[str, StateRecord]) -> Mapping[str, float]:
        """Return for how many seconds each row has been as it is."""
        now = self._clock.monotonic()
        before, self._versions = self._versions, {}
        for name, record in records.items():
            version, since = before.get(name, (None, now))
            self._versions[name] = (record.version, since if version == record.version else now)
        return {name: now - since for name, (_, since) in self._versions.items()}

    async def _judge(self, name: str, row: QueueRow) -> QueueRow | None:
        """Return the row of a queue nobody reads, or None if there is no such queue or that cannot be known now."""
        try:
            messages = await self._broker.depth(name)
        except BrokerUnavailable:
            return row if row.stranded_since is not None else None
        if messages is None:
            await self._state.remove(kind_of(self._service), name)
            return None
        judged = QueueRow(row.stranded_since or self._clock.now(), messages, row.types)
        if judged != row:
            await self._put(name, judged)
        if name not in self._stranded:
            remedy = REMEDY.format(queue=name)
            emit(QueueStranded(queue=name, service=self._service, messages=judged.messages, remedy=remedy))
        return judged

    async def _put(self, name: str, row: QueueRow) -> None:
        await self._state.put(kind_of(self._service), name, msgspec.json.encode(row))
