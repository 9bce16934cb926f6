"""Takes a run from step to step: compare a page, deal with one difference, each of them one commit.

A step reads what the store has of the run and writes what it has become, by version; with a repair, the repair is in
the same commit. A crash loses at most a step that was not committed. Ours is read before theirs, so that what happened
between the two makes a repair fail, which names the state it was decided on, and never makes a wrong one.

Nothing is repaired before everything was compared: only then it is known whether too much would change.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence, Set
from dataclasses import dataclass

from msgspec.structs import replace

from spoolproof import limits
from spoolproof.caught import error_line
from spoolproof.clock import Clock
from spoolproof.errors import Conflict, InvalidMessage, Unavailable
from spoolproof.failpoints import failpoint
from spoolproof.ids import Ids
from spoolproof.ports.reconciliations import Difference, Phase, Reconciliations, Run, State, Verdict
from spoolproof.ports.reviews import Priority, ReviewFilter, Reviews
from spoolproof.ports.store import Store
from spoolproof.ports.transaction import StoreTransaction
from spoolproof.ports.units import Units
from spoolproof.reconciliation.compare import compared, compared_all, handled
from spoolproof.reconciliation.events import RESULTS, Repaired, RepairFailed, RunBraked, RunFinished
from spoolproof.reconciliation.reconciler import Reconciler, state_of
from spoolproof.review.item import new_item
from spoolproof.review.opening import open_item, settle_item
from spoolproof.telemetry.events import emit
from spoolproof.telemetry.folding import Folded
from spoolproof.telemetry.metrics import METER

DIFFERENCE, BRAKE = "reconciliation.difference", "reconciliation.brake"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What a run works with. service: whose it is."""

    service: str
    store: Store
    units: Units
    clock: Clock
    ids: Ids

    @property
    def runs(self) -> Reconciliations:
        """The tables."""
        return self.store.port(Reconciliations)


