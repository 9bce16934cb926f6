"""Degradation in one process: its level, its ladders, and `service.degradation`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from spoolproof.degradation import offer as rows
from spoolproof.degradation.errors import DegradationError, LadderConfigError
from spoolproof.degradation.events import EXERCISES, LEVEL, SERVED
from spoolproof.degradation.ladder import Context as LadderContext
from spoolproof.degradation.ladder import Ladder
from spoolproof.degradation.levels import NAMES
from spoolproof.degradation.loop import Degradation
from spoolproof.degradation.offer import Told
from spoolproof.degradation.shed import Application, Criticality, Offer, Shedding
from spoolproof.errors import RegistrationError
from spoolproof.lifecycle.entry import Context, Entry
from spoolproof.lifecycle.loop import Loop
from spoolproof.lifecycle.part import Part, Report
from spoolproof.lifecycle.registrations import Facet
from spoolproof.policies import Registry
from spoolproof.ports.health import HealthView
from spoolproof.telemetry.folding import Folded
from spoolproof.telemetry.metrics import Measure

DEADLINE_SECONDS = 2.0


class Ladders:
    """The ladders of a service, by name."""

    def __init__(self) -> None:
        self.all: dict[str, Ladder] = {}
        self.is_running = False

    def check(self) -> list[str]:
        """Return what is wrong with any of them."""
        return [f"ladder {name!r}: {fault}" for name, one in self.all.items() for fault in one.declared.check()]


class DegradationPart(Part):
    """Decides how much is offered, and lets ladders serve."""

    needs_store = False

    def __init__(self, of: Context) -> None:
        self.of = of
        self.offer = of.registrations.of(Offer)
        self.offer.change(0, "nothing")
        self._ladders = of.registrations.of(Ladders)
        self._check_dependencies(of.the(Registry))
        view = of.the(HealthView)
        self.loop = Degradation(
            *(of.service, self.offer, view, of.store.state), clock=of.clock, process_id=of.process_id
        )
        context = LadderContext(view, self.offer, of.clock, of.random, of.spawn, Folded(of.clock))
        for ladder in self._ladders.all.values():
            ladder.context = context
        self._ladders.is_running = True

    def _check_dependencies(self, policies: Registry) -> None:
        known = {*policies.names(), "db", self.of.broker.status().kind}
        for name, ladder in self._ladders.all.items():
            used = {one.dependency for one in (ladder.declared.primary, *ladder.declared.fallbacks) if one is not None}
            if wrong := sorted(one for one in used if one is not None and one not in known):
                raise LadderConfigError(
                    name, [f"dependency={one!r}: no policy has this name; there are {', '.join(sorted(known))}"
                           for one in wrong]
                )  # fmt: skip

    def loops(self) -> Sequence[Loop]:
        """Return what decides."""
        return (self.loop,)

    def store_reached(self) -> None:
        """Hear from the store what is set."""
        self.loop.is_store_reached = True

    def report(self) -> Report:
        """Tell the level, and which fallbacks do not work."""
        level, issues = self.offer.level, []
        if level:
            issues.append(f"degradation: level {level} ({NAMES[level]}): {self.offer.reason}")
        elif self.loop.set is not None:
            issues.append(f"degradation: level 0 is {self.offer.reason}; nothing is refused whatever happens")
        issues += [
            f"ladder {name}: its first fallback failed when it was exercised: {one.failing}"
            for name, one in self._ladders.all.items()
            if one.failing is not None
        ]
        return Report(level=level, issues=tuple(issues))

    def measures(self) -> Iterable[Measure]:
        """Yield the level and what ladders have served."""
        yield LEVEL, (), self.offer.level
        for name, one in self._ladders.all.items():
            yield from ((SERVED, (name, rung), count) for rung, count in list(one.served.items()))
            yield from ((EXERCISES, (name, outcome), count) for outcome, count in list(one.exercises.items()))

    def ended(self) -> None:
        """Let no ladder serve any more."""
        self._ladders.is_running = False
        self.offer.change(0, "nothing")
        for ladder in self._ladders.all.values():
            ladder.context = None


class DegradationFacet(Facet):
    """`service.degradation`: cheaper answers, and less work at need."""

    def ladder(self, name: str, *, deadline: float = DEADLINE_SECONDS, write: bool = False) -> Ladder:
        """Declare a ladder before the service starts; its rungs are registered on what is returned.

        name: a letter and up to 63 of a-z, 0-9, `_`, `.`, `-`. deadline: seconds for the whole answer. write: it does
        something, so that only `spooled` may stand in for it. Faults are reported together at the start. Raises
        RegistrationError.
        """
        ladders = self.host.registrations.of(Ladders)
        if ladders.is_running or name in ladders.all:
            why = "is declared already" if name in ladders.all else "is declared after the service started"
            raise RegistrationError(f"ladder {name!r} {why}")
        made = ladders.all[name] = Ladder(str(name), deadline=deadline, write=write)
        return made

    @property
    def level(self) -> int:
        """How much is left out in this process: 0 nothing, 3 all but what is critical_plus."""
        return self._offer.level

    @property
    def reason(self) -> str:
        """Why; `nothing` at level 0."""
        return self._offer.reason

    async def set(self, level: int, *, reason: str, seconds: float = rows.SECONDS, actor: str = "application") -> Told:
        """Set the level of all processes of the service until `seconds` (default an hour, at most 24) are over; here at
        once, elsewhere within 5 s. Raises DegradationError, StoreUnavailable, NotStarted."""
        part = self.host.part(DegradationPart)
        told = await rows.set_level(
            *(part.of.store.state, part.of.service, level),
            reason=reason, actor=actor, seconds=seconds, clock=part.of.clock,
        )  # fmt: skip
        part.loop.hear(told)
        return told

    async def clear(self) -> bool:
        """Take back what was set; False if nothing was. Each process decides for itself again."""
        part = self.host.part(DegradationPart)
        was_set = await rows.clear_level(part.of.store.state, part.of.service)
        part.loop.hear(None)
        return was_set

    async def show(self) -> dict[str, Any]:
        """Return what is set and which processes leave something out, JSON-ready but for moments."""
        part = self.host.part(DegradationPart)
        return document(part.of.service, await rows.known(part.of.store.state, part.of.service, part.of.clock))

    def drill(self, ladder: str, rung: str, *, share: float = 1.0, seconds: float = 60.0) -> Callable[[], None]:
        """Let a share of a ladder's calls in this process begin at a rung (`cached`, `default`, `partial`, `spooled`);
        returns what ends that. Where no rung from there on has an answer, the primary is called. Raises
        DegradationError, NotStarted."""
        ladders = self.host.registrations.of(Ladders).all
        if ladder not in ladders:
            raise DegradationError(f"ladder={ladder!r}: there are {', '.join(ladders) or 'none'}")
        return ladders[ladder].drill(rung, share, seconds)

    def middleware(
        self, app: Application, *, criticality: Criticality = "critical", in_flight_max: int | None = None
    ) -> Shedding:
        """Return an ASGI application around another that refuses requests when the level asks for it:
        `app.add_middleware(service.degradation.middleware, criticality={"/reports": "sheddable"})`.

        criticality: of every request, by path (the longest that fits; others are `critical`), or a function of the
        scope. in_flight_max: requests at once from which on the level rises; None: they are not counted. Raises
        DegradationError.
        """
        return Shedding(app, self._offer, criticality, in_flight_max)

    @property
    def _offer(self) -> Offer:
        return self.host.registrations.of(Offer)


def document(service: str, known: rows.Known) -> dict[str, Any]:
    """Return what the store knows of a service's level, for people and JSON."""
    level = (
        known.set.level if known.set is not None else max((one.level for one in known.processes.values()), default=0)
    )
    return {
        "service": service,
        "level": level,
        "set": None if known.set is None else known.set.document(),
        "processes": [{"process": name, **one.document()} for name, one in sorted(known.processes.items())],
    }


DEGRADATION = Entry(DegradationPart, DegradationFacet)
