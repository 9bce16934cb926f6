"""What policies tell, and that telling never gets in anybody's way."""

from __future__ import annotations

import subprocess
import sys

_TOLD_BY_A_COLLECTION = """
import gc
from spoolproof.policies import events


class Abandoned:
    def __init__(self):
        self.itself = self

    def __del__(self):
        events.emit(events.RetryNested(policy="psp"))


def broken(event):
    raise ValueError


events.subscribe(broken)
gc.disable()
for allocations in range(1, 100):  # one of them is made under the lock
    gc.collect()
    Abandoned()
    gc.set_threshold(allocations)
    gc.enable()
    events.subscribe(print)()
    gc.disable()
assert events.listener_errors() > 50
"""


def test_a_call_that_the_collector_ends_while_somebody_subscribes_does_not_hang_the_thread() -> None:
    """It ends on the thread that holds the lock, and a listener may raise over it."""
    ended = subprocess.run([sys.executable, "-c", _TOLD_BY_A_COLLECTION], capture_output=True, timeout=20, check=False)

    assert 0 == ended.returncode, ended.stderr
