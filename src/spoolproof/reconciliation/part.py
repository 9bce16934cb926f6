"""Reconciliation in one process: `service.reconciliation`, and the loops of the process that leads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from spoolproof import limits
from spoolproof.errors import Conflict, InvalidMessage, NotFound, RegistrationError
from spoolproof.lifecycle.entry import Context, Entry
from spoolproof.lifecycle.loop import Loop
from spoolproof.lifecycle.membership import Holding
from spoolproof.lifecycle.part import Part, Report
from spoolproof.lifecycle.registrations import Facet, Registrations
from spoolproof.ports.reconciliations import Difference, Verdict
from spoolproof.ports.units import Units
from spoolproof.reconciliation import desk
from spoolproof.reconciliation.events import LAST, MARKS
from spoolproof.reconciliation.loops import LEAD, Checks, Runs
from spoolproof.reconciliation.reconciler import Check, Checked, Declared, Reconciler, seconds_of
from spoolproof.reconciliation.runner import BRAKE, DIFFERENCE, Runner, Tools
from spoolproof.review.actions import Actions, Decision
from spoolproof.telemetry.metrics import Measure

C = TypeVar("C", bound=Check)


class ReconciliationPart(Part):
    """Runs what is declared, in the process that leads."""

    def __init__(self, of: Context) -> None:
        self.declared = of.registrations.of(Declared)
        tools = Tools(service=of.service, store=of.store, units=of.the(Units), clock=of.clock, ids=of.ids)
        self.runner = Runner(tools)
        register_actions(of.registrations, self.runner)
        self._lead = Holding(f"reconciliation/{of.service}", [LEAD], of.clock, of.fence_seconds)
        self._runs = Runs(self.declared, self.runner, self._lead, clock=of.clock)
        self._checks = Checks(self.declared, self.runner, self._lead, clock=of.clock, random=of.random)

    def holdings(self) -> Sequence[Holding]:
        """Return the lead, if there is anything to lead."""
        return (self._lead,) if self.loops() else ()

    def loops(self) -> Sequence[Loop]:
        """Return the loop of the runs and that of the checks, as far as anything is declared for them."""
        runs = (self._runs,) if self.declared.reconcilers else ()
        return (*runs, self._checks) if self.declared.checks else runs

    def report(self) -> Report:
        """Tell which reconciler fails, stopped at the brake, or is late."""
        return Report(issues=(*self._runs.issues.values(), *self._runs.late()))

    def measures(self) -> Iterable[Measure]:
        """Yield how many keys wait and when runs were last finished, in the process that leads."""
        yield from ((MARKS, (name,), count) for (_, name), count in self._checks.marks.items())
        yield from ((LAST, (name,), at.timestamp()) for name, at in self._runs.finished.items())


def register_actions(registrations: Registrations, runner: Runner) -> None:
    """Say what people may do about differences and brakes. For the command line, too."""
    actions, declared = registrations.of(Actions), registrations.of(Declared)

    async def accept(decision: Decision, tx: Any) -> None:
        """Leave it as it is; the next run may ask again."""

    async def repair(decision: Decision, tx: Any) -> None:
        """Repair it, if ours still is as it was seen."""
        evidence = decision.item.evidence
        name = decision.item.subject.partition("/")[0]
        states = {one: evidence[one] for one in ("key", "ours", "theirs", "to")}
        found = Difference(**states, verdict=Verdict.UNDECLARED)
        if not await find(declared, name).functions["repair"](found, tx):
            raise Conflict(f"{name} {found.key} is no longer {found.ours!r}: nothing was repaired; accept it instead")

    async def run_anyway(decision: Decision, tx: Any) -> None:
        """Start a run without the brake."""
        await runner.start_in(tx.inner, decision.item.subject, is_forced=True)

    actions.own(DIFFERENCE, "accept", accept)
    actions.own(DIFFERENCE, "repair", repair)
    actions.own(BRAKE, "accept", accept)
    actions.own(BRAKE, "run_anyway", run_anyway)


def find(declared: Declared, name: str) -> Reconciler:
    """Return a reconciler. Raises NotFound with the names there are."""
    if name not in declared.reconcilers:
        error = NotFound(f"there is no reconciler {name!r}; there are: {', '.join(declared.reconcilers) or 'none'}")
        error.hint = "spoolproof reconcile run NAME --service MODULE:SERVICE"
        raise error
    return declared.reconcilers[name]


class ReconciliationFacet(Facet):
    """`service.reconciliation`: keys that are checked until they are settled, and two sides that are compared."""

    def check(
        self, name: str, *, retry: str | float | timedelta = limits.CHECK_RETRY_SECONDS, waits_for: str | None = None
    ) -> Callable[[C], C]:
        """Register `async def check(key)`: it returns True once there is nothing left to do about a marked key.

        Anything else: it is checked again after `retry`; an error: after 1 s, doubling up to that. It may run more than
        once. waits_for: a policy; when its breaker closes, all keys are checked at once. Raises RegistrationError.
        """
        declared = self._declared
        declared.check_name(name)
        seconds = seconds_of("retry", retry)

        def register(function: C) -> C:
            declared.checks[name] = Checked(name, function, seconds, waits_for)
            return function

        return register

    def reconciler(
        self,
        name: str,
        *,
        every: str | float | timedelta | None = None,
        mapping: Mapping[Any, Any] | None = None,
        transitions: Mapping[Any, Any],
        changes_max: int = limits.RECONCILIATION_CHANGES_MAX,
        share_max: float = limits.RECONCILIATION_SHARE_MAX,
    ) -> Reconciler:
        """Declare two sides; give it `candidates`, `ours`, `theirs` and `repair` as decorators.

        every: how often it runs by itself; None: only when asked. mapping: what each of their states means in our
        words; None: the same. transitions: from each state of ours those that a repair may move it to. changes_max,
        share_max: if more keys differ, or a larger share of at least 50, nothing is repaired and a person is asked.
        Raises RegistrationError.
        """
        self._declared.check_name(name)
        made = Reconciler(
            *(name,),
            every=every,
            mapping=mapping,
            transitions=transitions,
            changes_max=changes_max,
            share_max=share_max,
        )
        self._declared.reconcilers[name] = made
        return made

    async def mark(self, name: str, key: str, *, transaction: object | None = None) -> None:
        """Have a key checked, in the caller's transaction, until its check says settled.

        transaction: as for `publish`; in a handler with a `Transaction` that is joined without asking; else it commits
        by itself. Raises RegistrationError, InvalidMessage, StoreUnavailable, TransactionError's kinds.
        """
        if name not in self._declared.checks:
            raise RegistrationError(f"mark({name!r}): write @service.reconciliation.check({name!r}) above its check")
        if not isinstance(key, str) or not 1 <= len(key) <= limits.RECONCILIATION_KEY_MAX or "\0" in key:
            raise InvalidMessage("key", key, f"1 to {limits.RECONCILIATION_KEY_MAX} characters")
        tools = self.host.part(ReconciliationPart).runner.tools
        unit: Any = tools.units.running() if transaction is None else transaction
        if unit is None:
            async with tools.store.transaction() as own:
                await tools.runs.mark(own, tools.service, name, key, tools.clock.now())
            return
        inner = getattr(unit, "inner", None)
        tx = inner if inner is not None else await tools.store.adopt(unit)
        await tools.runs.mark(tx, tools.service, name, key, tools.clock.now())

    async def run(self, name: str, *, dry_run: bool = False) -> dict[str, Any]:
        """Run a reconciler now, here, and return the run with all that differed. dry_run: only compare.

        Raises NotFound, Conflict if a run is unfinished, StoreUnavailable, and what its readers raise; then the process
        that leads goes on with it.
        """
        runner, reconciler = self.host.part(ReconciliationPart).runner, find(self._declared, name)
        return desk.whole(await runner.run_to_end(reconciler, await runner.start(name, is_dry=dry_run)))

    async def ls(self, *, reconciler: str | None = None, limit: int = 20) -> dict[str, Any]:
        """Return the newest runs of all services, and how many marks wait."""
        return await desk.ls(self.host.part(ReconciliationPart).runner.tools.runs, reconciler=reconciler, limit=limit)

    async def show(self, id: str) -> dict[str, Any]:
        """Return a run with all that differed. Raises NotFound."""
        return await desk.show(self.host.part(ReconciliationPart).runner.tools.runs, id)

    @property
    def _declared(self) -> Declared:
        return self.host.registrations.of(Declared)


RECONCILIATION = Entry(ReconciliationPart, ReconciliationFacet)
