"""What a forked child does not inherit: locks, slots, probes, waiters and abandoned threads of its parent.

Only the thread that forks lives on in the child. A lock that another one held would never be released, and a slot or a
probe of a call that ran in another would never come back. What is known of the dependency (counts, open breakers,
isolations, cooldowns) is as true in the child.
"""

from __future__ import annotations

import os
import threading
from typing import Any
from weakref import WeakSet

from spoolproof.policies import events
from spoolproof.policies.definition import Definition
from spoolproof.policies.machines import memory
from spoolproof.policies.machines.circuit import Circuit
from spoolproof.policies.machines.line import Line
from spoolproof.policies.machines.slots import Slots
from spoolproof.policies.machines.tokens import Tokens
from spoolproof.policies.running.pipeline import Machines
from spoolproof.policies.running.retry import Drain

registries: WeakSet[Any] = WeakSet()  #: every registry of this process


def in_child() -> None:
    """Begin in the child."""
    _free(events._lock)
    _free(memory.lock)
    for registry in registries:
        _free(registry._lock)
        _drain(registry.drain_switch)
        for definition in registry._definitions.values():
            _definition(definition)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=in_child)


def _free(lock: Any) -> None:
    lock._at_fork_reinit()  # in place: others keep its methods


def _drain(drain: Drain) -> None:
    _free(drain._lock)
    drain._sleepers.clear()
    drain._event = threading.Event()
    if drain.is_draining:
        drain._event.set()


def _definition(definition: Definition) -> None:
    _free(definition._lock)
    _free(definition._budget._lock)
    _free(definition._abandoned.lock)
    definition._abandoned.count = 0
    children = [*definition._alive.values(), definition._overflow]
    for machines in [definition._own, *(child.machines for child in children if child is not None)]:
        if machines is not None:
            _machines(machines)


def _machines(machines: Machines) -> None:
    _free(machines.cooldown._lock)
    for one in (machines.memory.answers, machines.memory.latencies):
        if one is not None:
            _free(one._lock)
    if machines.circuit is not None:
        _circuit(machines.circuit)
    if machines.slots is not None:
        _line(machines.slots)
    if machines.tokens is not None:
        _line(machines.tokens)


def _circuit(circuit: Circuit) -> None:
    _free(circuit.lock)
    _free(circuit._changes._telling)
    circuit._probes.clear()
    circuit._running.clear()
    circuit._set_fast()  # a transition may have been under way


def _line(line: Line) -> None:
    _free(line.lock)
    line.queued = 0
    line._is_busy = False
    for waiters in (line._granted, line._told, line._late):
        waiters.clear()
    if isinstance(line, Slots):
        line.running = 0
        line._lanes = ()
        if line._adaptive is not None:
            _free(line._adaptive._lock)
    elif isinstance(line, Tokens):
        line._queue.clear()
        line._queued_cost = 0.0
    line._gate(False)
