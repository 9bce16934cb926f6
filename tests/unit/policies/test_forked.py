"""A worker that is forked after its policies were made: what it draws, and what of its parent it does not inherit."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")

_PROGRAM = """
import json, os, sys, threading
from spoolproof.clock import SYSTEM
from spoolproof.ids import Ids
from spoolproof.policies import *
from spoolproof.policies.running.retry import delay_seconds

policy = Policy(
    "psp", Retry(3, delay_seconds=5), Breaker(Consecutive(1), open_seconds=0.1, open_jitter=0),
    RateLimit(100, queue_max=5), Bulkhead(1, wait_seconds_max=0), lint_ignore={"W1", "W4"},
)
waiting = Policy("slow", Bulkhead(1, wait_seconds_max=30))
within = Policy("within", Bulkhead(3))
retry = policy.machines.pipeline.retry
ids = Ids(SYSTEM)
ids.uuid7()

def down(): raise ConnectionResetError
policy.result_sync(down)
while policy.state != "half_open": pass
inside, leave = threading.Event(), threading.Event()

def hold():
    machines = policy.machines
    with machines.circuit.lock, machines.slots.lock, machines.tokens.lock, default_registry()._lock:
        inside.set()
        leave.wait()

def probe():
    threading.Thread(target=hold).start()
    inside.wait()
    leave.wait()

def fork():
    if os.fork() == 0:
        delays = [delay_seconds(retry.settings, attempt, retry.random) for attempt in (3, 3, 3)]
        found = {
            "delays": delays, "id": str(ids.uuid7())[-12:],
            "probe": policy.result_sync(int).value, "running": policy.machines.slots.running,
            "waited": waiting.result_sync(int).value, "names": default_registry().names(),
        }
        print(json.dumps(found), flush=True)
        return True
    os.wait()

threads = [threading.Thread(target=policy.call_sync, args=(probe,), daemon=True)]
threads += [threading.Thread(target=waiting.result_sync, args=(leave.wait,), daemon=True) for _ in range(2)]
for thread in threads: thread.start()
inside.wait()
while waiting.machines.slots.queued < 1: pass
for _ in range(2):
    if within.call_sync(fork):
        print(json.dumps(within.machines.slots.running), flush=True)
        os._exit(0)
os._exit(0)
"""


def test_a_forked_worker_has_back_offs_and_ids_of_its_own_and_nothing_of_its_parents_calls() -> None:
    """The parent's threads hold every lock, a slot, a probe and places in queues; none of them lives in the child."""
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=50, check=False)

    assert 0 == done.returncode, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    children, left = lines[::2], lines[1::2]
    assert [0, 0] == left  # the slot of the call that forked is the parent's too, and given back to nobody
    assert 2 == len(children)
    assert children[0]["delays"] != children[1]["delays"]
    assert children[0]["id"] != children[1]["id"]
    for child in children:
        assert (0, 0, 0) == (child["probe"], child["running"], child["waited"])
        assert ["psp", "slow", "within"] == child["names"]
