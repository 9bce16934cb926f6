"""Runs the calls and blocks of a policy, or of one key of it, from their begin to what is told of their end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from spoolproof.clock import Clock
from spoolproof.policies import events
from spoolproof.policies.call import Call, Held, Options, _idempotency_key, current
from spoolproof.policies.deadline import ends_at
from spoolproof.policies.judging.report import Report, attach, disposition_of, met_closed_breakers
from spoolproof.policies.judging.verdict import Kind, Verdict
from spoolproof.policies.parts.chaos import Chaos
from spoolproof.policies.running.block import Attempts, Block
from spoolproof.policies.running.pipeline import Machines
from spoolproof.policies.running.retry import PUT_OFF


class Runner:
    """What runs calls."""

    name: str
    key: str | None
    clock: Clock
    is_idempotent: bool
    machines: Machines
    _chaos: Chaos | None

    def check_function(self, function: Callable[..., Any], is_async: bool) -> None:
        """Refuse a function that cannot be protected. Raises PolicyConfigError."""
        raise NotImplementedError

    def new_call(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: Options | None = None,
    ) -> Call:
        """Return a call that has not begun."""
        call = Call()
        call.owner = self
        call.function = function
        call.args = args
        call.kwargs = kwargs
        call.options = options
        if options is not None:
            call.lane, call.cost = options.lane, options.cost
        return call

    async def run(self, call: Call) -> Any:
        """Run a call to its end."""
        machines = self.machines
        pipeline = machines.pipeline
        call.now = call.started_at = self.clock.monotonic()
        if self._chaos is not None:
            call.without_chaos, call.function = call.function, self._chaos.around(call)
        # what every call looks at: found on the object itself it costs a fraction of a default of the class
        call.attempts = 0
        call.verdict = None
        call.deadline_at = None if ends_at.get() is None else current(ends_at)
        deadline = held = None
        if pipeline.is_deadline_outermost and pipeline.deadline is not None:
            deadline = pipeline.deadline.begin(call)
        if call.options is not None:
            held = Held(_idempotency_key, call.options.idempotency_key)
        try:
            value = await pipeline.root.run(call)
        except BaseException as error:
            self._failed(call, error)
            raise
        finally:
            if held is not None:
                held.end()
            if deadline is not None:
                deadline.end()
        if call.verdict is None and not events.listeners:  # the common case
            machines.counts.succeeded += 1
        else:
            self._succeeded(call)
        return value

    def turn_away(self) -> None:
        """Raise BreakerOpen for a call that the breaker would reject before anything else is done for it: an outage has
        many of them, so there is not even a Call for one."""
        breaker = self.machines.pipeline.breaker
        if breaker is None or not (until := breaker.rejects_until) or (now := self.clock.monotonic()) >= until:
            return
        self.machines.counts.refused += 1
        if events.listeners:
            self._tell_refused(breaker.state(now))
        # not by way of a local variable: a frame that holds what it raised is left to the collector
        raise breaker.rejection(until - now) from None

    def _tell_refused(self, state: str) -> None:
        name, key = self.name, self.key
        events.emit(events.CallRejectedBy(name, key, by="breaker", reason=f"the breaker is {state}"))
        if self.machines.pipeline.retry is not None:
            events.emit(events.RetryStopped(name, key, reason="local", attempts=1))
        ended = events.CallEnded(name, key, result=Kind.LOCAL, source="live", attempts=1, elapsed_seconds=0.0)
        events.emit(ended)

    def open_block(self, call: Call) -> Block:
        """Return a block that runs once."""
        block = self.machines.pipeline.block
        return Block(call, block, block.timeout_seconds, self._begin_block)

    def open_attempts(self, call: Call) -> Attempts:
        """Return a block that may run again."""
        return Attempts(call, self.machines.pipeline, self._begin_block)

    def _begin_block(self, call: Call) -> None:
        call.now = call.started_at = self.clock.monotonic()
        call.deadline_at = current(ends_at)
        deadline = self.machines.pipeline.deadline
        if deadline is not None:
            deadline.shorten(call)
        call.on_end = self._ended

    def _ended(self, call: Call, error: BaseException | None) -> None:
        if error is None:
            self._succeeded(call)
        else:
            self._failed(call, error)

    def _succeeded(self, call: Call) -> None:
        if call.verdict is None:
            self.machines.counts.succeeded += 1
        else:
            self.machines.counts.note_end(call.verdict.kind or "success", call.source)
        if events.listeners:
            self._announce(call, call.verdict)

    def _failed(self, call: Call, error: BaseException) -> None:
        verdict = call.verdict
        if verdict is None or not isinstance(error, Exception):
            verdict = self.machines.pipeline.block.judge.of_error(call, error)
        if verdict.kind is not Kind.CANCELLED:
            self._attach_report(call, verdict, error)
        self.machines.counts.note_end(verdict.kind or "success", call.source)
        if events.listeners:
            self._announce(call, verdict)

    def _attach_report(self, call: Call, verdict: Verdict, error: BaseException) -> None:
        elapsed = call.now - call.started_at
        is_closed = self.machines.is_closed(self.clock.monotonic()) and met_closed_breakers(error, call.started_at)
        disposition = disposition_of(
            verdict,
            is_unknown_any=call.is_unknown,
            is_idempotent=call.is_idempotent,
            is_breaker_closed=is_closed,
            is_put_off=call.stop_reason in PUT_OFF,
        )
        note = ""
        if call.stop_reason:
            of = max(call.attempts_max, call.attempts)
            note = f"attempt {call.attempts} of {of}, {elapsed:.3g} s, stopped by: {call.stop_reason}"
        kept = Report(
            *(verdict, call.attempts, elapsed, call.stop_reason, disposition, is_closed),
            ended_at=call.now,
            is_unknown_any=call.is_unknown,
        )
        attach(error, kept, f"policy {self.name!r}", note)

    def _announce(self, call: Call, verdict: Verdict | None) -> None:
        events.emit(
            events.CallEnded(
                self.name,
                self.key,
                result="success" if verdict is None or verdict.kind is None else verdict.kind,
                source=call.source,
                attempts=call.attempts,
                elapsed_seconds=call.now - call.started_at,
            )
        )
