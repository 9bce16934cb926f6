"""Where the shop keeps its data, and how the orchestrator looks at it: through drivers of its own, not the product's.

Each service has its own store; they share the broker. A look may fail while a fault is on: DatabaseAway then says that
nothing is known, which is never the same as nothing being there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from spoolproof.cli.store import opened
from spoolproof.dead_letters.replay import replay
from spoolproof.errors import Unavailable
from spoolproof.ports.dead_letters import DeadLetterFilter, DeadLetterState
from spoolproof.ports.reviews import ReviewFilter, Reviews
from spoolproof.ports.sagas import SagaFilter, Sagas
from spoolproof.ports.store import Store
from spoolproof.settings import load_settings
from spoolproof.testing.demo.accounts import Letter
from spoolproof.testing.servers import PostgresServer, RabbitMQServer

logger = logging.getLogger("spoolproof.demo")

SALES = "sales"
PAYMENTS = "payments"
DELIVERY = "delivery"  #: keeps a SQLite file of its own, wherever the others keep theirs
SERVICES = (SALES, PAYMENTS)
COUNTED = {  #: what is looked at to see whether things go on
    PAYMENTS: "select count(*) from payment",
    DELIVERY: "select count(*) from delivery",
    SALES: "select count(*) from shop_order where review_reason = ''",
}
LOOK_SECONDS = 1.0  #: how long one look may take
LETTERS_MAX = 100_000


class DatabaseAway(Exception):
    """A look at a table got no answer."""


class Tables(ABC):
    """Reads the shop's own tables in one service's database."""

    @abstractmethod
    def rows(self, sql: str) -> Sequence[Sequence[Any]]:
        """Run a query. Raises DatabaseAway."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the connection."""


class SqliteTables(Tables):
    """One connection, kept: the last one to leave a file checkpoints it, and that should not be us."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, timeout=LOOK_SECONDS, isolation_level=None)
        self._connection.execute("pragma wal_autocheckpoint = 0").fetchall()

    def rows(self, sql: str) -> Sequence[Sequence[Any]]:
        try:
            return self._connection.execute(sql).fetchall()
        except sqlite3.OperationalError as error:
            raise DatabaseAway(str(error)) from error

    def close(self) -> None:
        self._connection.close()


class PostgresTables(Tables):
    """A connection that is dropped at the first trouble and made again at the next look."""

    def __init__(self, url: str, runner: asyncio.Runner) -> None:
        self._url = url
        self._runner = runner
        self._connection: Any = None

    def rows(self, sql: str) -> Sequence[Sequence[Any]]:
        import asyncpg

        try:
            return self._runner.run(self._fetch(asyncpg, sql))
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            self.close()
            raise DatabaseAway(str(error)) from error

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def _fetch(self, asyncpg: Any, sql: str) -> Sequence[Sequence[Any]]:
        async with asyncio.timeout(LOOK_SECONDS):
            if self._connection is None:
                self._connection = await asyncpg.connect(self._url)
            return [tuple(row) for row in await self._connection.fetch(sql)]


class Backend(ABC):
    """Stores and broker of one run. Make it, `start` it, `close` it."""

    name: str
    broker_url: str
    store_urls: dict[str, str]

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._runner = asyncio.Runner()
        # a look that a fault cuts short may leave asyncpg a future nobody asks; the look itself said DatabaseAway
        self._runner.get_loop().set_exception_handler(_note)
        self._tables: dict[str, Tables] = {}

    @abstractmethod
    def start(self) -> None:
        """Bring up what the shop needs to be there."""

    @abstractmethod
    def queued(self) -> int:
        """Return how many messages the broker holds, delayed and unacked ones included."""

    @abstractmethod
    def _open_tables(self, service: str) -> Tables: ...

    def close(self) -> None:
        """End everything `start` began."""
        for tables in self._tables.values():
            tables.close()
        self._tables.clear()
        self._runner.close()

    def rows(self, service: str, sql: str) -> Sequence[Sequence[Any]]:
        """Look at a service's own tables. Raises DatabaseAway."""
        if service not in self._tables:
            is_file = service == DELIVERY
            path = self._folder / "deliveries.db"
            self._tables[service] = SqliteTables(path) if is_file else self._open_tables(service)
        return self._tables[service].rows(sql)

    def count(self, service: str) -> int | None:
        """Return how often money moved, parcels were made, or products were asked; None while that cannot be told."""
        try:
            return int(self.rows(service, COUNTED[service])[0][0])
        except DatabaseAway:
            return None

    # --- what an operator does, through the product -------------------------------------------------------------------

    def waiting(self) -> int:
        """Return how many messages wait in the outboxes. Raises DatabaseAway."""

        async def count(store: Store) -> int:
            return (await store.outbox.backlog()).rows

        return sum(self._with_store(service, count) for service in SERVICES)

    def letters(self) -> list[Letter]:
        """Return every dead letter of both services. Raises DatabaseAway."""

        async def read(store: Store) -> list[Letter]:
            return [
                Letter(
                    order_id=str(msgspec.json.decode(record.message.body)["order_id"]),
                    error_class=record.error_class,
                    state=record.state.value,
                    replays=record.replays,
                )
                for record in await store.dead_letters.search(DeadLetterFilter(limit=LETTERS_MAX))
            ]

        return [letter for service in SERVICES for letter in self._with_store(service, read)]

    def sagas(self) -> list[tuple[str, str]]:
        """Return every order's saga, and its state. Raises DatabaseAway."""

        async def read(store: Store) -> list[tuple[str, str]]:
            found = await store.port(Sagas).search(SagaFilter(service=SALES, limit=LETTERS_MAX))
            return [(saga.key, saga.state.value) for saga in found]

        return list(self._with_store(SALES, read))

    def reviews(self) -> list[str]:
        """Return who resolved each review item; "" for those that are open. Raises DatabaseAway."""

        async def read(store: Store) -> list[str]:
            found = await store.port(Reviews).search(ReviewFilter(state=None, limit=LETTERS_MAX))
            return [item.resolved_by for item in found]

        return list(self._with_store(SALES, read))

    def repair_printer(self) -> None:
        """Have every receipt printed. Raises DatabaseAway."""

        async def write(store: Store) -> None:
            async with store.transaction() as tx:
                await tx.execute("insert into printer_repaired values (1)")

        self._with_store(PAYMENTS, write)

    def replay_all(self) -> int:
        """Replay every open dead letter; returns how many. Raises DatabaseAway."""

        async def send(store: Store) -> int:
            letters = await store.dead_letters.search(DeadLetterFilter(state=DeadLetterState.OPEN, limit=LETTERS_MAX))
            for record in letters:
                await replay(store, record.id, actor="demo", reason="the printer is repaired")
            return len(letters)

        return sum(self._with_store(service, send) for service in SERVICES)

    def _with_store(self, service: str, work: Callable[[Store], Any]) -> Any:
        async def run() -> Any:
            settings = load_settings(_env_file=None, store=self.store_urls[service], broker=self.broker_url)
            async with opened(settings) as store:
                return await work(store)

        try:
            return self._runner.run(run())
        except Unavailable as error:
            raise DatabaseAway(str(error)) from error


