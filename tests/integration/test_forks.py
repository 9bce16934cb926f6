"""A pool worker outlives its killed parent: what the parent had open on servers and ports ends with the parent."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from spoolproof.testing.servers import RabbitMQServer

pytestmark = [pytest.mark.integration, pytest.mark.servers]

NODE = Path(__file__).with_name("forking_node.py")
SEEN_SECONDS = 5.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


async def test_an_orphan_holds_no_session_no_port_and_no_delivery(
    postgres_url: str, rabbitmq: RabbitMQServer, rabbitmq_url: str, tmp_path: Path
) -> None:
    """The open transaction of a dead process kept its locks, and its health port, for as long as the worker lived; the
    broker kept its deliveries, and sent it more, until the heartbeat."""
    port = free_port()
    node = subprocess.Popen(
        [sys.executable, str(NODE), str(port), str(tmp_path), postgres_url, rabbitmq_url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    connection = await asyncpg.connect(postgres_url)
    try:
        assert node.stdout is not None
        orphan = int(await asyncio.to_thread(node.stdout.readline))
        assert not await connection.fetchval("select pg_try_advisory_lock(42)")
        vhost = rabbitmq_url.rpartition("/")[2]
        assert vhost in await asyncio.to_thread(rabbitmq.rabbitmqctl, "list_connections", "vhost")

        node.kill()
        node.wait()

        async with asyncio.timeout(SEEN_SECONDS):
            await connection.execute("select pg_advisory_lock(42)")
        async with asyncio.timeout(2 * SEEN_SECONDS):  # the tool takes a second or two to start
            while vhost in await asyncio.to_thread(rabbitmq.rabbitmqctl, "list_connections", "vhost"):
                await asyncio.sleep(0.1)
        with socket.create_server(("127.0.0.1", port)):
            os.kill(orphan, 0)  # it is there all the while
    finally:
        node.kill()
        node.communicate()
        await connection.close()