class Runner:
    """Makes and continues runs of one service."""

    def __init__(self, tools: Tools) -> None:
        self.tools = tools
        self._folded = Folded(tools.clock)

    async def start(self, name: str, *, is_dry: bool = False, is_forced: bool = False) -> Run:
        """Write a new run. Raises Conflict if one is unfinished."""
        async with self.tools.store.transaction() as tx:
            run = await self.start_in(tx, name, is_dry=is_dry, is_forced=is_forced)
        return run

    async def start_in(self, tx: StoreTransaction, name: str, *, is_dry: bool = False, is_forced: bool = False) -> Run:
        """Write a new run in a transaction; whoever leads goes on with it. Raises Conflict."""
        tools, now = self.tools, self.tools.clock.now()
        run = Run(
            id=tools.ids.message_id(),
            service=tools.service,
            reconciler=name,
            started_at=now,
            touched_at=now,
            is_dry=is_dry,
            is_forced=is_forced,
        )
        if not await tools.runs.start(tx, run):
            error = Conflict(f"a run of reconciler {name!r} is unfinished; the service goes on with it")
            error.hint = "spoolproof reconcile ls"
            raise error
        return run

    async def run_to_end(self, reconciler: Reconciler, run: Run) -> Run:
        """Take every step there is. Raises what the readers raise."""
        while run.finished_at is None:
            run = await self.step(reconciler, run)
        return run

    async def step(self, reconciler: Reconciler, run: Run) -> Run:
        """Take one step, committed on return. Raises Conflict if somebody else has taken one meanwhile, and what the
        readers raise."""
        if run.phase is Phase.REPAIR:
            run = await self._deal(reconciler, run)
        else:
            run = await self._compare(reconciler, run)
        if run.finished_at is not None:
            self._tell(run)
        return run

    async def _compare(self, reconciler: Reconciler, run: Run) -> Run:
        tools = self.tools
        keys = await self._candidates(reconciler, run.position)
        if keys:
            ours = await _read(reconciler, "ours", keys)
            theirs = await _read(reconciler, "theirs", keys)
            failpoint("reconciliation.after_read")
            after = compared(run, keys, ours, theirs, reconciler.rules, tools.clock.now())
        else:
            after = compared_all(run, reconciler.rules, tools.clock.now())
        async with tools.store.transaction() as tx:
            if keys and not run.is_dry:
                await self._settle(tx, run, set(keys) - {one.key for one in after.differences})
            await self._write(tx, after)
            if after.phase is Phase.BRAKED and not after.is_dry:
                await self._ask_about_brake(tx, after)
        return _next(after)

    async def _candidates(self, reconciler: Reconciler, after: str | None) -> list[str]:
        keys: list[str] = []
        found: AsyncIterator[str] = reconciler.functions["candidates"](after)
        try:
            async for key in found:
                last = keys[-1] if keys else after
                if not isinstance(key, str) or not 1 <= len(key) <= limits.RECONCILIATION_KEY_MAX:
                    raise InvalidMessage("key", key, f"1 to {limits.RECONCILIATION_KEY_MAX} characters")
                if last is not None and key <= last:
                    raise InvalidMessage("key", key, f"candidates come ascending, each once; {last!r} came before it")
                keys.append(key)
                if len(keys) == limits.RECONCILIATION_PAGE:
                    break
        finally:
            await found.aclose()  # type: ignore[attr-defined]  # an async generator, as the registration saw to
        return keys

    async def _deal(self, reconciler: Reconciler, run: Run) -> Run:
        tools, difference = self.tools, run.differences[run.handled]
        failpoint("reconciliation.before_repair")
        # a repair names the state it was decided on; a question must not be about one that is gone, either
        is_gone = difference.verdict is not Verdict.REPAIR and await self._has_moved(reconciler, difference)
        try:
            async with tools.units.open() as tx:
                if difference.verdict is Verdict.REPAIR:
                    is_done = await reconciler.functions["repair"](difference, tx)
                    became = "repaired" if is_done else "changed"
                elif is_gone:
                    became = "changed"
                else:
                    await self._ask_about(tx.inner, run, difference)
                    became = "reviewed"
                after = handled(run, became, tools.clock.now())
                await self._write(tx.inner, after)
        except (Unavailable, _Lost):
            raise
        except Exception as error:
            self._folded.emit(RepairFailed(reconciler=run.reconciler, key=difference.key, error=error_line(error)))
            after = handled(run, "failed", tools.clock.now())
            async with tools.store.transaction() as own:
                await self._write(own, after)
        else:
            if became == "repaired":
                tools.store.wakeup.notify()
                states = {name: str(getattr(difference, name)) for name in ("ours", "theirs", "to")}
                self._folded.emit(Repaired(reconciler=run.reconciler, key=difference.key, **states))
        failpoint("reconciliation.after_repair")
        return _next(after)

    async def _has_moved(self, reconciler: Reconciler, found: Difference) -> bool:
        return (await _read(reconciler, "ours", [found.key])).get(found.key) != found.ours

    async def _write(self, tx: StoreTransaction, run: Run) -> None:
        if not await self.tools.runs.write(tx, run):
            raise _Lost(f"another process goes on with run {run.id} of reconciler {run.reconciler!r}")

    async def _settle(self, tx: StoreTransaction, run: Run, agree: Set[str]) -> None:
        """Close what was asked about keys that agree by now."""
        reviews, now = self.tools.store.port(Reviews), self.tools.clock.now()
        asked = ReviewFilter(service=run.service, kind=DIFFERENCE, limit=limits.REVIEW_BULK_MAX)
        for item in await reviews.search(asked):
            name, _, key = item.subject.partition("/")
            if name == run.reconciler and key in agree:
                await settle_item(reviews, tx, item.id, "both sides agree", now)

    async def _ask_about(self, tx: StoreTransaction, run: Run, found: Difference) -> None:
        actions = ("repair", "accept") if found.verdict is Verdict.UNDECLARED else ("accept",)
        evidence = {
            "run": run.id,
            **{name: getattr(found, name) for name in ("key", "ours", "theirs", "to", "verdict")},
        }
        words = found.verdict.replace("_", " ")
        question = (
            f"{run.reconciler} {found.key}: {words}; ours is {found.ours}, theirs is {found.theirs}. What is right?"
        )
        await self._open(tx, DIFFERENCE, f"{run.reconciler}/{found.key}", question, actions, evidence, Priority.NORMAL)

    async def _ask_about_brake(self, tx: StoreTransaction, run: Run) -> None:
        count = len(run.differences)
        question = (
            f"{run.reconciler}: {count} of {run.seen} keys differ, so nothing was repaired. Are both sides right?"
        )
        shown = [{"key": one.key, "ours": one.ours, "theirs": one.theirs} for one in run.differences[:20]]
        evidence = {"run": run.id, "seen": run.seen, "differences": count, "some": shown}
        await self._open(tx, BRAKE, run.reconciler, question, ("run_anyway", "accept"), evidence, Priority.HIGH)

    async def _open(
        self,
        tx: StoreTransaction,
        kind: str,
        subject: str,
        question: str,
        actions: tuple[str, ...],
        evidence: object,
        priority: Priority,
    ) -> None:
        tools = self.tools
        item = new_item(
            id=tools.ids.message_id(),
            service=tools.service,
            kind=kind,
            subject=subject,
            question=question[: limits.REVIEW_TEXT_MAX],
            actions=actions,
            evidence=evidence,
            priority=priority,
            now=tools.clock.now(),
        )
        await open_item(tools.store.port(Reviews), tx, item)

    def _tell(self, run: Run) -> None:
        counts = {"equal": run.equal, "repaired": run.repaired, "reviewed": run.reviewed}
        for result, count in {**counts, **run.skipped}.items():
            METER.add(RESULTS, (run.reconciler, result), count)
        if run.phase is Phase.BRAKED:
            count = len(run.differences)
            emit(RunBraked(reconciler=run.reconciler, id=run.id, differences=count, seen=run.seen))
        else:
            skipped = sum(run.skipped.values())
            emit(RunFinished(reconciler=run.reconciler, id=run.id, seen=run.seen, skipped=skipped, **counts))


class _Lost(Conflict):
    """Another process took a step of the same run."""


def _next(run: Run) -> Run:
    """Return a run as the store has it after the write."""
    return replace(run, version=run.version + 1)


async def _read(reconciler: Reconciler, side: str, keys: Sequence[str]) -> Mapping[str, State]:
    wanted, found = set(keys), dict[str, State]()
    async for key, state in reconciler.functions[side](keys):
        if key not in wanted or key in found:
            raise InvalidMessage(side, key, "yield (key, state) once for each key that was asked for, and no other")
        found[key] = state_of(state)
    return found
