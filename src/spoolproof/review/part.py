"""Manual review in one process: `service.reviews`, and the watch over what is due."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from spoolproof.codec import TypeRegistry
from spoolproof.errors import InvalidMessage
from spoolproof.lifecycle.entry import Context, Entry
from spoolproof.lifecycle.loop import Loop
from spoolproof.lifecycle.membership import Holding
from spoolproof.lifecycle.part import Part, Report
from spoolproof.lifecycle.registrations import Facet, Host
from spoolproof.ports.reviews import Priority
from spoolproof.ports.transaction import StoreTransaction
from spoolproof.ports.units import Units
from spoolproof.review.actions import Actions, Effect
from spoolproof.review.desk import Desk, Tools
from spoolproof.review.events import ITEMS, OLDEST, OVERDUE
from spoolproof.review.item import new_item
from spoolproof.review.messages import MESSAGE, Parked
from spoolproof.review.opening import Opened, open_item
from spoolproof.review.settings import ReviewSettings
from spoolproof.review.watch import Watch
from spoolproof.telemetry.metrics import Measure

E = TypeVar("E", bound=Effect)


class ReviewPart(Part):
    """Has what the verbs need, and watches in the process that leads."""

    def __init__(self, of: Context) -> None:
        self._settings = of.settings.of(ReviewSettings)
        registry, actions = of.registrations.of(TypeRegistry), of.registrations.of(Actions)
        Parked(of.store, of.ids, lambda message: registry.decode(message, message.type)).register(actions)
        self.tools = Tools(
            store=of.store,
            units=of.the(Units),
            actions=actions,
            clock=of.clock,
            claim_seconds=self._settings.claim_seconds,
        )
        self.ids = of.ids
        self._lead = Holding(f"review/{of.service}", ["escalate"], of.clock, of.fence_seconds)
        self._watch = Watch(of.service, of.store, self._lead, clock=of.clock)

    def holdings(self) -> Sequence[Holding]:
        """Return the lead."""
        return (self._lead,)

    def loops(self) -> Sequence[Loop]:
        """Return the watch."""
        return (self._watch,)

    def report(self) -> Report:
        """Tell what waits for people for too long, or too much of it."""
        open, overdue = (sum(getattr(one, name) for one in self._watch.counts) for name in ("count", "overdue"))
        issues = []
        if overdue:
            issues.append(f"review: {overdue} items are overdue; spoolproof review ls --overdue")
        if open > self._settings.open_max:
            issues.append(f"review: {open} items are open, more than {self._settings.open_max}; spoolproof review ls")
        return Report(issues=tuple(issues))

    def measures(self) -> Iterable[Measure]:
        """Return how many items are open, in the process that leads."""
        oldest: dict[str, float] = {}
        overdue: dict[str, int] = {}
        for one in self._watch.counts:
            yield ITEMS, (one.kind, "claimed" if one.is_claimed else "open"), one.count
            at = one.oldest_at.timestamp()
            oldest[one.kind] = min(at, oldest.get(one.kind, at))
            overdue[one.kind] = overdue.get(one.kind, 0) + one.overdue
        yield from ((OLDEST, (kind,), at) for kind, at in oldest.items())
        yield from ((OVERDUE, (kind,), count) for kind, count in overdue.items())


class ReviewsFacet(Facet, Desk):
    """`service.reviews`: ask people, and do what they decide. The verbs raise NotStarted before the start."""

    def __init__(self, host: Host) -> None:
        Facet.__init__(self, host)

    def action(self, kind: str, action: str, *, four_eyes: bool = False) -> Callable[[E], E]:
        """Register `async def effect(decision, tx)` as what an action does to items of a kind.

        It runs in the transaction that resolves the item: what it writes and publishes through `tx` commits with the
        decision. What it raises undoes both. four_eyes: one person proposes it, another one must agree. Raises
        RegistrationError, InvalidMessage.
        """
        if kind == MESSAGE:
            raise InvalidMessage("kind", kind, "is that of parked messages; take another name")

        def register(effect: E) -> E:
            self._actions.add(kind, action, effect, four_eyes=four_eyes)
            return effect

        return register

    async def open(
        self,
        kind: str,
        subject: str,
        question: str,
        *,
        evidence: object = None,
        actions: Sequence[str] | None = None,
        priority: str = Priority.NORMAL,
        due: float | None = None,
        requested_by: str = "",
        transaction: object | None = None,
    ) -> Opened:
        """Ask a person, in the caller's transaction: the item is there if and only if that commits.

        One item is open for a (kind, subject); a second is that one, seen again. evidence: any JSON, at most 64 KiB.
        actions: some of those registered for the kind; default all. priority: low, normal, high, critical. due: seconds
        until it escalates; default 72 h, 24 h, 4 h, 1 h. requested_by: a person who may not be the second of four eyes.
        transaction: as for `publish`; in a handler with a `Transaction` that is joined without asking; else it commits
        by itself. Raises InvalidMessage, StoreUnavailable, TransactionError's kinds.
        """
        part, known = self.host.part(ReviewPart), self._actions.of_kind(kind)
        offered = known if actions is None else tuple(actions)
        if not offered or not set(offered) <= set(known):
            remedy = f"register each: @service.reviews.action({kind!r}, ACTION)"
            raise InvalidMessage("actions", list(offered), f"kind {kind!r} has {list(known)}; {remedy}")
        item = new_item(
            id=part.ids.message_id(),
            service=self.host.name,
            kind=kind,
            subject=subject,
            question=question,
            actions=offered,
            evidence=evidence,
            priority=priority,
            due_seconds=due,
            requested_by=requested_by,
            now=part.tools.clock.now(),
        )
        reviews = part.tools.reviews
        tx = await self._joined(transaction)
        if tx is not None:
            return await open_item(reviews, tx, item)
        async with part.tools.store.transaction() as own:
            return await open_item(reviews, own, item)

    async def _joined(self, transaction: object | None) -> StoreTransaction | None:
        tools = self._tools
        unit: Any = tools.units.running() if transaction is None else transaction
        if unit is None:
            return None
        inner = getattr(unit, "inner", None)
        found: StoreTransaction = inner if inner is not None else await tools.store.adopt(unit)
        return found

    @property
    def _actions(self) -> Actions:
        return self.host.registrations.of(Actions)

    @property
    def _tools(self) -> Tools:
        return self.host.part(ReviewPart).tools


REVIEW = Entry(ReviewPart, ReviewsFacet)
