"""What the pages read, and what actions act through: a store, and perhaps the service that this process runs.

Mounted, the dashboard belongs to its service and knows this process live, also while the store is away. Alone, it knows
the store; what processes tell of themselves is there as views. Everything a person does is a function of the layer that
owns the data; here is only how they are reached.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from spoolproof.clock import Clock
from spoolproof.codec import TypeRegistry
from spoolproof.dead_letters.desk import Desk as LettersDesk
from spoolproof.dead_letters.desk import Tools as LettersTools
from spoolproof.errors import Conflict, NotFound, NotStarted
from spoolproof.health.snapshot import Snapshot
from spoolproof.health.view import ProcessView, read_views
from spoolproof.ids import Ids
from spoolproof.lifecycle.registrations import Registrations
from spoolproof.outbox.publish import Publisher
from spoolproof.outbox.transaction import UnitsOfWork
from spoolproof.policies import Registry
from spoolproof.ports.reviews import Reviews
from spoolproof.ports.store import Store
from spoolproof.reconciliation.part import register_actions
from spoolproof.reconciliation.runner import Runner
from spoolproof.reconciliation.runner import Tools as RunnerTools
from spoolproof.review.actions import Actions
from spoolproof.review.desk import Desk as ReviewsDesk
from spoolproof.review.desk import Tools as ReviewsTools
from spoolproof.review.messages import MESSAGE, Parked
from spoolproof.review.part import ReviewPart
from spoolproof.saga.decisions import Decisions
from spoolproof.saga.definition import Definitions
from spoolproof.saga.question import PREFIX, Asking
from spoolproof.settings import Settings

if TYPE_CHECKING:
    from spoolproof.runtime import Runtime
    from spoolproof.service import Service


@dataclass(frozen=True, kw_only=True)
class Source:
    """What is at hand. own: the name of the service whose code is here, "" without one. view, snapshot: of this process
    if it runs the service, else None. registrations: its declarations."""

    settings: Settings
    store: Store
    clock: Clock
    ids: Ids
    own: str = ""
    registrations: Registrations = field(default_factory=Registrations)
    policies: Registry | None = None
    view: Callable[[], ProcessView] | None = None
    snapshot: Callable[[], Snapshot] | None = None
    process_id: str = ""
    review_tools: ReviewsTools | None = None  #: of the running service
    is_ending: Callable[[], bool] = lambda: False
    is_alone: bool = False
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def letters(self) -> LettersDesk:
        """The verbs on dead letters."""
        registry = self.registrations.of(TypeRegistry)
        decode = (lambda message: registry.decode(message, message.type)) if self.own else None
        return LettersDesk(LettersTools(store=self.store, clock=self.clock, ids=self.ids, decode=decode))

    @property
    def actions(self) -> Actions:
        """What decisions do, as far as the code is here."""
        return self.registrations.of(Actions)

    def reviews(self, service: str = "spoolproof") -> ReviewsDesk:
        """Return the verbs on review items. service: whose items are resolved, so that what that publishes is its."""
        if self.review_tools is not None:
            return ReviewsDesk(self.review_tools)
        publisher = Publisher(self.store, source=service, clock=self.clock, ids=self.ids)
        units = UnitsOfWork(self.store, publisher)
        return ReviewsDesk(ReviewsTools(store=self.store, units=units, actions=self.actions, clock=self.clock))

    @asynccontextmanager
    async def publishing(self, service: str) -> AsyncIterator[Publisher]:
        """Give a publisher whose events a service ships. Raises Conflict where this process runs another one."""
        publisher = Publisher(self.store, source=service, clock=self.clock, ids=self.ids)
        if self.is_alone:
            async with self._turn:
                await self.store.services.claim(service)
                yield publisher
        elif service != self.own:
            raise Conflict(
                f"this is the dashboard of {self.own}; open the one of {service}, or run spoolproof dashboard"
            )
        else:
            yield publisher

    @asynccontextmanager
    async def deciding(self, id: str) -> AsyncIterator[ReviewsDesk]:
        """Give the verbs for one item, whose service's rows are written meanwhile. Raises NotFound, and Conflict where
        the item is another service's than the code that is here."""
        details = await self.store.port(Reviews).get(id)
        if details is None or details.item is None:
            raise NotFound(f"there is no review item {id!r}")
        item = details.item
        if fault := self.cannot_decide(item.service, item.kind):
            raise Conflict(fault)
        if not self.is_alone:
            yield self.reviews(self.own)
            return
        async with self._turn:  # rows are written to the block that was claimed last
            await self.store.services.claim(item.service)
            yield self.reviews(item.service)

    def cannot_decide(self, service: str, kind: str) -> str:
        """Return why items of a service and kind cannot be decided here; "" if they can."""
        if service == self.own or (self.is_alone and (kind == MESSAGE or kind.startswith(PREFIX))):
            return ""
        if self.is_alone:
            return (
                f"start the dashboard with --service MODULE:SERVICE of {service}, whose code says what a decision does"
            )
        return f"this is the dashboard of {self.own}; open the one of {service}, or run spoolproof dashboard"

    async def views(self) -> Mapping[str, ProcessView]:
        """Return what every process that lives told last; this one's as it is now. Raises StoreUnavailable."""
        living = {str(process.id) for process in await self.store.leases.processes()}
        found = {id: view for id, view in (await read_views(self.store.state)).items() if id in living}
        return {**found, **self.own_view()}

    def own_view(self) -> dict[str, ProcessView]:
        """Return this process's, if it runs a service."""
        return {} if self.view is None else {self.process_id or "this process": self.view()}


def source_of(name: str, runtime: Runtime) -> Source:
    """Return what a running service is a source of."""
    try:
        process_id = str(runtime.process_id)
    except NotStarted:  # its store was not reached yet
        process_id = ""
    return Source(
        settings=runtime.settings,
        store=runtime.store,
        clock=runtime.clock,
        ids=runtime.ids,
        own=name,
        registrations=runtime.registrations,
        policies=runtime.policies,
        view=runtime.view,
        snapshot=runtime.monitor.snapshot,
        process_id=process_id,
        review_tools=runtime.part(ReviewPart).tools,
        is_ending=lambda: runtime.is_draining,
    )


def source_alone(
    settings: Settings, store: Store, service: Service | None, *, clock: Clock, is_ending: Callable[[], bool]
) -> Source:
    """Return an opened store as a source, with the code of a service that does not run here, if it was named."""
    ids = Ids(clock)
    registrations = Registrations() if service is None else service.reviews.host.registrations
    own = "" if service is None else service.name
    source = Source(
        settings=settings,
        store=store,
        clock=clock,
        ids=ids,
        own=own,
        registrations=registrations,
        is_ending=is_ending,
        is_alone=True,
    )
    registry = registrations.of(TypeRegistry)
    decode = (lambda message: registry.decode(message, message.type)) if own else None
    Parked(store, ids, decode).register(source.actions)
    units = UnitsOfWork(store, Publisher(store, source=own or "spoolproof", clock=clock, ids=ids))
    tools = RunnerTools(service=own or "spoolproof", store=store, units=units, clock=clock, ids=ids)
    register_actions(registrations, Runner(tools))
    asking = Asking(store.port(Reviews), clock=clock, ids=ids)
    Decisions(store, asking, registrations.of(Definitions)).register(source.actions)
    return source
