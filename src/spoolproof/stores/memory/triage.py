"""The memory store's triage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import groupby
from typing import TYPE_CHECKING

from spoolproof import limits
from spoolproof.message import Message
from spoolproof.ports.dead_letters import AuditEntry, DeadLetterDetails, DeadLetterFilter, DeadLetterRecord
from spoolproof.ports.dead_letters import DeadLetterState as State
from spoolproof.ports.triage import Group
from spoolproof.stores.memory.dead_letters import matches

if TYPE_CHECKING:
    from spoolproof.stores.memory.store import MemoryStore


class MemoryTriage:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def groups(self, filter: DeadLetterFilter) -> Sequence[Group]:
        found = [one for one in self._matching(filter) if one.state is State.OPEN]
        found.sort(key=_group_of)
        groups = [self._group(list(alike)) for _, alike in groupby(found, _group_of)]
        return sorted(groups, key=lambda one: (one.count, one.last_failed_at), reverse=True)[: filter.limit]

    async def count(self, filter: DeadLetterFilter) -> int:
        return len(self._matching(filter))

    async def edit(self, id: str, version: int, message: Message, actor: str, detail: str) -> bool:
        letters = self._store.dead_letters
        async with self._store.transaction() as tx:
            record = letters.record(tx, id)
            if record is None or record.state is not State.OPEN or record.version != version:
                return False
            original = record.message.body if record.original_body is None else record.original_body
            edited = replace(record, message=message, version=version + 1, original_body=original)
            letters.write(tx, edited, AuditEntry(self._store.clock.now(), actor, "edited", detail))
            return True

    async def restore(self, letters: Sequence[DeadLetterDetails], actor: str, detail: str) -> int:
        restored = 0
        async with self._store.transaction() as tx:
            for letter in letters:
                record = letter.record
                if self._store.dead_letters.knows(tx, record):
                    continue
                restored += 1
                service = record.service or self._store.services.own_name
                record = replace(record, state=State.OPEN, note=None, closed_at=None, replayed_at=None, service=service)
                entry = AuditEntry(self._store.clock.now(), actor, "imported", detail)
                self._store.dead_letters.write(tx, record, *letter.audit, entry)
        return restored

    def _matching(self, filter: DeadLetterFilter) -> list[DeadLetterRecord]:
        return [record for record in self._store.dead_letters.records() if matches(record, filter)]

    def _group(self, alike: list[DeadLetterRecord]) -> Group:
        newest = max(alike, key=lambda record: record.last_failed_at)
        recent_from = self._store.clock.now() - timedelta(seconds=limits.STILL_FAILING_SECONDS)
        return Group(
            fingerprint=newest.fingerprint,
            consumer=newest.consumer,
            reason=newest.reason,
            error_class=newest.error_class,
            error=newest.error,
            count=len(alike),
            first_failed_at=min(record.first_failed_at for record in alike),
            last_failed_at=newest.last_failed_at,
            recent=sum(record.last_failed_at > recent_from for record in alike),
            sample_id=newest.id,
        )


def _group_of(record: DeadLetterRecord) -> tuple[str, str]:
    return (record.fingerprint, record.consumer)
