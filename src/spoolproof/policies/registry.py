"""The policies of a process by name, and their settings: read once, changed together.

A name registers once: it is the key under which breaker state is kept, and two policies that count apart under one name
would each see half an outage. The same declaration again is the same policy; two that only look the same, because what
their functions hold differs, are refused: one would answer with the other's fallback.

Faults in code are raised where the policy is made. Faults in the environment or a file are kept for `check`, which a
service asks at its start: they are reported together, and until then the policy works as declared."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path

from spoolproof.errors import PolicyConfigError
from spoolproof.policies import events
from spoolproof.policies.definition import Definition, default
from spoolproof.policies.forked import registries
from spoolproof.policies.parts.ranges import SETTINGS
from spoolproof.policies.policy import Policy
from spoolproof.policies.running.retry import Drain
from spoolproof.policies.settings import config
from spoolproof.policies.settings.sources import Sources, load

logger = logging.getLogger("spoolproof.policies")
POLICIES_FILE = "SPOOLPROOF_POLICIES_FILE"


class Registry:
    """Policies by name. environ: where settings come from; None reads the process's environment at the first policy."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._environ = environ
        self._lock = threading.RLock()
        self._definitions: dict[str, Definition] = {}
        self._sources: Sources | None = None
        self._source_faults: list[str] = []
        self._faults: dict[str, list[str]] = {}
        self.drain_switch = Drain()
        registries.add(self)

    # --- register ----------------------------------------------------------------------------------------------------

    def register(self, definition: Definition) -> Definition:
        """Take a declaration in; returns the one that is in force. The same again is the same policy.

        Raises PolicyConfigError for an impossible declaration, or for another one under a name that is taken.
        """
        with self._lock:
            known = self._definitions.get(definition.name)
            if known is not None:
                if known.is_same_as(definition):
                    return known
                raise PolicyConfigError(
                    [
                        f"name={definition.name!r}: taken by another policy, {known.parts!r}, made at {known.made_at}; "
                        f"this one is made at {definition.made_at} and means something else, if only in what its "
                        "functions hold. Give each its own name, or make one and use policy.for_key(…)"
                    ],
                    policy=definition.name,
                )
            declared, faults = definition.resolve(config.NOTHING)
            if faults:
                raise PolicyConfigError(faults, policy=definition.name)
            resolved, faults = definition.resolve(self.sources)
            if faults:
                self._faults[definition.name] = faults
                logger.error("policies.settings_wrong policy=%s faults=%s", definition.name, "; ".join(faults))
            definition.accept(declared if faults else resolved)
            self._definitions[definition.name] = definition
        definition.warn()  # listeners and log handlers are others' code
        return definition

    @property
    def sources(self) -> Sources:
        """The settings given outside the code, read on first use."""
        if self._sources is None:
            environ = os.environ if self._environ is None else self._environ
            self._sources, self._source_faults = load(environ, _file_of(environ))
            for warning in self._sources.warnings:
                logger.warning("policies.settings_doubtful %s", warning)
        return self._sources

    # --- look --------------------------------------------------------------------------------------------------------

    def another(self) -> Registry:
        """Return an empty registry of the same settings, for a policy that nobody finds by name."""
        return Registry(self._environ)

    def names(self) -> list[str]:
        """Return the names of all policies, sorted."""
        with self._lock:
            return sorted(self._definitions)

    def get(self, name: str) -> Policy:
        """Return a policy by name. Raises KeyError."""
        with self._lock:
            definition = self._definitions[name]
        policy = Policy.__new__(Policy)
        policy._set_up(definition, None)
        return policy

    def check(self) -> list[str]:
        """Return every fault of the settings given outside the code, for a start-up report."""
        with self._lock:
            sources = self.sources
            found = [*self._source_faults]
            for name, faults in sorted(self._faults.items()):
                found += [f"policy {name!r}: {fault}" for fault in faults]
            found += sources.unused(self._definitions)
            return found

    # --- change ------------------------------------------------------------------------------------------------------

    def reload(self, environ: Mapping[str, str] | None = None) -> None:
        """Read the settings again and put them in force, all or none: states, timers, budgets and isolations stay.

        Raises PolicyConfigError with every fault, and then nothing has changed.
        """
        given = environ if environ is not None else (os.environ if self._environ is None else self._environ)
        with self._lock:
            sources, faults = load(given, _file_of(given))
            resolved: dict[str, config.Resolved] = {}
            for name, definition in self._definitions.items():
                resolved[name], found = definition.resolve(sources)
                faults += [f"policy {name!r}: {fault}" for fault in found]
            faults += sources.unused(self._definitions)
            if faults:
                raise PolicyConfigError(faults)
            self._sources, self._source_faults, self._faults = sources, [], {}
            reloaded = []
            for name, one in resolved.items():
                definition = self._definitions[name]
                before = definition.values
                definition.accept(one)
                after = definition.values
                if changed := tuple(sorted(key for key in SETTINGS if getattr(before, key) != getattr(after, key))):
                    reloaded.append(events.SettingsReloaded(policy=name, changed=changed))
        if events.listeners:  # others' code: not under the lock
            for event in reloaded:
                events.emit(event)

    def drain(self) -> None:
        """Start no retry and no hedge from now on, and end every back-off: what waits is deferred."""
        self.drain_switch.start()

    def resume(self) -> None:
        """Undo `drain`: a service that uses these policies starts, or has ended and others live on."""
        self.drain_switch.end()

    # --- keep --------------------------------------------------------------------------------------------------------

    def all(self) -> list[Policy]:
        """Return every policy and every keyed child."""
        found = []
        for name in self.names():
            policy = self.get(name)
            found += [policy, *policy._definition.children().values()]
        return found


def _file_of(environ: Mapping[str, str]) -> Path | None:
    path = environ.get(POLICIES_FILE)
    return Path(path) if path else None


_default = Registry()
default.registry = _default


def default_registry() -> Registry:
    """Return the registry of this process, which policies use unless given another."""
    return _default
