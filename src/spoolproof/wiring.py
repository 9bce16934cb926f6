"""The only module that names concrete adapters, with the one table of what is known of each.

A new adapter is a row here: how its URLs look, what it is called, how far it reaches, how it is made and how `doctor`
looks at it. Nobody else asks what a URL begins with. Drivers are imported when a row is used.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from spoolproof.alerts.book import AlertFile
from spoolproof.backoff import RandomSource
from spoolproof.brokers.settings import RabbitMQSettings
from spoolproof.cache.settings import CacheSettings
from spoolproof.clock import Clock
from spoolproof.errors import SettingsError
from spoolproof.health.settings import HealthSettings
from spoolproof.health.snapshot import DB
from spoolproof.ids import Ids
from spoolproof.ports.broker import Broker, Spawn
from spoolproof.ports.cache import SharedCache, SharedCaches
from spoolproof.ports.finding import Finding
from spoolproof.ports.spool import Salvaged, SpoolLook, Spools
from spoolproof.ports.store import Store
from spoolproof.ports.topology import Inspection
from spoolproof.settings_group import SettingsGroup
from spoolproof.spool.settings import OFF, SpoolSettings
from spoolproof.stores.blocking.outbox import BlockingOutbox
from spoolproof.urls import (
    UrlForm,
    file_fault,
    form_of,
    host_fault,
    path_of,
    postgres_fault,
    redact_url,
    seeds_fault,
    url_fault,
)

if TYPE_CHECKING:
    from spoolproof.settings import Settings
    from spoolproof.stores.sqlite.spool import SqliteSpools

PORTS: tuple[str, ...] = (
    # "file.Port",
    "held_keys.HeldKeys",
    "schedule.Schedule",
    "webhooks.Webhooks",
    "triage.Triage",
    "recurring.Recurring",
    "bulk.Bulks",
    "sagas.Sagas",
    "effect_keys.EffectKeys",
    "reviews.Reviews",
    "reconciliations.Reconciliations",
    "batches.Batches",
    "audit.Audit",
)
"""The further ports of every store, one a line: `file.Port`, as `stores.ports` says."""

ADAPTER_GROUPS: tuple[type[SettingsGroup], ...] = (RabbitMQSettings,)
"""Settings of one adapter alone."""

STORE, BROKER = "SPOOLPROOF_STORE", "SPOOLPROOF_BROKER"

M = TypeVar("M")
L = TypeVar("L")


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter(UrlForm, Generic[M, L]):
    """What is known before anything is opened. name: its word in health bodies and SPOOLPROOF_READY_NEEDS. make:
    returns it, not started; may raise MissingExtra. look: what `doctor` asks it. is_shared: by several machines, and so
    by several releases. is_forgetful: it ends with its process, and nobody else sees it. has_inbox: what it remembers
    of a message is there when its copy comes to another process."""

    name: str
    make: M
    look: L | None = None
    inspect: Callable[..., Awaitable[Inspection]] | None = None
    is_shared: bool = False
    is_forgetful: bool = False
    has_inbox: bool = True


StoreAdapter = Adapter[
    Callable[["Settings", str, Clock, Ids, Spawn], Store],
    Callable[[Store | None], Awaitable[list[Finding]]],
]
"""look: at a started store, or at one that is still to be made (None)."""

BrokerAdapter = Adapter[
    Callable[["Settings", Clock, Ids, RandomSource, Spawn], Broker],
    Callable[[str, Clock, RandomSource, Spawn], Awaitable[str]],
]
"""look: at one URL; says what is there and changes nothing, or raises BrokerUnavailable or MissingExtra."""


def _look(module: str, name: str = "look") -> Callable[..., Any]:
    """Return a function of a module, which is imported when it is called."""
    return lambda *given, **named: getattr(import_module(f"spoolproof.{module}"), name)(*given, **named)


# --- stores ----------------------------------------------------------------------------------------------------------


def _sqlite(settings: Settings, service: str, clock: Clock, ids: Ids, spawn: Spawn) -> Store:
    from spoolproof.stores.sqlite import SqliteStore

    path = path_of(settings.store_url)
    return SqliteStore(path, clock=clock, ids=ids, outbox_rows_max=settings.outbox_rows_max, ports=PORTS)


def _postgres(settings: Settings, service: str, clock: Clock, ids: Ids, spawn: Spawn) -> Store:
    from spoolproof.stores.postgres import PostgresStore

    return PostgresStore(
        settings.store_url,
        clock=clock,
        ids=ids,
        outbox_rows_max=settings.outbox_rows_max,
        listen=settings.listen == "auto",
        spawn=spawn,
        ports=PORTS,
    )


def _spool_alone(settings: Settings, service: str, clock: Clock, ids: Ids, spawn: Spawn) -> Store:
    return _spools(settings, service, clock, ids, is_home=True).new()


def _spools(settings: Settings, service: str, clock: Clock, ids: Ids, *, is_home: bool = False) -> SqliteSpools:
    from spoolproof.stores.sqlite.spool import SqliteSpools

    folder, limits = spool_folder(settings), settings.of(SpoolSettings)
    return SqliteSpools(
        None if folder is None else folder / service,
        service,
        rows_max=limits.spool_rows_max,
        bytes_max=limits.spool_bytes_max,
        free_bytes_min=limits.spool_free_bytes_min,
        clock=clock,
        ids=ids,
        ports=PORTS,
        is_home=is_home,
    )


def _memory_store(settings: Settings, service: str, clock: Clock, ids: Ids, spawn: Spawn) -> Store:
    from spoolproof.stores.memory import MemoryStore

    return MemoryStore(clock=clock, ids=ids, outbox_rows_max=settings.outbox_rows_max, ports=PORTS)


STORES: tuple[StoreAdapter, ...] = (
    Adapter(
        name="sqlite",
        schemes=("sqlite",),
        example="sqlite:///store.db (relative), sqlite:////var/lib/shop/store.db (from the root)",
        fault=file_fault,
        is_file=True,
        make=_sqlite,
        look=_look("stores.sqlite.doctor"),
    ),
    Adapter(
        name="postgresql",
        schemes=("postgresql", "postgres"),
        example="postgresql://USER:PASSWORD@HOST:5432/DATABASE",
        fault=postgres_fault,
        is_shared=True,
        make=_postgres,
        look=_look("stores.postgres.doctor"),
    ),
    Adapter(name="memory", schemes=("memory",), make=_memory_store, is_forgetful=True),
    Adapter(name="none", schemes=("none",), example="none", make=_spool_alone, has_inbox=False),
)

# --- brokers ---------------------------------------------------------------------------------------------------------


def _embedded(settings: Settings, clock: Clock, ids: Ids, random: RandomSource, spawn: Spawn) -> Broker:
    from spoolproof.brokers.embedded import EmbeddedBroker

    return EmbeddedBroker(path_of(settings.broker_urls[0]), clock=clock, ids=ids, spawn=spawn)


def _rabbitmq(settings: Settings, clock: Clock, ids: Ids, random: RandomSource, spawn: Spawn) -> Broker:
    from spoolproof.brokers.rabbitmq import RabbitMQBroker

    own = settings.of(RabbitMQSettings)
    return RabbitMQBroker(
        settings.broker_urls,
        clock=clock,
        random=random,
        spawn=spawn,
        retry_first_seconds=settings.broker_retry_seconds,
        is_required=settings.broker_required,
        rounds_max=settings.broker_rounds_max,
        publish_connections=own.publish_connections,
        consume_connections=own.consume_connections,
        topology_mode=own.topology,
    )


def _sqs(settings: Settings, clock: Clock, ids: Ids, random: RandomSource, spawn: Spawn) -> Broker:
    from spoolproof.brokers.sqs import SqsBroker

    return SqsBroker(
        settings.broker_urls[0],
        clock=clock,
        random=random,
        spawn=spawn,
        retry_first_seconds=settings.broker_retry_seconds,
        is_required=settings.broker_required,
        rounds_max=settings.broker_rounds_max,
    )


def _memory_broker(settings: Settings, clock: Clock, ids: Ids, random: RandomSource, spawn: Spawn) -> Broker:
    from spoolproof.brokers.memory import MemoryBroker

    return MemoryBroker(clock=clock, spawn=spawn)


BROKERS: tuple[BrokerAdapter, ...] = (
    Adapter(
        name="embedded",
        schemes=("embedded",),
        example="embedded:///broker.db (relative), embedded:////var/lib/shop/broker.db (from the root)",
        fault=file_fault,
        is_file=True,
        make=_embedded,
        look=_look("brokers.embedded.doctor"),
    ),
    Adapter(
        name="rabbitmq",
        schemes=("amqp", "amqps"),
        example="amqp://USER:PASSWORD@HOST:5672/VHOST",
        fault=host_fault,
        takes_several=True,
        is_shared=True,
        make=_rabbitmq,
        look=_look("brokers.rabbitmq.doctor"),
        inspect=_look("brokers.rabbitmq.inspection", "inspect"),
    ),
    Adapter(
        name="sqs",
        schemes=("sqs",),
        example="sqs://REGION, sqs://KEY_ID:SECRET@REGION?endpoint=http://127.0.0.1:5000",
        fault=host_fault,
        is_shared=True,
        make=_sqs,
        look=_look("brokers.sqs.doctor"),
    ),
    Adapter(name="memory", schemes=("memory",), make=_memory_broker, is_forgetful=True),
)

# --- caches ----------------------------------------------------------------------------------------------------------


def _redis_cache(url: str, service: str, clock: Clock) -> SharedCache | None:
    from spoolproof.caches.redis import RedisCache

    return RedisCache(url, service)


def _sqlite_cache(url: str, service: str, clock: Clock) -> SharedCache | None:
    from spoolproof.caches.sqlite import SqliteCache

    return SqliteCache(path_of(url), clock)


CACHES: tuple[Adapter[Callable[[str, str, Clock], SharedCache | None], None], ...] = (
    Adapter(
        name="redis",
        schemes=("redis", "rediss"),
        example="redis://:PASSWORD@HOST:6379/0",
        fault=host_fault,
        make=_redis_cache,
        is_shared=True,
    ),
    Adapter(
        name="redis",
        schemes=("redis+sentinel", "redis+cluster"),
        example="redis+sentinel://:PASSWORD@HOST:26379,HOST:26379/NAME/0, redis+cluster://:PASSWORD@HOST:6379,HOST:6379",
        fault=seeds_fault,
        make=_redis_cache,
        is_shared=True,
    ),
    Adapter(
        name="sqlite",
        schemes=("sqlite",),
        example="sqlite, or sqlite:///cache.db",
        fault=file_fault,
        is_file=True,
        make=_sqlite_cache,
    ),
    Adapter(name="memory", schemes=("memory",), make=lambda url, service, clock: None, is_forgetful=True),
)


def cache_url(settings: Settings, service: str) -> str:
    """Return the URL of the shared cache of a service, with password."""
    given, row = settings.of(CacheSettings).url, store_adapter(settings)
    if given == "memory" or (not given and row.is_forgetful):
        return "memory://"
    if given and given != "sqlite":
        return given
    return f"sqlite:///{_folder_beside(settings) / f'cache-{service}.db'}"


def _folder_beside(settings: Settings) -> Path:
    """Return where files of this machine go beside the store."""
    return path_of(settings.store_url).parent if store_adapter(settings).is_file else settings.data_dir


def missing_cache(settings: Settings, service: str) -> Path | None:
    """Return the cache's file if it is one that nobody has made yet."""
    url = cache_url(settings, service)
    path = path_of(url) if _row(url, CACHES).is_file else None
    return path if path is not None and not path.exists() else None


