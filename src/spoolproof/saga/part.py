"""Sagas in one process: the loop that runs them, and `service.saga`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from spoolproof import limits
from spoolproof.caught import storable_text
from spoolproof.errors import RegistrationError
from spoolproof.ids import derived_id
from spoolproof.lifecycle.entry import Context, Entry
from spoolproof.lifecycle.loop import Loop
from spoolproof.lifecycle.membership import Holding
from spoolproof.lifecycle.part import Part, Report
from spoolproof.lifecycle.registrations import Facet
from spoolproof.outbox.publish import Publisher
from spoolproof.outbox.transaction import Transaction
from spoolproof.ports.reviews import Reviews
from spoolproof.ports.sagas import Journal, SagaFilter, SagaRow, Sagas, SagaState, Signal, StepRow, StepState
from spoolproof.ports.transaction import StoreTransaction
from spoolproof.review.actions import Actions
from spoolproof.review.desk import Desk
from spoolproof.review.part import ReviewPart
from spoolproof.saga import desk
from spoolproof.saga.attempt import Tools
from spoolproof.saga.census import Census
from spoolproof.saga.decisions import Decisions, open_item_of
from spoolproof.saga.definition import Definitions, SagaDefinition
from spoolproof.saga.errors import InvalidSaga, KeyConflict
from spoolproof.saga.events import CLAIMED, STARTED
from spoolproof.saga.flow import signal_name
from spoolproof.saga.handle import Handle
from spoolproof.saga.question import Asking
from spoolproof.saga.receiver import Receiver
from spoolproof.saga.run import INPUT, input_of
from spoolproof.saga.runner import Runner
from spoolproof.saga.settings import SagaSettings
from spoolproof.saga.values import digest, encode
from spoolproof.saga.watch import Watch
from spoolproof.telemetry.metrics import METER, Measure

LEAD = "count"


class SagaPart(Part):
    """Runs the sagas of the service that this process has the code of."""

    def __init__(self, of: Context) -> None:
        self.of = of
        self.sagas = of.store.port(Sagas)
        self.definitions = of.registrations.of(Definitions)
        self._is_draining = False
        asking = Asking(of.store.port(Reviews), clock=of.clock, ids=of.ids)
        # it tells whether this process's row is still believed, and who leads
        self._holding = Holding(f"saga/{of.service}", (LEAD,), of.clock, of.fence_seconds)
        self.census = Census(of.service, self.sagas, self.definitions, of.clock)
        self.watch = Watch(of.clock)
        tools = Tools(
            store=of.store,
            publisher=of.the(Publisher),
            clock=of.clock,
            random=of.random,
            asking=asking,
            is_trusted=lambda: self._holding.is_trusted,
            is_draining=lambda: self._is_draining,
            watch=self.watch,
        )
        self.runner = Runner(
            *(of.service, self.sagas, self.definitions, tools),
            count=lambda: self.census.look(leads=self._holding.fence_for(LEAD) is not None),
            claimed_max=of.settings.of(SagaSettings).claimed_max,
            process_id=of.process_id,
            spawn=of.spawn,
            clock=of.clock,
        )

    def holdings(self) -> Sequence[Holding]:
        """Return what says that this process is alive to its peers, and the lead."""
        return (self._holding,)

    def loops(self) -> Sequence[Loop]:
        """Return the loop of sagas."""
        return (self.runner,)

    async def begin_drain(self) -> None:
        """Begin no step any more."""
        self._is_draining = True
        self.runner.wake()

    def report(self) -> Report:
        """Tell which sagas need somebody, in the process that leads."""
        return Report(issues=tuple(self.census.issues()))

    def measures(self) -> Iterable[Measure]:
        """Return how many sagas there are, and how many run here."""
        return [(CLAIMED, (), self.runner.running), *self.census.measures()]


class AsidePart(Part):
    """What processes have that run no sagas, too: people decide there, and steps of others are received."""

    def __init__(self, of: Context) -> None:
        self.store = of.store
        asking = Asking(of.store.port(Reviews), clock=of.clock, ids=of.ids)
        Decisions(of.store, asking, of.registrations.of(Definitions)).register(of.registrations.of(Actions))


class SagaFacet(Facet):
    """`service.saga`: define, start and steer sagas. `order = service.saga("shop.order", version=1)` defines one; all
    else needs the started service, and raises StoreUnavailable."""

    def __call__(
        self, name: str, *, version: int = 1, deadline: float = limits.SAGA_DEADLINE_SECONDS
    ) -> SagaDefinition:
        """Define a saga; its steps and its flow are registered on what is returned.

        name: 1 to 100 characters, in the journal. version: from 1; a flow that changes is a new one, and the old one
        stays until its sagas are over. deadline: seconds from the start after which it is undone. Raises
        RegistrationError.
        """
        if not isinstance(name, str) or not 1 <= len(name) <= 100 or "/" in name:
            raise RegistrationError(f"service.saga({name!r}): 1 to 100 characters, no '/'")
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise RegistrationError(f"saga {name!r}: version={version!r} must be a whole number from 1")
        if not isinstance(deadline, int | float) or isinstance(deadline, bool) or not deadline > 0:
            raise RegistrationError(f"saga {name!r}: deadline={deadline!r}: seconds above 0")
        definition = SagaDefinition(self, name, version, deadline)
        self.host.registrations.of(Definitions).add(definition)
        return definition

    async def start(
        self,
        name: str,
        payload: object,
        *,
        id: str | None = None,
        transaction: object | None = None,
        version: int | None = None,
    ) -> Handle:
        """Start a saga; it is durable on return, or once it will be when the given transaction commits.

        payload: the flow's input. id: what it is known by, 1 to 150 characters, such as the order's number; a second
        start under the same id returns the saga that exists, live or over. Default: a new one. transaction: as for
        `publish`. version: default the newest. Raises InvalidSaga, CodecError, KeyConflict for another payload under
        the same id, and TransactionError's kinds.
        """
        part = self._part
        definition = self._definition(name, version)
        key = part.of.ids.message_id() if id is None else id
        phase, row_name, item = INPUT
        kind = definition.input
        if kind is not Any and isinstance(kind, type) and not isinstance(payload, kind):
            raise InvalidSaga(f"saga {name!r} takes a {kind.__qualname__}, not {type(payload).__qualname__}")
        given = StepRow(
            phase=phase,
            name=row_name,
            item=item,
            state=StepState.SUCCEEDED,
            seq=0,
            output=encode(payload, kind, f"input of saga {name!r}"),
            arguments=digest(payload),
        )
        saga = self._saga(name, key, definition.version)
        tx = await self._joined(transaction)
        is_new = await part.sagas.start(saga, given, definition.deadline_seconds, tx)
        if is_new:
            METER.add(STARTED, (name,))
            part.runner.wake()
        else:
            await self._check_same(saga, given, tx)
        return Handle(part.sagas, definition, saga.saga_id, key, is_new=is_new, clock=part.of.clock, watch=part.watch)

    def handle(self, name: str, id: str) -> Handle:
        """Return the saga that was started under an id. Raises InvalidSaga for a name nobody defined."""
        saga = self._saga(name, id, 0)
        part = self._part
        return Handle(
            part.sagas,
            self._definition(name, None),
            saga.saga_id,
            id,
            is_new=False,
            clock=part.of.clock,
            watch=part.watch,
        )

    async def signal(
        self,
        name: str,
        id: str,
        signal: object,
        payload: object = None,
        *,
        message_id: str | None = None,
        transaction: object | None = None,
    ) -> bool:
        """Send a saga a signal, also before its start; False if that message id came before.

        signal: a name with its `payload`, or an instance whose class `saga.wait` names. Raises InvalidSaga, CodecError.
        """
        part = self._part
        value = payload if isinstance(signal, str) else signal
        body = encode(value, type(value) if value is not None else Any, f"signal {signal_name(signal)!r}")
        made = Signal(message_id=message_id or part.of.ids.message_id(), type=signal_name(signal), body=body)
        is_new = await part.sagas.signal(self._saga(name, id, 0), made, await self._joined(transaction))
        part.runner.wake()
        return is_new

    async def answer(
        self, saga_id: str, action: str, *, actor: str, reason: str, values: Mapping[str, Any] | None = None
    ) -> SagaState:
        """Answer what a saga asks, as `service.reviews.resolve` does on its item; returns the state it is in then.

        values: `output` of what landed or of a skipped step, `payload` of an edit. Raises NotFound, Conflict when it
        asks nothing, InvalidMessage.
        """
        part = self._part
        review = self.host.part(ReviewPart).tools
        id = await open_item_of(part.sagas, review.reviews, saga_id)
        await Desk(review).resolve(id, action, actor=actor, reason=reason, values=values)
        part.runner.wake()
        return (await self.get(saga_id)).saga.state

    async def cancel(self, saga_id: str, *, actor: str, reason: str) -> None:
        """Have a running saga undone. Raises NotFound, and Conflict past its point of no return."""
        await desk.cancel(self._part.of.store, saga_id, actor=actor, reason=reason)
        self._part.runner.wake()

    async def retry(self, saga_id: str, *, actor: str, reason: str) -> SagaState:
        """Try again now, as the answer to its question if it has one. Raises NotFound, Conflict."""
        if (await self.get(saga_id)).saga.state is SagaState.IN_REVIEW:
            return await self.answer(saga_id, "retry", actor=actor, reason=reason)
        state = await desk.retry(self._part.of.store, saga_id, actor=actor, reason=reason)
        self._part.runner.wake()
        return state

    async def wake(self, policy: str) -> int:
        """Make due every saga that waits for a dependency, as when its breaker closes; returns how many there were.

        policy: the name of the policy. For who has seen it answer, where too few calls failed to open a breaker.
        """
        woken, most = 0, limits.SAGA_WAKE_ROWS_MAX
        while (again := await self._part.sagas.wake(self.host.name, f"dependency:{policy}", most)) == most:
            woken += again
        self._part.runner.wake()
        return woken + again

    async def get(self, saga_id: str) -> Journal:
        """Return everything of a saga. Raises NotFound."""
        return await desk.find(self._part.sagas, saga_id)

    async def search(
        self, *, name: str | None = None, state: SagaState | None = None, limit: int = 100
    ) -> Sequence[SagaRow]:
        """Return sagas of this service, newest first."""
        return await self._part.sagas.search(SagaFilter(service=self.host.name, name=name, state=state, limit=limit))

    @property
    def _part(self) -> SagaPart:
        return self.host.part(SagaPart)

    def _saga(self, name: str, key: str, version: int) -> SagaRow:
        if not isinstance(key, str) or not 1 <= len(key) <= limits.SAGA_KEY_CHARACTERS_MAX or "\0" in key:
            raise InvalidSaga(f"id={key!r}: text of 1 to {limits.SAGA_KEY_CHARACTERS_MAX} characters")
        service = self.host.name
        if storable_text(key) != key:
            raise InvalidSaga(f"id={key!r}: a lone surrogate is no text")
        saga_id = derived_id("saga", service, name, key)
        return SagaRow(saga_id=saga_id, service=service, name=name, version=version, key=key)

    def _definition(self, name: str, version: int | None) -> SagaDefinition:
        definitions = self._part.definitions
        found = definitions.newest(name) if version is None else definitions.sagas.get((name, version))
        if found is None:
            known = ", ".join(sorted({of for of, _ in definitions.sagas})) or "none"
            raise InvalidSaga(f"no saga {name!r} is defined in this process; there are: {known}")
        return found

    async def _joined(self, transaction: object | None) -> StoreTransaction | None:
        if isinstance(transaction, Transaction):
            return transaction.inner
        return None if transaction is None else await self._part.of.store.adopt(transaction)

    async def _check_same(self, saga: SagaRow, given: StepRow, tx: StoreTransaction | None) -> None:
        found = await self._part.sagas.journal(saga.saga_id, tx)
        before = None if found is None else input_of(found)
        if before is not None and before.arguments != given.arguments:
            raise KeyConflict(f"saga {saga.name!r} with id {saga.key!r} was started with another payload")


class KeyedFacet(Facet):
    """`service.keyed`: the receiving side of keyed steps."""

    def __call__(self, scope: str, *, of: Any = Any) -> Receiver[Any]:
        """Return what does a thing once for a key: `receive = service.keyed("payments")`, also before the start.

        scope: 1 to 100 characters; a key means one thing within it. of: the type of the answers, JSON's own by default.
        Raises RegistrationError.
        """
        if not isinstance(scope, str) or not 1 <= len(scope) <= 100 or "\0" in scope:
            raise RegistrationError(f"service.keyed({scope!r}): a scope of 1 to 100 characters")
        return Receiver(lambda: self.host.part(AsidePart).store, self.host.name, scope, of)


SAGA = Entry(SagaPart, SagaFacet)
ASIDE = Entry(AsidePart, KeyedFacet)
