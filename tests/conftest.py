"""Fixtures every test may use: private servers, and the check that a test leaves nothing behind.

The servers live for the whole run; each test has a virtual host and a database of its own. A missing server skips with
the command that installs it; with CI=true it fails.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import threading
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import TypeVar

import hypothesis
import psutil
import pytest

from spoolproof.testing.servers import MotoServer, PostgresServer, RabbitMQServer, RedisServer

# a busy machine is no fault of the code under test
hypothesis.settings.register_profile("busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("busy")

LEAK_PATIENCE_SECONDS = 2.0  #: what is closing when a test ends may take this long
IS_CI = os.environ.get("CI", "").lower() == "true"

Server = TypeVar("Server", MotoServer, PostgresServer, RabbitMQServer, RedisServer)
_baseline: pytest.StashKey[Baseline] = pytest.StashKey()
_this_process = psutil.Process()


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQServer]:
    """One RabbitMQ node for the whole run. A test that kills it need not start it again."""
    yield from _server(RabbitMQServer)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One PostgreSQL server for the whole run. A test that kills it need not start it again."""
    yield from _server(PostgresServer)


@pytest.fixture(scope="session")
def moto() -> Iterator[MotoServer]:
    """One SQS and SNS for the whole run. A test that kills it need not start it again."""
    yield from _server(MotoServer)


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    """One Redis for the whole run; each test has a service name of its own. A test that breaks it need not mend it."""
    yield from _server(RedisServer)


class VirtualHosts:
    """Virtual hosts of one node, made and deleted by the dozen: a command for each would cost every test a second."""

    def __init__(self, rabbitmq: RabbitMQServer) -> None:
        self._rabbitmq = rabbitmq
        self._fresh: list[str] = []
        self._used: list[str] = []

    def take(self) -> str:
        """Return the address of one that nobody has seen."""
        self._rabbitmq.start()
        if not self._fresh:
            self._fresh, used, self._used = [f"test-{uuid.uuid4().hex}" for _ in range(12)], self._used, []
            self._rabbitmq.exchange_vhosts(self._fresh, used)
        self._used.append(self._fresh.pop())
        return self._rabbitmq.url_of(self._used[-1])


@pytest.fixture(scope="session")
def virtual_hosts(rabbitmq: RabbitMQServer) -> VirtualHosts:
    """Those of the run's node."""
    return VirtualHosts(rabbitmq)


@pytest.fixture
def rabbitmq_url(virtual_hosts: VirtualHosts) -> str:
    """The address of a virtual host that only this test sees."""
    return virtual_hosts.take()


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """The address of an empty database that only this test sees."""
    postgres.start()
    name = f"test_{uuid.uuid4().hex}"
    yield postgres.create_database(name)
    postgres.start()
    postgres.drop_database(name)


def _server(kind: type[Server]) -> Iterator[Server]:
    missing = kind.missing()
    if missing is not None:
        (pytest.fail if IS_CI else pytest.skip)(missing)
    with kind() as server:
        yield server


class Baseline:
    """What this process holds before a test: threads, sockets, open files."""

    def __init__(self) -> None:
        self.threads = set(threading.enumerate())
        self.handles = _open_handles()

    def leaked(self) -> list[str]:
        """Return what was not there before, in words."""
        threads = [f"thread {thread.name}" for thread in set(threading.enumerate()) - self.threads]
        return sorted(threads) + sorted(_open_handles() - self.handles)


def _open_handles() -> set[str]:
    sockets = {
        f"socket {one.laddr} -> {one.raddr or 'nobody'} (fd {one.fd}, {one.status})"
        for one in _this_process.net_connections(kind="inet")
    }
    # the standard streams are pytest's: its capture exchanges them between the two looks, and CI sends them to a file
    files = {f"file {one.path} (fd {one.fd})" for one in _this_process.open_files() if one.fd > 2}
    return sockets | files


@pytest.fixture(autouse=True)
def _no_leaks(request: pytest.FixtureRequest) -> None:
    """Note what is open before the test and its own fixtures; the hook below compares when all of them are done.

    Fixtures of a wider scope come first: what they hold open is theirs.
    """
    if inspect.iscoroutinefunction(getattr(request.node, "obj", None)):
        request.getfixturevalue("_no_leftover_tasks")
    request.node.stash[_baseline] = Baseline()


@pytest.fixture
async def _no_leftover_tasks() -> AsyncIterator[None]:
    """Fail when tasks still run after the test and its fixtures."""
    yield
    deadline = time.monotonic() + LEAK_PATIENCE_SECONDS
    while leftover := asyncio.all_tasks() - {asyncio.current_task()}:
        if time.monotonic() > deadline:
            pytest.fail("left behind:\n" + "\n".join(f"  task {task!r}" for task in leftover), pytrace=False)
        await asyncio.sleep(0.01)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Fail a test that left threads, sockets or files behind."""
    yield
    baseline = item.stash.get(_baseline, None)
    if baseline is None:
        return
    deadline = time.monotonic() + LEAK_PATIENCE_SECONDS
    while leaked := baseline.leaked():
        if time.monotonic() > deadline:
            pytest.fail("left behind:\n" + "\n".join(f"  {one}" for one in leaked), pytrace=False)
        gc.collect()
        time.sleep(0.01)
