"""The only module that names concrete adapters: from URLs in the settings to a store and a broker."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from spoolproof.backoff import RandomSource
from spoolproof.clock import Clock
from spoolproof.errors import SettingsError
from spoolproof.ids import Ids
from spoolproof.ports.broker import Broker, Spawn
from spoolproof.ports.store import Store
from spoolproof.settings import Settings
from spoolproof.stores.blocking.outbox import BlockingOutbox
from spoolproof.urls import path_of, redact_url

PORTS: tuple[str, ...] = (
    # "file.Port",
)
"""The further ports of every store, one a line: `file.Port`, as `stores.ports` says."""


def file_faults(settings: Settings) -> list[str]:
    """Return what keeps the files that the settings name from being opened. Makes and opens nothing."""
    named = [("SPOOLPROOF_STORE", settings.store_url), ("SPOOLPROOF_BROKER", settings.broker_urls[0])]
    files = [(variable, path_of(url)) for variable, url in named if url.startswith(("sqlite://", "embedded://"))]
    faults = [f"{variable}: {fault}" for variable, path in files if (fault := _file_fault(path))]
    if not faults and len({path.resolve() for _, path in files}) < len(files):
        faults.append(f"SPOOLPROOF_STORE and SPOOLPROOF_BROKER are both {files[0][1]}: give each a file of its own")
    return faults


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


def build_store(settings: Settings, *, clock: Clock, ids: Ids, spawn: Spawn) -> Store:
    """Return the store the settings name, not started. Raises MissingExtra."""
    url = settings.store_url
    scheme = url.partition("://")[0]
    if scheme == "sqlite":
        from spoolproof.stores.sqlite import SqliteStore

        return SqliteStore(path_of(url), clock=clock, ids=ids, outbox_rows_max=settings.outbox_rows_max, ports=PORTS)
    if scheme in ("postgresql", "postgres"):
        from spoolproof.stores.postgres import PostgresStore

        return PostgresStore(
            url,
            clock=clock,
            ids=ids,
            outbox_rows_max=settings.outbox_rows_max,
            listen=settings.listen == "auto",
            spawn=spawn,
            ports=PORTS,
        )
    if scheme == "memory":
        from spoolproof.stores.memory import MemoryStore

        return MemoryStore(clock=clock, ids=ids, outbox_rows_max=settings.outbox_rows_max, ports=PORTS)
    raise SettingsError([f"SPOOLPROOF_STORE: {redact_url(url)!r} names no store this release knows"])


def build_blocking_outbox(settings: Settings, service: str, *, clock: Clock) -> BlockingOutbox:
    """Return the outbox for callers without an event loop; nothing is opened, and no driver needed."""
    return BlockingOutbox(
        settings.store_url,
        service,
        is_pooled=settings.listen == "off",
        rows_max=settings.outbox_rows_max,
        clock=clock,
    )


def build_broker(
    settings: Settings, service: str, *, clock: Clock, ids: Ids, random: RandomSource, spawn: Spawn
) -> Broker:
    """Return the broker the settings name, not started. Raises MissingExtra."""
    urls = settings.broker_urls
    scheme = urls[0].partition("://")[0]
    if scheme == "embedded":
        from spoolproof.brokers.embedded import EmbeddedBroker

        return EmbeddedBroker(path_of(urls[0]), service=service, clock=clock, ids=ids, spawn=spawn)
    if scheme in ("amqp", "amqps"):
        from spoolproof.brokers.rabbitmq import RabbitMQBroker

        return RabbitMQBroker(
            urls,
            service=service,
            clock=clock,
            random=random,
            spawn=spawn,
            retry_first_seconds=settings.broker_retry_seconds,
            is_required=settings.broker_required,
            rounds_max=settings.broker_rounds_max,
        )
    if scheme == "sqs":
        from spoolproof.brokers.sqs import SqsBroker

        return SqsBroker(
            urls[0],
            clock=clock,
            random=random,
            spawn=spawn,
            retry_first_seconds=settings.broker_retry_seconds,
            is_required=settings.broker_required,
            rounds_max=settings.broker_rounds_max,
        )
    if scheme == "memory":
        from spoolproof.brokers.memory import MemoryBroker

        return MemoryBroker(service=service, clock=clock, spawn=spawn)
    raise SettingsError([f"SPOOLPROOF_BROKER: {redact_url(urls[0])!r} names no broker this release knows"])


async def visit_broker(url: str, *, clock: Clock, random: RandomSource, spawn: Spawn) -> str:
    """Return what answers at a broker's URL, declaring nothing. Raises BrokerUnavailable, MissingExtra."""
    if url.startswith("sqs://"):
        from spoolproof.brokers.sqs.broker import visit as visit_sqs

        return await visit_sqs(url)
    from spoolproof.brokers.rabbitmq.visit import visit

    return f"RabbitMQ {await visit(url, clock=clock, random=random, spawn=spawn)}"


def sqlite_release() -> tuple[int, int, int]:
    """Return the release of SQLite this Python carries."""
    from spoolproof.sqlite import release

    return release.sqlite_release()
