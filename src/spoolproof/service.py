"""The user's process and its registrations: the one object an application makes.

Nothing happens at import: settings are read and connections opened by `start` (which `spoolproof run` and `lifespan`
call). Two services in one process do not meet: there is no process-wide state but the failpoint plan.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, overload

from pydantic import SecretStr

import spoolproof
from spoolproof.backoff import RandomSource, system_random
from spoolproof.clock import Clock, SystemClock
from spoolproof.codec import TypeRegistry, Upcast
from spoolproof.consumer import around as consumer_around
from spoolproof.consumer.around import HandleAround
from spoolproof.consumer.dependencies import Dependencies
from spoolproof.consumer.handler import Handler, HandlerFunction
from spoolproof.consumer.options import HandlerOptions, RunOptions
from spoolproof.consumer.registration import make_handler, make_run_handler
from spoolproof.consumer.router import Router
from spoolproof.consumer.settings import ConsumerSettings
from spoolproof.errors import NotInTransaction, NotStarted, RegistrationError, SettingsError
from spoolproof.health.asgi import Health
from spoolproof.health.settings import HealthSettings
from spoolproof.health.snapshot import Snapshot
from spoolproof.health.thread import Address
from spoolproof.ids import Ids
from spoolproof.lifecycle.hooks import Hook, Hooks
from spoolproof.lifecycle.part import Part
from spoolproof.lifecycle.registrations import Facet, OwnHost, Registrations
from spoolproof.message import Outgoing
from spoolproof.outbox import around as publish_around
from spoolproof.outbox.around import PublishAround
from spoolproof.outbox.blocking import BlockingPublisher
from spoolproof.outbox.options import PublishOptions
from spoolproof.outbox.publish import handling
from spoolproof.outbox.receipt import Place, Receipt, receipt_of
from spoolproof.outbox.transaction import Transaction, unit_of_work
from spoolproof.parts import FACETS, ROLES, entry_of
from spoolproof.policies import Registry, default_registry
from spoolproof.protected import BrokerHandle
from spoolproof.requests.part import RequestsPart
from spoolproof.runtime import Runtime
from spoolproof.schedules.expression import cron, every
from spoolproof.schedules.runs import Declared
from spoolproof.settings import Settings, load_settings
from spoolproof.wiring import build_blocking_outbox, setting_faults, store_adapter

if TYPE_CHECKING:
    from spoolproof.cache.part import CacheFacet
    from spoolproof.consumer.jobs.part import BatchesFacet
    from spoolproof.dead_letters.part import DeadLettersFacet
    from spoolproof.degradation.part import DegradationFacet
    from spoolproof.reconciliation.part import ReconciliationFacet
    from spoolproof.review.part import ReviewsFacet
    from spoolproof.saga.part import KeyedFacet, SagaFacet
    from spoolproof.testing.app import App
    from spoolproof.testing.clock import ManualClock
    from spoolproof.web.part import DashboardFacet

F = TypeVar("F", bound=HandlerFunction)
P1 = TypeVar("P1", bound=Callable[..., object])
A = TypeVar("A", bound=consumer_around.Around)
B = TypeVar("B", bound=publish_around.Around)
H = TypeVar("H", bound=Hook)
P = TypeVar("P", bound=Part)
R = TypeVar("R")


class Service:
    """A service: its handlers, and once started its store and broker.

    name: 1 to 100 letters, digits, `-`, `_` or `.`; names its queues. settings: the environment, read anew at each
    start, if None. policies: the registry whose breakers are kept in the store across restarts and whose settings are
    checked at start; default: the process's. lifespan: an async context manager around each run, given the service;
    see `on_start`. clock, random: the machine's unless a test passes its own.
    """

    def __init__(
        self,
        name: str,
        *,
        settings: Settings | None = None,
        policies: Registry | None = None,
        lifespan: Callable[[Service], AbstractAsyncContextManager[object]] | None = None,
        clock: Clock | None = None,
        random: RandomSource | None = None,
    ) -> None:
        plain = isinstance(name, str) and name.replace("-", "").replace("_", "").replace(".", "")
        if not plain or not plain.isalnum() or len(name) > 100:
            raise RegistrationError(f"Service({name!r}): use 1 to 100 letters, digits, '-', '_' or '.'")
        if settings is not None and not isinstance(settings, Settings):
            raise RegistrationError(f"Service(settings={type(settings).__name__}): pass Settings(…) or nothing")
        self.name = name
        self._given_settings = settings
        self._policies = policies or default_registry()
        self._clock = clock or SystemClock()
        self._random = random or system_random()
        self._registrations = Registrations()
        if lifespan is not None:
            self._registrations.of(Hooks).lifespan = partial(lifespan, self)
        self._router = self._registrations.of(Router)
        self._unused: list[str] = []  #: decorators made and not yet put on a function
        self._registry = self._registrations.of(TypeRegistry)
        self._facets: dict[str, Facet] = {}
        self._runtime: Runtime | None = None
        self._blocking: BlockingPublisher | None = None
        self._health = Health(self._snapshot)

    if TYPE_CHECKING:
        dashboard: DashboardFacet  #: app.mount("/ops", service.dashboard(auth=…))
        cache: CacheFacet  #: declare a cache: service.cache("products", of=Product)
        batches: BatchesFacet  #: declare jobs, and run them over many items with a verdict for each
        degradation: DegradationFacet  #: ladders of cheaper answers, and less work at need
        dead_letters: DeadLettersFacet  #: look at what was given up on, mend it, send it again
        keyed: KeyedFacet  #: do once what a saga of another service asks for under one key
        saga: SagaFacet  #: define, start and steer work in several steps
        reviews: ReviewsFacet  #: ask people, and do what they decide
        reconciliation: ReconciliationFacet  #: keys that are checked until settled, two sides that are compared
    else:

        def __getattr__(self, name: str) -> Facet:
            """Return a facet: what a feature offers beyond the verbs above, as `parts` lists it."""
            if name.startswith("_") or name not in FACETS:
                raise AttributeError(f"Service has no {name!r}")
            facet = entry_of(FACETS[name]).facet
            assert facet is not None  # the line of its feature says it has one
            host = OwnHost(self.name, self._registrations, lambda: self.runtime, self._policies)
            return self._facets.setdefault(name, facet(host))

    # --- register ----------------------------------------------------------------------------------------------------

    def on(self, *events: type | str, **options: Unpack[HandlerOptions]) -> Callable[[F], F]:
        """Register a function as the handler of these events: classes marked by @event, or wire names for dicts.

        Its parameters are filled by annotation: the event, `Delivery`, `Transaction`; with a `Transaction` its effects
        and publishes commit together with the inbox row, and happen once. The ack follows the commit. A plain `def`
        runs in a thread and takes `SyncTransaction`. options: `queue`, `timeout`, `concurrency`, `prefetch`,
        `attempts`, `delays`, `dedupe`, `gate`, `on_unknown`, `ordered`, `on_key_failure`, `formerly`, `foreign`,
        `message_id`, `missing_id`, as HandlerOptions says. Raises RegistrationError with every fault.
        """
        for one in events:
            if not isinstance(one, type | str) and callable(one):
                name = getattr(one, "__name__", "the handler")
                raise RegistrationError(f"@service.on has no event; write @service.on(OrderPlaced) above {name}")
        written = "service.on(" + ", ".join(getattr(one, "__name__", repr(one)) for one in events) + ")"
        return self._registering(written, lambda function: make_handler(function, events, service=self.name, **options))

    def _registering(self, written: str, make: Callable[[F], Handler]) -> Callable[[F], F]:
        """Return a decorator that registers what `make` makes of its function. written: how it stands in the code."""
        self._unused.append(written)

        def register(function: F) -> F:
            if written in self._unused:
                self._unused.remove(written)
            if self._runtime is not None:
                raise RegistrationError(f"{function!r}: handlers are registered before the service starts")
            handler = make(function)
            for model in handler.models:
                self._registry.add(model)
            self._router.add(handler)
            return function

        return register

    def every(
        self, period: str | float | timedelta, *, queue: str | None = None, **options: Unpack[RunOptions]
    ) -> Callable[[F], F]:
        """Run a function once a period in the whole service: `30s`, `5m`, `2h`, `1d`, seconds or a timedelta.

        The first run is a period after its first start; the times outlive restarts. A run is a message without payload
        in a queue of its own: retried, kept as a dead letter, handled once. After an outage one run stands for all that
        were missed. queue: default `<service>.<function>`. options: `timeout`, `attempts`, `delays`, `on_unknown`, as
        for `on`. Raises RegistrationError.
        """
        return self._by_the_clock(f"service.every({period!r})", every(period), queue, options)

    def cron(
        self, fields: str, *, zone: str = "UTC", queue: str | None = None, **options: Unpack[RunOptions]
    ) -> Callable[[F], F]:
        """Run a function at the times of five cron fields, such as `0 3 * * *`, in an IANA time zone; see `every`.

        A time that summer time skips comes right after it; one that it repeats comes once.
        """
        return self._by_the_clock(f"service.cron({fields!r})", cron(fields, zone), queue, options)

    def _by_the_clock(self, written: str, expression: str, queue: str | None, options: RunOptions) -> Callable[[F], F]:
        def make(function: F) -> Handler:
            handler = make_run_handler(function, queue, service=self.name, **options)
            self._registrations.of(Declared).expressions[handler.queue] = expression
            return handler

        return self._registering(written, make)

    def upcast(self, type: str, *, from_version: int) -> Callable[[Upcast], Upcast]:
        """Register a function (dict to dict) that turns a payload of `from_version` into the next version's.

        Raises RegistrationError for a second one, and for what can never be one.
        """

        def register(function: Upcast) -> Upcast:
            self._registry.add_upcast(type, from_version, function)
            return function

        return register

    def provides(self, function: P1) -> P1:
        """Register what gives handlers something, by the type it is annotated to return.

        A function, an `async def`, or a context manager or generator around the value, which is closed when the attempt
        has ended. It may ask for a Delivery, a Transaction, or what others provide. Raises RegistrationError; what
        nobody provides is found at the start.
        """
        self._registrations.of(Dependencies).add(function)
        return function

    def around_handle(self, function: A) -> A:
        """Register `async def f(delivery, call_next)` around every attempt; the first registered is the outermost.

        It returns what `await call_next()` returns, or raises; its time is the handler's. Raises RegistrationError.
        """
        self._registrations.of(HandleAround).add(function)
        return function

    def around_publish(self, function: B) -> B:
        """Register `async def f(message, call_next)` around every publish; the first registered is the outermost.

        It returns what `await call_next(message)` returns, with this message or one made from it
        (`msgspec.structs.replace`), or raises. Raises RegistrationError.
        """
        self._registrations.of(PublishAround).add(function)
        return function

    def on_start(self, function: H) -> H:
        """Register a function, plain or async, that runs at the start: the store is there, and nothing was delivered.
        What it raises ends the start."""
        self._registrations.of(Hooks).add(function, is_start=True)
        return function

    def on_stop(self, function: H) -> H:
        """Register a function, plain or async, that runs when all handlers have ended; the last registered is first."""
        self._registrations.of(Hooks).add(function, is_start=False)
        return function

    # --- publish -----------------------------------------------------------------------------------------------------

    async def publish(
        self, payload: object, *, transaction: object | None = None, **options: Unpack[PublishOptions]
    ) -> Receipt:
        """Publish an event; returns once it is durable, or once it will be when the given transaction commits.

        payload: an instance of a class marked by @event, or a dict with `type=`; refused unless it reads back the same
        from its bytes. transaction: your own open transaction (asyncpg connection; SQLAlchemy AsyncSession,
        AsyncConnection, Session, Connection; sqlite3 connection) or a Spoolproof Transaction; inside a handler, and in
        tasks started there until the handler ends, its own is joined without asking. options: `key`, `id`, `type`,
        `expires`, `headers`, `destination`, `routing_key`, `correlation_id`, `subject`; `at` or `delay` for later.
        Raises InvalidMessage, InvalidSchedule, MessageTooLarge, UnknownType, CodecError, NotInTransaction,
        WrongDatabase, OutboxMissing, UnsupportedTransaction, OutboxFull, ScheduleFull, SpoolFull, StoreUnavailable.
        """
        publisher = self.runtime.publisher
        return await publisher.keep(publisher.outgoing(payload, options), partial(self._keep, transaction))

    async def _keep(self, transaction: object | None, outgoing: Outgoing) -> Receipt:
        publisher = self.runtime.publisher
        if isinstance(transaction, Transaction):
            return await transaction.collect(outgoing)
        if transaction is not None:
            await publisher.append_through(transaction, [outgoing])
            return receipt_of(outgoing, Place.TRANSACTION)
        running = handling.get()
        joined = None if running is None else await running.join(outgoing)
        if joined is not None:
            return joined
        return receipt_of(outgoing, await publisher.store([outgoing]))

    async def cancel(self, id: str, *, transaction: object | None = None) -> bool:
        """Take back a message that was published with `at` or `delay`; False: it is on its way already, or unknown.

        id: `receipt.id`. transaction: as for `publish`; it is taken back if and only if that commits, as it is with the
        transaction of the handler it is called in. Idempotent. Raises StoreUnavailable and TransactionError's kinds.
        """
        runtime, running = self.runtime, handling.get()
        if isinstance(transaction, Transaction):
            return await transaction.cancel(id)
        joined = None if transaction is not None or running is None else await running.cancel(id)
        if joined is not None:
            return joined
        tx = None if transaction is None else await runtime.store.adopt(transaction)
        return await runtime.publisher.cancel(id, tx)

    @overload
    async def request(
        self, payload: object, *, timeout: float | timedelta, **options: Unpack[PublishOptions]
    ) -> dict[str, Any]: ...
    @overload
    async def request(
        self, payload: object, *, timeout: float | timedelta, reply: type[R], **options: Unpack[PublishOptions]
    ) -> R: ...
    async def request(
        self,
        payload: object,
        *,
        timeout: float | timedelta,
        reply: type[Any] | None = None,
        **options: Unpack[PublishOptions],
    ) -> Any:
        """Publish an event and wait for what its handler returns: an event or a dict.

        timeout: seconds, at most an hour; the request expires with it. reply: the class of the answer; a dict without.
        It is sent at once, and joins no unit of work. Raises RequestTimeout, whose outcome is unknown, CodecError for
        an answer of another kind, TransactionError in a handler with a Transaction, RequestsFull, SettingsError on a
        broker without such queues, and what `publish` raises.
        """
        return await self.runtime.part(RequestsPart).ask(payload, timeout, reply, options)

    def publish_sync(
        self, payload: object, *, transaction: object | None = None, **options: Unpack[PublishOptions]
    ) -> Receipt:
        """Publish an event from code without an event loop: one INSERT through your own open transaction.

        transaction: `django.db.connection` inside `transaction.atomic()`, a SQLAlchemy Session or Connection, a psycopg
        or sqlite3 connection. In a handler that is a plain function it may be left out: the handler's is joined.
        Needs no started service; settings are read at the first call. options and errors as `publish`; what the driver
        raises passes as it is.
        """
        running = handling.get()
        if transaction is None:
            if running is None or running.is_over or running.bridge is None:
                raise NotInTransaction(
                    "publish_sync needs transaction=, your own open transaction; with an event loop there is "
                    "`await service.publish(…)`"
                )
            return running.bridge(lambda: self.publish(payload, **options))
        if self._blocking is None:
            outbox = build_blocking_outbox(self.settings, self.name, clock=self._clock)
            around = self._registrations.of(PublishAround)
            self._blocking = BlockingPublisher(outbox.append, source=self.name, clock=self._clock, around=around)
        receipt = self._blocking.publish(payload, options, transaction)
        if self._runtime is not None:
            self._runtime.wake_from_thread()
        return receipt

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Open a transaction of the store; what is published in it is delivered if and only if it commits.

        On SQLite it must end within 5 s (TransactionTooLong): there is one writer. Raises StoreUnavailable.
        """
        return unit_of_work(self.runtime.store, self.runtime.publisher)

    # --- run ---------------------------------------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """The settings it was made with or runs with; without either, what the environment says now.

        Raises SettingsError with every fault, those of policies included.
        """
        if self._given_settings is not None:
            return self._given_settings
        if self._runtime is not None:
            return self._runtime.settings
        try:
            return load_settings()
        except SettingsError as error:
            raise SettingsError([*error.faults, *self._policies.check()]) from None

    @property
    def runtime(self) -> Runtime:
        """The running instance. Raises NotStarted."""
        if self._runtime is None:
            raise NotStarted(
                f"service {self.name!r} is not started; use `spoolproof run`, service.lifespan or await service.start()"
            )
        return self._runtime

    @property
    def broker(self) -> BrokerHandle:
        """What this process knows of the broker: `service.broker.status`."""
        return BrokerHandle(lambda: self.runtime.broker.status())

    @property
    def health(self) -> Health:
        """The health endpoint as an ASGI application, usable before the start: `app.mount("/", service.health)`."""
        return self._health

    async def start(self, *, only: Sequence[str] = ROLES, health: Address | None = None) -> None:
        """Start relay, consumers and housekeeping, or those roles of it named in `only`.

        health: where to answer probes from a thread of its own; default: `health_port` of the settings, if that is set.
        Raises SettingsError, RegistrationError, SchemaOutdated, StoreUnavailable, and BrokerUnavailable if required.
        """
        unknown = set(only) - set(ROLES)
        if unknown:
            raise RegistrationError(f"only={sorted(unknown)}: the roles are {', '.join(ROLES)}")
        settings = self._checked_settings()
        probes = settings.of(HealthSettings)
        if health is None and probes.port is not None:
            health = Address(probes.host, probes.port)
        await self._run(settings, self._clock, roles=only, health=health)

    async def _run(self, settings: Settings, clock: Clock, **options: Any) -> None:
        """Start with these settings; options: more of what a Runtime is made from."""
        if self._runtime is not None:
            raise RegistrationError(f"service {self.name!r} is started already")
        self._check(settings)
        self._blocking = None  # it goes by the settings of the running service
        self._runtime = Runtime(
            self.name,
            settings,
            self._registrations,
            self._policies,
            clock=clock,
            ids=Ids(clock),
            random=self._random,
            **options,
        )
        try:
            await self._runtime.start()
        except BaseException:
            self._runtime = None
            raise

    def test(
        self, *, store: Literal["memory", "sqlite"] = "memory", clock: ManualClock | None = None
    ) -> AbstractAsyncContextManager[App]:
        """Run the service for a test: `async with service.test() as app`. See `spoolproof.testing.app.App`.

        store: `memory`, or `sqlite` for handlers with SQL: a file in a folder of its own, gone after the block. clock:
        default a new one, which moves only when told. Settings are read anew, but for store and broker.
        """
        from spoolproof.testing.app import run

        return run(self, store=store, clock=clock)

    async def _start_under_test(self, places: Mapping[str, SecretStr], clock: Clock, **make: Any) -> None:
        """Start without a health endpoint; places: what `store` and `broker` of the settings are instead."""
        given = self._given_settings
        settings = load_settings(**places) if given is None else given.model_copy(update=dict(places))
        if faults := self._policies.check():
            raise SettingsError(faults)
        await self._run(settings, clock, roles=ROLES, health=None, **make)

    async def drain(self, seconds: float | None = None) -> None:
        """Finish what runs, take nothing new. seconds: default `drain_seconds`. Call `stop` afterwards."""
        await self.runtime.drain(self.settings.drain_seconds if seconds is None else seconds)

    async def stop(self) -> None:
        """Close everything. Idempotent; without a drain before, unfinished deliveries go back to the broker."""
        runtime, self._blocking = self._runtime, None
        if runtime is None:
            return
        try:
            await runtime.stop()  # stop hooks may still use it
        finally:
            if self._runtime is runtime:
                self._runtime = None

    @asynccontextmanager
    async def lifespan(self, app: Any = None) -> AsyncIterator[None]:
        """Run the service while an ASGI application runs: `FastAPI(lifespan=service.lifespan)`."""
        await self.start()
        try:
            yield
            await self.drain()
        finally:
            await self.stop()

    def _snapshot(self) -> Snapshot:
        if self._runtime is not None:
            return self._runtime.monitor.snapshot()
        return Snapshot(at=self._clock.now(), service=self.name, version=spoolproof.__version__)

    def _checked_settings(self) -> Settings:
        """Return the settings for a start. Raises SettingsError with every fault of settings and policies together."""
        settings = self.settings
        if faults := [*setting_faults(settings), *self._policies.check()]:
            raise SettingsError(faults)
        return settings

    def _check(self, settings: Settings) -> None:
        faults = self._registrations.faults()
        dependencies = self._registrations.of(Dependencies)
        faults += self._router.faults(dependencies, settings.of(ConsumerSettings).timeout_seconds)
        faults += [f"{one} is on no function: nothing is registered by it; write @{one}" for one in self._unused]
        if not store_adapter(settings).has_inbox:
            faults += self._router.faults_without_inbox()
            runs = self._registrations.of(Declared).expressions
            faults += [f"{queue!r} runs by the clock, which needs a store; SPOOLPROOF_STORE is none" for queue in runs]
        if faults:
            raise RegistrationError(f"service {self.name!r}:\n" + "\n".join(f"  - {fault}" for fault in faults))