def _note(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    logger.debug("demo.look_cut_short %s", context.get("message"), exc_info=context.get("exception"))


class Embedded(Backend):
    """The default: SQLite and the embedded broker, three files in a folder."""

    name = "SQLite and the embedded broker"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.broker_url = f"embedded:///{folder / 'broker.db'}"
        self.store_urls = {service: f"sqlite:///{folder / service}.db" for service in SERVICES}
        self._broker: SqliteTables | None = None

    def start(self) -> None:
        """Nothing to start: the files are made by who needs them first."""

    def queued(self) -> int:
        if self._broker is None:
            self._broker = SqliteTables(self._folder / "broker.db")
        return int(self._broker.rows("select count(*) from message")[0][0])

    def close(self) -> None:
        if self._broker is not None:
            self._broker.close()
        super().close()

    def _open_tables(self, service: str) -> Tables:
        return SqliteTables(self._folder / f"{service}.db")


class Servers(Backend):
    """A private RabbitMQ node and a private PostgreSQL server with a database for each service."""

    name = "PostgreSQL and RabbitMQ"
    _vhost = "shop"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        with contextlib.ExitStack() as undo:
            self.postgres = PostgresServer()
            undo.callback(self.postgres.close)
            self.rabbitmq = RabbitMQServer()
            undo.pop_all()

    def start(self) -> None:
        self.postgres.start()
        self.rabbitmq.start()
        self.broker_url = self.rabbitmq.create_vhost(self._vhost)
        self.store_urls = {service: self.postgres.create_database(service) for service in SERVICES}

    def queued(self) -> int:
        listed = self.rabbitmq.rabbitmqctl("list_queues", "--no-table-headers", "-p", self._vhost, "messages")
        return sum(int(line) for line in listed.split())

    def close(self) -> None:
        super().close()
        self.rabbitmq.close()
        self.postgres.close()

    def _open_tables(self, service: str) -> Tables:
        return PostgresTables(self.store_urls[service], self._runner)
