"""Runs sync attempts that have a Timeout in threads of their own.

A thread cannot be ended from outside. At the limit it is left to itself and counted; at the maximum of its policy
further attempts are refused unstarted, because each abandoned thread keeps its stack and whatever it hangs on. They are
daemons: one that hangs for ever does not keep the interpreter from ending. One thread an attempt, because a thread
costs some 50 µs and whoever needs a time limit waits for something slower than that."""

from __future__ import annotations

import contextvars
import threading
from typing import Any

from spoolproof.errors import ThreadsExhausted
from spoolproof.policies.call import Call, _idempotency_key, current, run_now
from spoolproof.policies.counts import Counts
from spoolproof.policies.deadline import ends_at
from spoolproof.policies.discard import discard
from spoolproof.policies.retry import is_delivery, is_repeating
from spoolproof.policies.timeout import expired

_OF_CALLS: tuple[contextvars.ContextVar[Any], ...] = (ends_at, is_repeating, is_delivery, _idempotency_key)


class Abandoned:
    """How many threads of one policy, all its keys together, hang in attempts that were given up on. Not of a process:
    one dependency that hangs refuses the calls of no other. maximum: 0 runs attempts on the caller's thread."""

    __slots__ = ("count", "lock", "maximum")

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.count = 0
        self.maximum = 0


class _Attempt:
    """One attempt in a thread: it ends, or is abandoned, whichever is first."""

    __slots__ = ("abandoned", "call", "done", "error", "is_abandoned", "value")

    def __init__(self, call: Call, abandoned: Abandoned) -> None:
        self.call = call
        self.abandoned = abandoned
        self.done = threading.Event()
        self.is_abandoned = False
        self.value: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.value = self.call.function(*self.call.args, **self.call.kwargs)
        except BaseException as error:  # whatever it is, it belongs to the caller
            self.error = error
        with self.abandoned.lock:
            self.done.set()
            is_late = self.is_abandoned
            if is_late and self.abandoned.count:  # 0 in a child that was forked here
                self.abandoned.count -= 1
        if is_late:
            run_now(discard(self.value, None, self.call))

    def abandon(self) -> bool:
        """Leave the thread to itself; False if it has ended meanwhile."""
        with self.abandoned.lock:
            if self.done.is_set():
                return False
            self.is_abandoned = True
            self.abandoned.count += 1
            return True


def run_in_thread(call: Call, timeout_seconds: float, abandoned: Abandoned, counts: Counts) -> Any:
    """Return what the function returns, run in a thread with a copy of this context. Raises what it raises,
    AttemptTimeout, DeadlineExceeded, or ThreadsExhausted when too many threads hang."""
    if abandoned.count >= abandoned.maximum:
        raise ThreadsExhausted(policy=call.name, abandoned=abandoned.count)
    own_at = call.attempt_started_at + timeout_seconds
    limit_at = own_at if call.deadline_at is None else min(own_at, call.deadline_at)
    attempt = _Attempt(call, abandoned)
    context = contextvars.copy_context()
    for variable in _OF_CALLS:
        context.run(variable.set, current(variable))  # for a thread that outlives the call they still hold
    call.has_started = True
    counts.attempts += 1
    threading.Thread(target=context.run, args=(attempt.run,), name="spoolproof.attempt", daemon=True).start()
    try:
        is_done = attempt.done.wait(max(0.0, limit_at - call.now))
    except BaseException:  # Ctrl-C in the waiting thread
        attempt.abandon()
        raise
    if not is_done and attempt.abandon():
        raise expired(call, own_at, timeout_seconds)
    error, attempt.error = attempt.error, None
    if error is None:
        return attempt.value
    try:
        raise error
    finally:
        del error  # a traceback that refers to itself would live until the next collection