def build_cache(settings: Settings, service: str, *, clock: Clock) -> SharedCache | None:
    """Return the shared cache the settings name, not started; None where memory is all. Raises MissingExtra."""
    url = cache_url(settings, service)
    return _row(url, CACHES).make(url, service, clock)


# --- by the settings -------------------------------------------------------------------------------------------------


def store_adapter(settings: Settings) -> StoreAdapter:
    """Return the row of the store the settings name."""
    return _row(settings.store_url, STORES)


def broker_adapter(settings: Settings) -> BrokerAdapter:
    """Return the row of the broker the settings name."""
    return _row(settings.broker_urls[0], BROKERS)


def _row(url: str, rows: Sequence[Adapter[M, L]]) -> Adapter[M, L]:
    row = form_of(url, rows)
    if row is None:
        raise SettingsError([f"{redact_url(url)!r} names nothing this release knows"])
    return row


def build_store(settings: Settings, *, clock: Clock, ids: Ids, spawn: Spawn, service: str = "") -> Store:
    """Return the store the settings name, not started. Raises MissingExtra."""
    return store_adapter(settings).make(settings, service, clock, ids, spawn)


def build_local(settings: Settings, store: Store, service: str, *, clock: Clock, ids: Ids) -> dict[type[Any], Any]:
    """Return what a process has beside its store, in files of this machine, by its port."""
    is_forgetful = store_adapter(settings).is_forgetful
    return {
        Spools: getattr(store, "spools", None) or _spools(settings, service, clock, ids),
        SharedCaches: SharedCaches(lambda: build_cache(settings, service, clock=clock)),
        AlertFile: AlertFile(None if is_forgetful else _folder_beside(settings) / f"alerts-{service}.json"),
    }


