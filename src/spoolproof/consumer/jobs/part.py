"""Jobs and batches in one process, and `service.batches`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from spoolproof import limits
from spoolproof.codec import TypeRegistry
from spoolproof.consumer.jobs import desk
from spoolproof.consumer.jobs.definition import Job, Jobs, make_job
from spoolproof.consumer.jobs.events import BATCHES, ITEMS
from spoolproof.consumer.jobs.ledger import ItemLedger
from spoolproof.consumer.jobs.problem import checked
from spoolproof.consumer.jobs.report import BatchReceipt, BatchReport, counted
from spoolproof.consumer.jobs.runs import Runs
from spoolproof.consumer.jobs.tools import Tools
from spoolproof.consumer.jobs.watch import LEAD, Watch
from spoolproof.consumer.router import Router
from spoolproof.errors import InvalidMessage, NotFound, NotStarted, RegistrationError
from spoolproof.failpoints import failpoint
from spoolproof.ids import derived_id
from spoolproof.lifecycle.entry import Context, Entry
from spoolproof.lifecycle.loop import Loop
from spoolproof.lifecycle.membership import Holding
from spoolproof.lifecycle.part import Part, Report
from spoolproof.lifecycle.registrations import Facet
from spoolproof.outbox.publish import Publisher
from spoolproof.outbox.transaction import Transaction
from spoolproof.ports.batches import Batch, BatchState, ItemState
from spoolproof.ports.transaction import StoreTransaction
from spoolproof.ports.units import Units
from spoolproof.telemetry.metrics import METER, Measure

F = TypeVar("F", bound=Callable[..., object])
Items = Iterable[object] | Mapping[str, object]


class BatchPart(Part):
    """Runs batches here, keeps the books of those that were submitted, and ends them."""

    def __init__(self, of: Context) -> None:
        self.of = of
        stirred = asyncio.Event()
        self.tools = Tools(store=of.store, publisher=of.the(Publisher), clock=of.clock, stir=stirred.set)
        self.jobs = of.registrations.of(Jobs)
        self.runs = Runs(of)
        self._lead = Holding(f"batch/{of.service}", [LEAD], of.clock, of.fence_seconds)
        self._watch = Watch(of.service, self.tools, self._lead, stirred)

    def holdings(self) -> Sequence[Holding]:
        """Return the lead."""
        return (self._lead,)

    def loops(self) -> Sequence[Loop]:
        """Return the loop that ends batches."""
        return (self._watch,)

    def report(self) -> Report:
        """Tell of threads that hang."""
        return Report(issues=tuple(self.runs.issues))

    def measures(self) -> Iterable[Measure]:
        """Return how many batches there are, in the process that leads."""
        return [(BATCHES, (job, state.value), count) for (job, state), count in self._watch.counts.items()]

    def ended(self) -> None:
        """Let the threads end."""
        self.runs.close()


class BatchesFacet(Facet):
    """`service.batches`: declare jobs, and run them over many items. All but `job` need the started service."""

    def job(
        self,
        name: str,
        *,
        timeout: float = limits.JOB_SECONDS,
        concurrency: int = limits.JOB_CONCURRENCY,
        attempts: int = limits.JOB_ATTEMPTS,
        effect: str = "keyed",
        validate: Callable[[Any], Iterable[Any] | None] | None = None,
        item_id: Callable[[Any], str] | None = None,
    ) -> Callable[[F], F]:
        """Declare a function of one item as a job, with a queue, a breaker, a bulkhead and threads of its own.

        The function takes the item (a Struct, dataclass, pydantic model or dict), if it likes a `JobContext`, and a
        `Transaction` in which item state, effects and publishes commit. name: 1 to 58 of a-z, 0-9, `.`, `_`, `-`; its
        policy is `job.<name>`. timeout: seconds of an attempt. concurrency: items at once in this process, and, of a
        plain function, threads. effect: `keyed`: an attempt whose end is unknown is made again under `JobContext.key`;
        `once`: a person is asked. validate: returns what is wrong with an item, as Problems or texts. item_id: gives
        the id of an item; default its number. Raises RegistrationError.
        """

        def declare(function: F) -> F:
            self._check_before_start(name)
            job = make_job(
                name,
                function,
                lambda job, given, delivery, tx: self._part.runs.of_message(job, given, delivery, tx),
                ItemLedger(name, lambda: self._part.tools),
                service=self.host.name,
                policies=self.host.policies,
                timeout=timeout,
                concurrency=concurrency,
                attempts=attempts,
                effect=effect,
                validate=validate,
                item_id=item_id,
            )
            for model in job.handler.models:
                self.host.registrations.of(TypeRegistry).add(model)
            self.host.registrations.of(Router).add(job.handler)
            self.host.registrations.of(Jobs).by_name[name] = job
            return function

        return declare

    async def run(
        self, name: str, items: Items, *, deadline: float = limits.JOB_RUN_SECONDS, on_invalid: str = "report"
    ) -> BatchReport:
        """Run a job over items here and now; nothing of it survives this process.

        items: at most 10,000, each at most 256 KiB as JSON, or a mapping from id to item. deadline: seconds; what was
        not reached by then is pending. on_invalid: `report` runs the others, `refuse` runs nothing. Values are what the
        job returned. Raises BatchInvalid, BatchTooLarge, NotFound for no such job.
        """
        job, part = self._job(name), self._part
        if not isinstance(deadline, int | float) or isinstance(deadline, bool) or not 0 < deadline < float("inf"):
            raise InvalidMessage("deadline", deadline, "must be seconds above 0")
        found = await checked(job, items, on_invalid)
        id, started_at = part.of.ids.message_id(), part.tools.clock.now()
        ended = await part.runs.all(job, id, found, deadline)
        batch = Batch(
            id=id,
            service=self.host.name,
            job=name,
            total=len(ended),
            started_at=started_at,
            state=BatchState.FINISHED,
            finished_at=part.tools.clock.now(),
        )
        return BatchReport(batch, counted(ended), ended)

    async def submit(
        self,
        name: str,
        items: Items,
        *,
        id: str | None = None,
        on_invalid: str = "report",
        transaction: object | None = None,
    ) -> BatchReceipt:
        """Have a job run over items by any process of the service; durable on return, one message an item.

        id: what it is known by, such as a date: a second one under the same id of this job is not looked at, and the
        receipt is that of the first. transaction: as for `publish`; in a handler with a `Transaction` that is joined
        without asking. items, on_invalid: as for `run`. Raises as `run`, and StoreUnavailable, OutboxFull,
        TransactionError's kinds.
        """
        job, part = self._job(name), self._part
        if id is not None and not (isinstance(id, str) and 1 <= len(id) <= limits.BATCH_ID_CHARACTERS_MAX):
            raise InvalidMessage("id", id, f"must be text of 1 to {limits.BATCH_ID_CHARACTERS_MAX} characters")
        found = await checked(job, items, on_invalid)
        key = part.of.ids.message_id() if id is None else derived_id("batch", self.host.name, name, id)
        now = part.tools.clock.now()
        batch = Batch(id=key, service=self.host.name, job=name, total=len(found), started_at=now)
        outgoing = [desk.message_of(batch, one.item, one.body, now) for one in found if one.is_valid]

        async def write(tx: StoreTransaction) -> bool:
            if not await part.tools.batches.add(tx, batch, [(one.item, one.body) for one in found]):
                return False
            await part.tools.publisher.append(outgoing, tx)
            failpoint("batch.after_submit")
            return True

        is_new = await self._write(write, transaction)
        if not is_new:
            counts = (await desk.find(part.tools.batches, key))[1]
            return BatchReceipt(key, sum(counts.values()), counts[ItemState.INVALID], is_new=False)
        if len(outgoing) < len(found):
            METER.add(ITEMS, (name, ItemState.INVALID.value), len(found) - len(outgoing))
        part.tools.publisher.wake()
        part.tools.stir()  # of one whose items are all invalid nothing else will
        return BatchReceipt(key, len(found), len(found) - len(outgoing))

    async def get(
        self,
        batch_id: str,
        *,
        only: Collection[str] | None = None,
        after: int = -1,
        limit: int = limits.BATCH_PAGE,
    ) -> BatchReport:
        """Return the report of a submitted batch, from any process, until 7 days after its end.

        only: the states of the items to show; counts are of all. after: `next` of the page before. Raises NotFound.
        """
        return await desk.get(self._part.tools.batches, batch_id, only=only, after=after, limit=limit)

    async def ls(self, *, job: str | None = None, state: BatchState | None = None, limit: int = 100) -> list[Any]:
        """Return batches of this service with their numbers, the newest first."""
        return await desk.ls(self._part.tools.batches, service=self.host.name, job=job, state=state, limit=limit)

    async def cancel(self, batch_id: str, *, actor: str, reason: str) -> None:
        """Run no further item; those that run now end. Raises NotFound, and Conflict if it is over."""
        await desk.cancel(self._part.tools, batch_id, actor=actor, reason=reason)

    async def replay(self, batch_id: str, *, only: Collection[str] | None = None, actor: str, reason: str) -> int:
        """Send items again under their ids and keys; returns how many.

        only: of `failed` and `pending`, default both; an unknown one is sent again by whoever resolves its review item.
        Raises NotFound, and Conflict if there is none to send.
        """
        return await desk.replay(self._part.tools, batch_id, only=only, actor=actor, reason=reason)

    async def _write(self, write: Callable[[StoreTransaction], Any], transaction: object | None) -> bool:
        part = self._part
        unit: Any = part.of.the(Units).running() if transaction is None else transaction
        if unit is None:
            async with part.of.store.transaction() as own:
                return bool(await write(own))
        return bool(await write(unit.inner if isinstance(unit, Transaction) else await part.of.store.adopt(unit)))

    def _check_before_start(self, name: str) -> None:
        try:
            self.host.part(BatchPart)
        except (NotStarted, NotFound):
            return
        raise RegistrationError(f"job {name!r}: jobs are declared before the service starts")

    def _job(self, name: str) -> Job:
        jobs = self.host.registrations.of(Jobs).by_name
        if name not in jobs:
            raise NotFound(f"there is no job {name!r}; there are: {', '.join(sorted(jobs)) or 'none'}")
        return jobs[name]

    @property
    def _part(self) -> BatchPart:
        return self.host.part(BatchPart)


BATCHES_ENTRY = Entry(BatchPart, facet=BatchesFacet)
