"""What a flow is given: its calls, answered from the journal as far as that goes.

After a claim the flow runs again from the top. Every call has a place in the order of calls, counted when it is made,
not when it is awaited; what is recorded at that place must be the same call. A flow whose order has changed is stopped
with a question: no answer of one step may be handed out as that of another.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from spoolproof import limits
from spoolproof.codec import EVENT_MARK
from spoolproof.ids import derived_id
from spoolproof.ports.reviews import Priority
from spoolproof.ports.sagas import FINAL, Phase, StepRow, StepState
from spoolproof.saga.attempt import Attempts, Tools, Work, about
from spoolproof.saga.definition import SagaDefinition, StepDefinition
from spoolproof.saga.errors import Refused
from spoolproof.saga.events import ArgumentsChanged
from spoolproof.saga.halt import Ask, Halt, Release, weightiest
from spoolproof.saga.question import Kind, Question, approval, signal_of
from spoolproof.saga.record import Record
from spoolproof.saga.step import Verdict
from spoolproof.saga.values import decode, digest
from spoolproof.telemetry.events import emit


class Taken(msgspec.Struct, frozen=True):
    """A signal that a flow has got."""

    id: str
    body: msgspec.Raw


class Flow:
    """The saga, as its flow sees it. Await nothing else in a flow, and ask no clock and no chance."""

    def __init__(self, tools: Tools, record: Record, definition: SagaDefinition, attempts: Attempts) -> None:
        self._tools = tools
        self._record = record
        self._definition = definition
        self._attempts = attempts
        self._counts: Counter[str] = Counter()
        rows = [row for row in record.rows.values() if row.phase is not Phase.COMPENSATE and row.seq]
        self._retired = {row.seq for row in rows if row.phase is Phase.DO and _is_retired(definition.find(row.name))}
        self._at = {row.seq: row for row in rows if row.seq not in self._retired}
        self._seq = 0

    @property
    def id(self) -> str:
        """The saga's id."""
        return self._record.saga.saga_id

    @property
    def key(self) -> str:
        """What it was started under."""
        return self._record.saga.key

    def uuid(self, label: str) -> str:
        """Return a UUID that is the same on every replay."""
        return derived_id(self.id, label)

    def do(self, step: StepDefinition, *arguments: Any, key: str | None = None) -> Coroutine[Any, Any, Any]:
        """Run a step and return what it returns; what was recorded is returned without a call. Raises Refused.

        key: which of several, where the same step is called for many things; default how often it was called before.
        """
        if not isinstance(step, StepDefinition) or self._definition.find(step.name) is not step or step.is_retired:
            raise TypeError(f"saga.do({step!r}): no step of {self._definition.name!r}; mark it with @….step()")
        return self._do(step, arguments, self._place(Phase.DO, step.name, digest(*arguments), key, step.aliases))

    async def _do(self, step: StepDefinition, arguments: tuple[Any, ...], row: StepRow) -> Any:
        if row.state is StepState.REFUSED:
            raise Refused(row.error)
        if row.state in FINAL:
            return decode(row.output, step.output)
        work = Work(
            row=row,
            definition=step,
            effect=step.effect,
            call=step.function,
            arguments=arguments,
            output=step.output,
            retry_seconds=step.retry_seconds,
        )
        return await self._attempts.finish(work)

    async def gather(self, *calls: Awaitable[Any]) -> list[Any]:
        """Return what several calls return, in their order; they run beside each other. When one ends the saga, or is
        refused, the others come to their end first."""
        was_alone, self._attempts.is_alone = self._attempts.is_alone, False
        try:
            ends = await asyncio.gather(*calls, return_exceptions=True)
        finally:
            self._attempts.is_alone = was_alone
        halts = [end for end in ends if isinstance(end, Halt)]
        if halts:
            raise weightiest(halts)
        for end in ends:
            if isinstance(end, BaseException):
                raise end
        return list(ends)

    def sleep(self, seconds: float) -> Coroutine[Any, Any, None]:
        """Return after so many seconds, however often the service restarts meanwhile."""
        return self._sleep(seconds, self._place(Phase.FLOW, "sleep", digest(seconds)))

    async def _sleep(self, seconds: float, row: StepRow) -> None:
        if row.state in FINAL:
            return
        row = self._begun(row)
        left = seconds - self._record.age_seconds(row.started_at)
        if left > 0:
            await self._pause(left, "timer")
        self._record.put(replace(row, state=StepState.SUCCEEDED))

    async def _pause(self, seconds: float, waiting_for: str) -> None:
        is_short = seconds <= limits.SAGA_IN_PLACE_SECONDS
        if not is_short or self._tools.is_draining() or not self._attempts.is_alone:
            raise Release(seconds, waiting_for)
        await self._record.flush()
        await self._tools.clock.sleep(seconds)

    def wait(self, signal: str | type, *, timeout: float | None = None) -> Coroutine[Any, Any, Any]:
        """Return the next signal of that name that no `wait` has had; None after `timeout` seconds.

        signal: a name, whose payload comes as JSON has it, or a class, whose instance comes.
        """
        name = signal_name(signal)
        row = self._place(Phase.FLOW, f"wait:{name}", digest(timeout))
        return self._wait(name, Any if isinstance(signal, str) else signal, timeout, row)

    async def _wait(self, name: str, kind: Any, timeout: float | None, row: StepRow) -> Any:
        if row.state is StepState.SKIPPED:
            return None
        if row.state not in FINAL:
            row = self._begun(row)
            known = {msgspec.json.decode(one.output, type=Taken).id for one in self._taken()}
            new = [one for one in self._record.signals if one.type == name and one.message_id not in known]
            left = None if timeout is None else timeout - self._record.age_seconds(row.started_at)
            if new:
                output = msgspec.json.encode(Taken(new[0].message_id, msgspec.Raw(new[0].body)))
                row = self._record.put(replace(row, state=StepState.SUCCEEDED, output=output))
            elif left is not None and left <= 0:
                self._record.put(replace(row, state=StepState.SKIPPED))
                return None
            else:
                raise Release(left, name if name.startswith("review:") else f"signal:{name}")
        return decode(bytes(msgspec.json.decode(row.output or b"", type=Taken).body), kind)

    def _taken(self) -> list[Any]:
        rows = self._record.rows.values()
        return [row for row in rows if row.name.startswith("wait:") and row.state is StepState.SUCCEEDED]

    def review(
        self,
        name: str,
        *,
        text: str = "",
        evidence: Any = None,
        priority: str = Priority.NORMAL,
        due_seconds: float | None = None,
    ) -> Coroutine[Any, Any, Verdict]:
        """Ask a person, and return the answer: approve, reject, or edit with a payload. Until then the saga waits.

        name: of the question; the item of `step.open_review(name, …)` is waited for if there is one. text: what to
        decide. evidence: what is known, JSON-ready. priority, due_seconds: see `service.reviews.open`. Raises
        InvalidMessage.
        """
        row = self._place(Phase.FLOW, f"wait:{signal_of(name)}", "")
        asked = approval(self.id, name, text=text, evidence=evidence, priority=priority, due_seconds=due_seconds)
        return self._review(asked, row)

    async def _review(self, asked: Question, row: StepRow) -> Verdict:
        signal = signal_of(asked.name)
        try:
            verdict: Verdict = await self._wait(signal, Verdict, None, row)
        except Release:
            items = {one.item for one in self._record.rows.values() if one.name == signal}
            if not items - {one.message_id for one in self._record.signals}:
                self._record.asks.append(asked)
            raise
        return verdict

    # --- the order of calls ------------------------------------------------------------------------------------------

    def check_over(self) -> None:
        """Raise Ask if the journal holds calls that this flow did not make."""
        left = [row for seq, row in self._at.items() if seq > self._seq]
        if left:
            text = f"the journal has {left[0].name!r} as call {left[0].seq}; the flow made {self._seq} calls"
            raise Ask(about(Kind.REPLAY_MISMATCH, left[0], text))

    def _begun(self, row: StepRow) -> StepRow:
        return self._record.put(row) if row.started_at is None else row

    def _place(
        self, phase: Phase, name: str, arguments: str, key: str | None = None, aliases: Sequence[str] = ()
    ) -> StepRow:
        """Return the row of the call that is made now. Raises Ask when another one is recorded in its place."""
        self._seq += 1
        while self._seq in self._retired:  # what the flow called there is no step any more
            self._seq += 1
        if self._seq > limits.SAGA_STEPS_MAX:
            raise RuntimeError(f"more than {limits.SAGA_STEPS_MAX} calls in one saga; start another one for the rest")
        self._counts[name] += 1
        item = str(self._counts[name]) if key is None else key
        if not item or "/" in item or len(item) > limits.SAGA_KEY_CHARACTERS_MAX:
            raise ValueError(f"saga.do(key={key!r}): 1 to {limits.SAGA_KEY_CHARACTERS_MAX} characters, no '/'")
        name = next((one for one in aliases if (phase, one, item) in self._record.rows), name)
        known = self._record.rows.get((phase, name, item))
        there = self._at.get(self._seq)
        new = StepRow(phase=phase, name=name, item=item, state=StepState.STARTED, seq=self._seq, arguments=arguments)
        if there is not known or (known is not None and known.seq != self._seq):
            found = there or known or new
            text = (
                f"call {self._seq} of the flow is {name!r} ({item}), the journal has {found.name!r} ({found.item}) as "
                f"call {found.seq}; run the version that wrote it, or give changed flows a new version"
            )
            raise Ask(about(Kind.REPLAY_MISMATCH, found, text))
        if known is None:
            return new
        if known.arguments != arguments:
            if known.state not in FINAL:
                text = f"{name!r} ({item}) is called with other arguments than before; one key must not mean two things"
                raise Ask(about(Kind.REPLAY_MISMATCH, known, text))
            emit(ArgumentsChanged(saga=self._definition.name, step=name, id=self.id))
        return known


def _is_retired(step: StepDefinition | None) -> bool:
    return step is not None and step.is_retired


def signal_name(signal: object) -> str:
    """Return the name of a signal: itself, or the wire name of an event class, or the class's own."""
    if isinstance(signal, str):
        return signal
    kind = signal if isinstance(signal, type) else type(signal)
    mark = kind.__dict__.get(EVENT_MARK)
    return mark.name if mark is not None else kind.__name__