def spool_folder(settings: Settings) -> Path | None:
    """Return the folder that has a folder for the spool of each service; None when there is no spool."""
    given = settings.of(SpoolSettings).spool
    if given == OFF:
        return None
    if given:
        return Path(given)
    row = store_adapter(settings)
    return settings.data_dir / "spool" if row.is_shared or not row.has_inbox else None


def look_into_spools(folder: Path) -> list[SpoolLook]:
    """Return every file below the folder of all spools, oldest first for each service."""
    from spoolproof.stores.sqlite.spool import look

    return [look(path) for path in sorted(folder.glob("*/*.db"))]


def damaged_spools(folder: Path) -> list[Path]:
    """Return the files there that were found damaged, of every service."""
    from spoolproof.stores.sqlite.spool import damaged_below

    return [path for one in sorted(folder.glob("*/")) for path in damaged_below(one)]


async def salvage_spool(settings: Settings, path: Path, *, clock: Clock, ids: Ids) -> Salvaged:
    """Read a damaged spool file into a fresh one beside it. Raises Conflict, NotFound, StoreUnavailable."""
    from spoolproof.stores.sqlite.spool import salvage_by_hand

    spools = _spools(settings, path.parent.name, clock, ids)
    spools.folder = path.parent
    return await salvage_by_hand(spools, path)


