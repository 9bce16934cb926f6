"""The private servers are what they claim to be: killable, durable, and gone when they should be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import asyncpg
import pika
import psutil
import pytest
from pika.adapters.utils.connection_workflow import AMQPConnectorStackTimeout

from spoolproof.testing.servers import PostgresServer, RabbitMQServer, ServerFailed
from spoolproof.testing.servers.ports import accepts_connections, free_port, release_port

pytestmark = [pytest.mark.integration, pytest.mark.servers]

#: Starts a server, prints where it lives and what it runs, and waits to be killed.
VICTIM = """
import json, sys, time
from spoolproof.testing.servers import PostgresServer, RabbitMQServer
server = {"rabbitmq": RabbitMQServer, "postgres": PostgresServer}[sys.argv[1]]()
server.start()
if sys.argv[2] == "frozen":
    server.freeze()
print(json.dumps([str(server.directory), server.pids()]), flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _running_again(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    for name in {"rabbitmq", "postgres"} & set(request.fixturenames):
        request.getfixturevalue(name).start()


def parameters(url: str, *, timeout: float = 10) -> pika.URLParameters:
    options = pika.URLParameters(url)
    options.socket_timeout = options.stack_timeout = options.blocked_connection_timeout = timeout
    return options


def send(url: str, body: bytes, *, kind: str = "classic") -> None:
    with pika.BlockingConnection(parameters(url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare("orders", durable=True, arguments={"x-queue-type": kind})
        channel.basic_publish("", "orders", body, pika.BasicProperties(delivery_mode=2), mandatory=True)


def receive(url: str) -> bytes | None:
    with pika.BlockingConnection(parameters(url)) as connection:
        body: bytes | None = connection.channel().basic_get("orders", auto_ack=True)[2]
        return body


async def execute(url: str, sql: str) -> list[int]:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        return [row[0] for row in await connection.fetch(sql, timeout=10)]
    finally:
        await connection.close()


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_rabbitmq_keeps_a_confirmed_message_through_a_kill(
    rabbitmq: RabbitMQServer, rabbitmq_url: str, kind: str
) -> None:
    """Otherwise a lost message in a crash test would say nothing about us."""
    send(rabbitmq_url, b"kept", kind=kind)
    rabbitmq.sync()  # without it the node may forget the queue itself

    rabbitmq.kill()
    assert not accepts_connections(rabbitmq.port)
    rabbitmq.start()

    assert _eventually(lambda: receive(rabbitmq_url) == b"kept")  # a quorum queue first elects its leader


def test_rabbitmq_keeps_a_message_through_a_graceful_restart(rabbitmq: RabbitMQServer, rabbitmq_url: str) -> None:
    send(rabbitmq_url, b"kept")

    rabbitmq.restart()

    assert receive(rabbitmq_url) == b"kept"


def test_rabbitmq_frozen_accepts_connections_and_answers_nothing(rabbitmq: RabbitMQServer, rabbitmq_url: str) -> None:
    """The half-dead peer: the kernel still completes the handshake."""
    send(rabbitmq_url, b"before")

    rabbitmq.freeze()
    assert accepts_connections(rabbitmq.port)
    with pytest.raises(AMQPConnectorStackTimeout):
        pika.BlockingConnection(parameters(rabbitmq_url, timeout=0.5))
    rabbitmq.thaw()

    assert receive(rabbitmq_url) == b"before"


def test_rabbitmqctl_talks_to_this_node(rabbitmq: RabbitMQServer, rabbitmq_url: str) -> None:
    vhost = rabbitmq_url.rpartition("/")[2]

    assert vhost in rabbitmq.rabbitmqctl("list_vhosts").split()
    with pytest.raises(ServerFailed, match="no_such_command"):
        rabbitmq.rabbitmqctl("no_such_command")


def test_rabbitmq_virtual_hosts_do_not_see_each_other(rabbitmq: RabbitMQServer, rabbitmq_url: str) -> None:
    other_url = rabbitmq.create_vhost("other")
    send(rabbitmq_url, b"mine")
    send(other_url, b"theirs")

    assert receive(rabbitmq_url) == b"mine"
    assert receive(rabbitmq_url) is None

    rabbitmq.delete_vhost("other")
    rabbitmq.delete_vhost("other")
    with pytest.raises(pika.exceptions.AMQPConnectionError):
        pika.BlockingConnection(parameters(other_url))


def test_rabbitmq_refuses_a_virtual_host_that_is_no_plain_word(rabbitmq: RabbitMQServer) -> None:
    with pytest.raises(ValueError, match="virtual host"):
        rabbitmq.create_vhost('">>, halt().')


@pytest.mark.parametrize("end", [PostgresServer.kill, PostgresServer.stop, PostgresServer.restart_immediate])
async def test_postgres_keeps_a_committed_row(
    postgres: PostgresServer, postgres_url: str, end: Callable[[PostgresServer], None]
) -> None:
    """Otherwise a lost row in a crash test would say nothing about us."""
    await execute(postgres_url, "create table t as select 42 as id")

    end(postgres)
    postgres.start()

    assert await execute(postgres_url, "select id from t") == [42]


async def test_postgres_frozen_answers_nothing_and_thawed_goes_on(postgres: PostgresServer, postgres_url: str) -> None:
    """The backends leave the process group of their server; a freeze must reach them all the same."""
    connection = await asyncpg.connect(postgres_url)

    postgres.freeze()
    with pytest.raises(TimeoutError):
        await connection.fetchval("select 1", timeout=0.3)
    postgres.thaw()

    await connection.close()
    assert await execute(postgres_url, "select 2") == [2]


async def test_postgres_copies_a_template(postgres: PostgresServer, postgres_url: str) -> None:
    await execute(postgres_url, "create table t as select 7 as id")

    copy_url = postgres.create_database("copy", template=postgres_url.rpartition("/")[2])

    assert await execute(copy_url, "select id from t") == [7]
    postgres.drop_database("copy")
    postgres.drop_database("copy")


async def test_postgres_syncs_and_listens_on_loopback_only(postgres: PostgresServer) -> None:
    assert postgres.psql("show fsync").strip() == "on"
    assert postgres.psql("show listen_addresses").strip() == "127.0.0.1"
    assert postgres.psql("show max_connections").strip() == "200"


@pytest.mark.parametrize("kind", [RabbitMQServer, PostgresServer])
def test_servers_stand_side_by_side_and_leave_nothing(
    request: pytest.FixtureRequest, kind: type[RabbitMQServer] | type[PostgresServer]
) -> None:
    shared = request.getfixturevalue(kind.kind)
    with kind() as second:
        pids = second.pids()
        assert second.port != shared.port
        assert not set(pids) & set(shared.pids())
        assert accepts_connections(second.port)
        assert accepts_connections(shared.port)
        listening = _listening_addresses(pids)
        second.stop()
        assert second.pids() == []
        assert not accepts_connections(second.port)

    assert listening <= {"127.0.0.1", "::1"}
    assert _still_running(pids) == []
    assert not second.directory.exists()
    assert shared.is_running()
    with pytest.raises(ServerFailed, match="closed"):
        second.start()


@pytest.mark.parametrize("state", ["running", "frozen"])
@pytest.mark.parametrize("kind", ["rabbitmq", "postgres"])
def test_servers_die_with_a_killed_parent(request: pytest.FixtureRequest, kind: str, state: str) -> None:
    """A test run that is killed must not leave a broker behind."""
    request.getfixturevalue(kind)  # skips where the server is missing
    victim = subprocess.Popen([sys.executable, "-c", VICTIM, kind, state], stdout=subprocess.PIPE)
    assert victim.stdout is not None
    with victim.stdout as output:
        line = output.readline()
    victim.send_signal(signal.SIGKILL)
    victim.wait()

    directory, pids = json.loads(line)

    assert pids
    assert _eventually(lambda: _still_running(pids) == [] and not Path(directory).exists())


def test_servers_quote_their_logs_when_they_cannot_start(postgres: PostgresServer) -> None:
    with PostgresServer() as broken:
        broken.stop()
        (broken.directory / "data" / "global" / "pg_control").write_bytes(b"")

        with pytest.raises(ServerFailed, match="pg_control"):
            broken.start()


def test_a_reserved_port_is_not_handed_out_to_another_process() -> None:
    ours = free_port()
    script = (
        "import sys; from spoolproof.testing.servers import ports;"
        f"ports.PORT_MIN, ports.PORT_MAX = {ours}, {ours + 1}; ports.free_port()"
    )

    refused = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    release_port(ours)
    granted = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert "no free port" in refused.stderr
    assert granted.stderr == ""


def _still_running(pids: list[int]) -> list[psutil.Process]:
    running = []
    for pid in pids:
        try:
            process = psutil.Process(pid)
            if process.status() != psutil.STATUS_ZOMBIE:
                running.append(process)
        except psutil.NoSuchProcess:
            continue
    return running


def _listening_addresses(pids: list[int]) -> set[str]:
    addresses = set()
    for process in _still_running(pids):
        with suppress(psutil.NoSuchProcess):  # the backend that answered the readiness question ends at any moment
            connections = process.net_connections(kind="inet")
            addresses.update(one.laddr.ip for one in connections if one.status == psutil.CONN_LISTEN)
    return addresses


def _eventually(condition: Callable[[], bool], *, seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has the server run as somebody else")
def test_a_folder_that_nobody_else_may_enter_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    with pytest.raises(ServerFailed, match=f"TMPDIR={tmp_path}: as root"), PostgresServer():
        pass
