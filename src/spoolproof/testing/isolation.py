"""Puts policies back to what they were: a test that used them leaves nothing behind for the next one.

Reaches into the machines that keep count, so whoever gives one of them a new field looks here too. What belongs to a
call in flight (a slot, a place in a queue) is left alone: the call gives it back itself.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from spoolproof.policies import Registry
from spoolproof.policies.definition import Definition
from spoolproof.policies.machines.adaptive import AdaptiveLimit
from spoolproof.policies.machines.circuit import Circuit
from spoolproof.policies.machines.slots import Slots
from spoolproof.policies.machines.tokens import Tokens
from spoolproof.policies.registry import default_registry
from spoolproof.policies.running.pipeline import Machines


@contextmanager
def isolated(registry: Registry | None = None) -> Iterator[Registry]:
    """Let every policy begin the block as new, and be afterwards what it was before.

    That is breakers, rate limits, adaptive limits, cooldowns, retry budgets, last good answers, settings and draining,
    of the process's registry unless given another; policies and keys made inside are forgotten. Slots are not touched:
    who took them gives them back. Policies used by another clock before (the machine's, an earlier `ManualClock`) need
    this: for them no time passes until the new clock is beyond the last moment they saw.
    """
    registry = default_registry() if registry is None else registry
    before = _RegistryState(registry)
    before.start_anew()
    try:
        yield registry
    finally:
        before.put_back()


class _RegistryState:
    """Every policy of a registry as it was."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        with registry._lock:
            self._definitions = dict(registry._definitions)
            self._sources = (registry._sources, registry._source_faults, dict(registry._faults))
        self._is_draining = registry.drain_switch.is_draining
        self._policies = [_PolicyState(definition) for definition in self._definitions.values()]

    def start_anew(self) -> None:
        if self._is_draining:
            self._registry.resume()
        for one in self._policies:
            one.start_anew()

    def put_back(self) -> None:
        registry = self._registry
        with registry._lock:
            registry._definitions = dict(self._definitions)
            registry._sources, registry._source_faults, registry._faults = self._sources
        if registry.drain_switch.is_draining != self._is_draining:
            (registry.drain if self._is_draining else registry.resume)()
        for one in self._policies:
            one.put_back()


class _PolicyState:
    """One policy with its keys as it was."""

    def __init__(self, definition: Definition) -> None:
        self._definition = definition
        self._resolved = definition.resolved
        self._keys = set(definition.children())
        self._budget = _slots_of(definition._budget, "_calls", "_ends", "_fresh", "_retries", "_second")
        self._circuits: list[tuple[Circuit, CircuitState]] = []
        self._cooldowns = []
        self._limits: list[_SlotsState | _TokensState] = []
        self._memories: list[tuple[object, dict[str, Any]]] = []
        for machines in machines_of(definition):
            if machines.slots is not None:
                self._limits.append(_SlotsState(machines.slots, definition))
            if machines.tokens is not None:
                self._limits.append(_TokensState(machines.tokens))
            if machines.memory.answers is not None:
                self._memories.append((machines.memory.answers, _slots_of(machines.memory.answers, "_entries")))
            if machines.memory.latencies is not None:
                latencies = _slots_of(machines.memory.latencies, "_latest", "_sorted")
                self._memories.append((machines.memory.latencies, latencies))
            self._cooldowns.append((machines.cooldown, machines.cooldown.until))
            if machines.circuit is not None:
                self._circuits.append((machines.circuit, CircuitState(machines.circuit)))

    def start_anew(self) -> None:
        budget = self._definition._budget
        _put_slots(budget, _slots_of(type(budget)(), *self._budget))
        for cooldown, _ in self._cooldowns:
            cooldown.until = 0.0
        for circuit, _ in self._circuits:
            CircuitState(_new_like(circuit)).put_on(circuit)
        for limit in self._limits:
            limit.start_anew()
        for memory, kept in self._memories:
            _put_slots(memory, _slots_of(type(memory)(), *kept))

    def put_back(self) -> None:
        definition = self._definition
        if definition.resolved is not self._resolved:
            definition.accept(self._resolved)
        with definition._lock:
            for key in definition._children.keys() - self._keys:
                definition._forget(key)
                definition._alive.pop(key, None)
        _put_slots(definition._budget, self._budget)
        for cooldown, until in self._cooldowns:
            cooldown.until = until
        for circuit, state in self._circuits:
            state.put_on(circuit)
        for limit in self._limits:
            limit.put_back()
        for memory, kept in self._memories:
            _put_slots(memory, kept)


class _SlotsState:
    """The time a bulkhead has seen, and where its limit has moved to."""

    def __init__(self, slots: Slots, definition: Definition) -> None:
        self._slots = slots
        self._now = slots._now
        self._adaptive = slots._adaptive
        self._initial: dict[str, Any] = {"limit_initial": definition.values.limit_initial}

    def start_anew(self) -> None:
        own = self._adaptive
        new = None
        if own is not None:
            new = AdaptiveLimit(own._name, own._key, limit_min=own._min, limit_max=own._max, **self._initial)
        self._put(new, 0.0)

    def put_back(self) -> None:
        self._put(self._adaptive, self._now)

    def _put(self, adaptive: AdaptiveLimit | None, now: float) -> None:
        with self._slots.lock:
            self._slots._now = now
            self._slots._adaptive = adaptive
        if adaptive is not None:
            self._slots.resize(adaptive.limit)


class _TokensState:
    """How full a bucket was, and when."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        with tokens.lock:
            self._now = tokens._now
            self._full_at = tokens._full_at

    def start_anew(self) -> None:
        self._put(0.0, 0.0)

    def put_back(self) -> None:
        self._put(self._now, self._full_at)

    def _put(self, now: float, full_at: float) -> None:
        tokens = self._tokens
        with tokens.lock:
            tokens._now = now
            tokens._full_at = full_at
            tokens._lows = []
            tokens._full_grant = tokens._grants + 1  # what was taken from the other bucket does not come back to this


def _new_like(circuit: Circuit) -> Circuit:
    return Circuit(
        circuit._name,
        circuit._key,
        rule=circuit.tally._shape,
        random=circuit._random,
        settings=circuit._settings,
    )


def _slots_of(one: object, *names: str) -> dict[str, Any]:
    return {name: copy.copy(getattr(one, name)) for name in names}


def _put_slots(one: object, values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(one, name, copy.copy(value))


class CircuitState:
    """What a breaker has counted and decided. Put on it again, calls that are still in flight count for nothing."""

    _NAMES = (
        "_closed_at", "_last_error", "_now", "_open_until", "_ramp", "_reason", "_successes", "failures_total", "round",
        "successes_total",
    )  # fmt: skip
    _COUNTED = ("_failed_at", "_rate", "_slow", "consecutive", "plain_window")

    def __init__(self, circuit: Circuit) -> None:
        with circuit.lock:
            self._state = circuit._state
            self._isolations = circuit.isolations.active
            self._values = copy.deepcopy({name: getattr(circuit, name) for name in self._NAMES})
            # in one copy: the plain window may be the window of the rate
            self._counts = copy.deepcopy({name: getattr(circuit.tally, name) for name in self._COUNTED})

    def put_on(self, circuit: Circuit) -> None:
        """Make a breaker what this one was; those who watch it are told if its state changes."""
        values, counts = copy.deepcopy((self._values, self._counts))
        tally = circuit.tally
        with circuit.lock:
            if circuit._state == self._state:
                circuit.epoch += 1
                circuit._probes.clear()
            else:
                circuit._change(self._state, "the test is over")
            circuit.isolations.active = self._isolations
            for name, value in values.items():
                setattr(circuit, name, value)
            for name, value in counts.items():
                setattr(tally, name, value)
            tally.configure(tally._shape, tally._settings, circuit._now)  # the settings may be others by now
            circuit._set_fast()
        circuit._changes.tell()


def machines_of(definition: Definition) -> list[Machines]:
    """Return the machines of a policy and of all its keys that somebody still holds."""
    with definition._lock:
        found = [child.machines for child in definition._alive.values()]
        if definition._overflow is not None:
            found.append(definition._overflow.machines)
        if definition._own is not None:
            found.append(definition._own)
    return found