def build_blocking_outbox(settings: Settings, service: str, *, clock: Clock) -> BlockingOutbox:
    """Return the outbox for callers without an event loop; nothing is opened, and no driver needed."""
    return BlockingOutbox(
        settings.store_url,
        service,
        store=store_adapter(settings).name,
        is_pooled=settings.listen == "off",
        rows_max=settings.outbox_rows_max,
        clock=clock,
    )


def build_broker(settings: Settings, *, clock: Clock, ids: Ids, random: RandomSource, spawn: Spawn) -> Broker:
    """Return the broker the settings name, not started. Raises MissingExtra."""
    return broker_adapter(settings).make(settings, clock, ids, random, spawn)


def shown(url: str) -> str:
    """Return a URL of a store or broker without its password."""
    forms: list[UrlForm] = [*STORES, *BROKERS]
    form = form_of(url, forms)
    return url if form is not None and form.is_file else redact_url(url)


def forgetful(settings: Settings) -> list[str]:
    """Return which of store and broker end with this process, as they are set."""
    return [f"{variable}={url}" for variable, url, row in _named(settings) if row.is_forgetful]


def files(settings: Settings) -> dict[str, Path]:
    """Return the files that store and broker are, by variable."""
    return {variable: path_of(url) for variable, url, row in _named(settings) if row.is_file}


def _named(settings: Settings) -> list[tuple[str, str, Adapter[Any, Any]]]:
    return [
        (STORE, settings.store_url, store_adapter(settings)),
        (BROKER, settings.broker_urls[0], broker_adapter(settings)),
    ]


def missing_store(settings: Settings) -> Path | None:
    """Return the store's file if it is one that nobody has made yet."""
    path = files(settings).get(STORE)
    return path if path is not None and not path.exists() else None


def setting_faults(settings: Settings) -> list[str]:
    """Return what is wrong with settings taken together, and with the files they name. Makes and opens nothing."""
    known = [DB, *(row.name for row in BROKERS if not row.is_forgetful)]
    faults = [
        f"SPOOLPROOF_READY_NEEDS={name}: the dependencies are {', '.join(known)}"
        for name in settings.of(HealthSettings).ready_needs
        if name not in (*known, broker_adapter(settings).name)
    ]
    if fault := url_fault(cache_url(settings, "x"), CACHES):
        faults.append(f"SPOOLPROOF_CACHE: {fault}")
    named = files(settings)
    wrong = [f"{variable}: {fault}" for variable, path in named.items() if (fault := _file_fault(path))]
    folder, given = spool_folder(settings), settings.of(SpoolSettings).spool
    if folder is None and not store_adapter(settings).has_inbox:
        wrong.append(f"{STORE}=none keeps events in the spool alone: unset SPOOLPROOF_SPOOL={given}, or name a store")
    if folder is not None and (given or not store_adapter(settings).has_inbox) and (fault := _file_fault(folder / "x")):
        wrong.append(f"SPOOLPROOF_SPOOL: {fault}")
    if not wrong and len({path.resolve() for path in named.values()}) < len(named):
        wrong.append(f"{STORE} and {BROKER} are both {named[STORE]}: give each a file of its own")
    return faults + wrong


def _file_fault(path: Path) -> str | None:
    folder = path.absolute().parent
    try:
        while not os.path.lexists(folder):  # what is missing is made at start
            folder = folder.parent
        mode = path.stat().st_mode if path.exists() else stat.S_IFREG
    except OSError as error:
        return f"{path}: {error.strerror}"
    if not folder.is_dir():
        return f"{folder} is not a directory, so {path} cannot be in it"
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return f"{folder} cannot be written to by this user; chown it, or set SPOOLPROOF_DATA_DIR"
    if stat.S_ISDIR(mode):
        return f"{path} is a directory; name a file in it, as in {path / 'store.db'}"
    if not stat.S_ISREG(mode):
        return f"{path} is not a regular file"
    if path.exists() and not os.access(path, os.R_OK | os.W_OK):
        return f"{path} cannot be read and written by this user; chown it"
    return None


def sqlite_release() -> tuple[int, int, int]:
    """Return the release of SQLite this Python carries."""
    from spoolproof.sqlite import release

    return release.sqlite_release()
