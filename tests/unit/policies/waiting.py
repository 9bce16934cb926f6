"""How a thread waits for what a guard has not admitted at once."""

from __future__ import annotations

from spoolproof.policies.call import Call, Guard, run_now


def wait_blocking(guard: Guard, call: Call) -> object:
    call.is_blocking = True
    return run_now(guard.wait(call))
