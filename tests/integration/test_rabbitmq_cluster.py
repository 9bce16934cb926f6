"""A service on a RabbitMQ cluster of three nodes that loses one after the other: nothing lost, order kept.

How long nothing was handled is watched for each queue of its own, and printed; a queue stands still for as long as its
own consumer and leader need, whatever the others do.

Partitioned means: the node's peers and it refuse each other on the Erlang side, and with `pause_minority` it closes its
listeners and clients by itself. Wires are not cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from spoolproof.testing.servers import RabbitMQCluster, RabbitMQServer

sys.path.insert(0, str(Path(__file__).parent))
from outages import CLEAN, ORDERED, PARALLEL, Outage, outage  # type: ignore[import-not-found]

pytestmark = [pytest.mark.integration, pytest.mark.servers, pytest.mark.timeout(300)]

PACE_SECONDS = 0.02  #: of each of four clients: 200 orders a second, each to two queues
FLOW_SECONDS_MAX = 5.0
FROZEN_SECONDS_MAX = 16.0
"""A frozen node keeps its connections; that nothing is heard from it is known after 10 s, and only then."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[RabbitMQCluster]:
    missing = RabbitMQCluster.missing()
    if missing is not None:
        pytest.skip(missing)
    with RabbitMQCluster() as three:
        yield three


@pytest.fixture
def urls(cluster: RabbitMQCluster) -> Iterator[str]:
    """The addresses of a virtual host of this test's own."""
    cluster.start()
    name = f"test-{uuid.uuid4().hex}"
    yield cluster.create_vhost(name)
    cluster.start()
    cluster.delete_vhost(name)


@pytest.fixture
async def load(postgres_url: str, urls: str, cluster: RabbitMQCluster) -> AsyncIterator[Outage]:
    async with outage(postgres_url, urls, pace_seconds=PACE_SECONDS, is_ordered=True) as load:
        await load.begin()
        await asyncio.to_thread(cluster.nodes[0].sync)
        yield load


class Stalls:
    """For how long each queue had no effect, at most."""

    def __init__(self, postgres_url: str) -> None:
        self._url = postgres_url
        self._counts = dict.fromkeys((ORDERED, PARALLEL), 0)
        self._moved_at = dict.fromkeys(self._counts, time.monotonic())
        self.seconds = dict.fromkeys(self._counts, 0.0)

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        watching = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _watch(self) -> None:
        connection = await asyncpg.connect(self._url, timeout=10)
        try:
            while True:
                rows = await connection.fetch("select queue, count(*) as effects from effect group by queue")
                now = time.monotonic()
                for row in rows:
                    queue, count = row["queue"], row["effects"]
                    if count > self._counts[queue]:
                        self._counts[queue], self._moved_at[queue] = count, now
                    self.seconds[queue] = max(self.seconds[queue], now - self._moved_at[queue])
                await asyncio.sleep(0.05)
        finally:
            await connection.close(timeout=10)


async def survive(
    load: Outage, cluster: RabbitMQCluster, postgres_url: str, what: str, fault: Callable[[], None], seconds_max: float
) -> None:
    """Let a fault happen under load; judge how long each queue stood still, and the sums."""
    stalls = Stalls(postgres_url)
    async with stalls.watched():
        await asyncio.to_thread(fault)
        await load.progress()
        await asyncio.sleep(2.0)  # what comes after the first sign of life counts as well
    print(f"{what}: {', '.join(f'{queue} {seconds:.1f} s' for queue, seconds in stalls.seconds.items())}")  # noqa: T201
    await asyncio.to_thread(cluster.start)  # what the node held must not come back either
    assert CLEAN == await load.end()
    assert max(stalls.seconds.values()) <= seconds_max


def leader(cluster: RabbitMQCluster, urls: str) -> RabbitMQServer:
    return cluster.leader_of(ORDERED, urls.rpartition("/")[2])


async def test_the_killed_leader_of_a_queue_costs_seconds(
    load: Outage, cluster: RabbitMQCluster, urls: str, postgres_url: str
) -> None:
    """Its connections are lost, and its queues elect another one."""
    node = await asyncio.to_thread(leader, cluster, urls)
    await survive(load, cluster, postgres_url, "leader killed", node.kill, FLOW_SECONDS_MAX)


@pytest.mark.proof
async def test_a_frozen_node_costs_the_time_until_that_is_known(
    load: Outage, cluster: RabbitMQCluster, urls: str, postgres_url: str
) -> None:
    """Nothing is heard, and nothing is refused."""
    node = await asyncio.to_thread(leader, cluster, urls)

    def freeze() -> None:
        node.freeze()
        time.sleep(FROZEN_SECONDS_MAX)
        node.thaw()

    await survive(load, cluster, postgres_url, "leader frozen for 16 s", freeze, FROZEN_SECONDS_MAX)


@pytest.mark.proof
async def test_a_node_parted_from_its_peers_costs_seconds(
    load: Outage, cluster: RabbitMQCluster, urls: str, postgres_url: str
) -> None:
    """What it has confirmed is with the majority; what it has not goes there."""
    node = await asyncio.to_thread(leader, cluster, urls)

    def part() -> None:
        cluster.isolate(node)
        time.sleep(6.0)
        cluster.rejoin(node)

    await survive(load, cluster, postgres_url, "leader parted for 6 s", part, FLOW_SECONDS_MAX)


@pytest.mark.proof
async def test_a_rolling_restart_costs_seconds_a_node(
    load: Outage, cluster: RabbitMQCluster, postgres_url: str
) -> None:
    """The everyday upgrade."""

    def restart_all() -> None:
        for node in cluster.nodes:
            node.restart()

    await survive(load, cluster, postgres_url, "rolling restart", restart_all, FLOW_SECONDS_MAX)


async def test_a_memory_alarm_under_load_loses_and_doubles_nothing(
    load: Outage, cluster: RabbitMQCluster, postgres_url: str
) -> None:
    """With several connections each hears of the alarm at its own first publish."""

    def alarm() -> None:
        cluster.nodes[1].rabbitmqctl("set_vm_memory_high_watermark", "0")
        time.sleep(3.0)
        cluster.nodes[1].rabbitmqctl("set_vm_memory_high_watermark", "absolute", "1GB")

    await survive(load, cluster, postgres_url, "memory alarm for 3 s", alarm, 3.0 + FLOW_SECONDS_MAX)
