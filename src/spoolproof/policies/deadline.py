"""How long the caller still waits: a moment that only ever comes nearer, seen by everything below.

It is a context variable, so it reaches every policy and every task started below without being passed on, for as long
as the call lasts: a task that outlives it is free again. Over HTTP it travels as the milliseconds that remain, never as
a time of day: clocks differ, durations do not. Messages do not carry it: work that was accepted does not expire."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from spoolproof.clock import AMBIENT, Clock
from spoolproof.policies.call import Held, current

HEADER = "spoolproof-deadline-ms"
_MILLISECONDS_MAX = 86_400_000  #: a day: a larger one is a mistake of the sender, not a deadline
ends_at: ContextVar[float | Held[float] | None] = ContextVar("spoolproof.deadline", default=None)


def remaining(clock: Clock = AMBIENT) -> float | None:
    """Return the seconds left to whoever called us, 0 when none are, None without a deadline."""
    at = current(ends_at)
    return None if at is None else max(0.0, at - clock.monotonic())


def headers() -> dict[str, str]:
    """Return the HTTP header that hands the remaining time on to another service; empty without a deadline."""
    left = remaining()
    return {} if left is None else {HEADER: str(int(left * 1000))}


@contextmanager
def received(http_headers: Mapping[str, str], clock: Clock = AMBIENT) -> Iterator[None]:
    """Apply the deadline a caller sent, for the length of the block. A header that makes no sense is ignored."""
    text = next((value for name, value in http_headers.items() if name.lower() == HEADER), "")
    if not (text.isascii() and text.isdigit() and len(text) <= 8 and int(text) <= _MILLISECONDS_MAX):
        yield
        return
    at = clock.monotonic() + int(text) / 1000
    earlier = current(ends_at)
    held = Held(ends_at, at if earlier is None else min(at, earlier))
    try:
        yield
    finally:
        held.end()
