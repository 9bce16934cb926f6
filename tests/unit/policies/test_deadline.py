"""The deadline as it travels: from a caller's header, through a call, to the next service."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from spoolproof.policies import Bulkhead, Deadline, DeadlineExceeded, Kind, Policy, Registry, Retry, deadline, report
from spoolproof.policies.verdict import SUCCESS
from spoolproof.testing.clock import ManualClock

from .conftest import settle

Make = Callable[..., Policy]


def test_the_time_that_is_left_is_handed_on_in_whole_milliseconds(make: Make, clock: ManualClock) -> None:
    def work() -> list[dict[str, str]]:
        seen = []
        for seconds in (0, 1.2345, 3):
            clock.sleep_blocking(seconds)
            seen.append(deadline.headers())
        return seen

    seen = make(Deadline(4), sync="cooperative").call_sync(work)

    assert [{"spoolproof-deadline-ms": text} for text in ("4000", "2765", "0")] == seen
    assert {} == deadline.headers()


def test_a_header_that_was_sent_is_one_that_is_understood(clock: ManualClock) -> None:
    with deadline.received({"Spoolproof-Deadline-Ms": "1500"}):
        sent = deadline.headers()
        with deadline.received({"spoolproof-deadline-ms": "90000"}):
            nested = deadline.remaining()

    with deadline.received(sent):
        assert (1.5, 1.5) == (nested, deadline.remaining())
    assert deadline.remaining() is None


@pytest.mark.parametrize("text", ["", "-1", "1.5", "soon", "٣", "1e3", "86400001", "000001500", " 5"])
def test_a_header_that_makes_no_sense_is_ignored(clock: ManualClock, text: str) -> None:
    """Whoever sent it; the deadline there was stays."""
    with deadline.received({"spoolproof-deadline-ms": "2000"}), deadline.received({"spoolproof-deadline-ms": text}):
        seen = deadline.remaining()
    with deadline.received({"spoolproof-deadline-ms": text}):
        alone = deadline.remaining()

    assert (2.0, None) == (seen, alone)


@pytest.mark.parametrize("form", ["call", "call_sync", "permit"])
async def test_a_call_whose_time_is_over_is_not_begun(make: Make, clock: ManualClock, form: str) -> None:
    policy = make(Bulkhead(1))
    runs: list[int] = []

    with deadline.received({"spoolproof-deadline-ms": "0"}), pytest.raises(DeadlineExceeded) as raised:
        if form == "permit":
            async with policy.permit():
                runs.append(1)
        elif form == "call":
            await policy.call(runs.append, 1)
        else:
            policy.call_sync(runs.append, 1)

    known = report(raised.value)
    assert ([], False, 0) == (runs, raised.value.has_started, policy.machines.slots.running)
    assert (Kind.DEADLINE, False, 1) == (known.verdict.kind, known.verdict.is_unknown, known.attempts)


class _HeldUp(ManualClock):
    """A clock of a thread that stands still for ten seconds before one of its readings, while others go on."""

    def __init__(self, reading: int) -> None:
        super().__init__()
        self._left = reading
        self.meanwhile: Callable[[], object] = int

    def monotonic(self) -> float:
        self._left -= 1
        if self._left == 0:
            self._elapsed += 10.0
            self.meanwhile()
        return super().monotonic()


@pytest.mark.parametrize("reading", range(1, 13))
@pytest.mark.parametrize("parts", [[Bulkhead(1)], [Bulkhead(1), Retry(2)]], ids=["attempt", "segment"])
@pytest.mark.parametrize("form", ["call", "call_sync", "permit"])
async def test_q30_wherever_a_thread_stands_still_nothing_begins_after_the_deadline(
    form: str, parts: list[Any], reading: int
) -> None:
    """The slot that became free meanwhile is not taken up: nobody waits for the answer any more."""
    with (clock := _HeldUp(reading)).active():
        policy = Policy("psp", Deadline(5), *parts, registry=Registry(environ={}))
        slots = policy.machines.slots
        holder = policy.new_call(int, (), {})
        held = [slots.enter(holder, 0.0)]
        begun: list[float] = []

        def work() -> None:
            begun.append(clock._elapsed)

        async def run() -> None:
            async with policy.permit():
                work()

        def free() -> None:
            if held:
                slots.leave(held.pop(), holder, SUCCESS, 0.5)

        clock.meanwhile = free
        if form == "call_sync":
            await asyncio.to_thread(lambda: (clock.call_at(0.5, free), policy.result_sync(work)))
        else:
            call = asyncio.ensure_future(policy.call(work) if form == "call" else run())
            await settle()
            clock.call_at(0.5, free)
            await clock.advance(1)
            await asyncio.gather(call, return_exceptions=True)
        await clock.advance(1)

    assert 0 == slots.running
    assert [] == [at for at in begun if at >= 5 + (10 if reading == 1 else 0)]
