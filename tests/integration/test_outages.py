"""A service on PostgreSQL and RabbitMQ keeps its promises while either is stopped, killed, frozen or cut off.

After each: nothing lost (S1), nothing invented (S2), both or neither (S3), effects once (S4), order per key (S7), no
attempt burnt and no dead letter (S9). Recovery times are printed, and asserted with room for a busy machine.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from spoolproof.ports.broker import ConnectionState
from spoolproof.testing.servers import PostgresServer, RabbitMQServer

sys.path.insert(0, str(Path(__file__).parent))
from outages import CLEAN, Outage, outage, relay_process  # type: ignore[import-not-found]

pytestmark = [pytest.mark.integration, pytest.mark.servers, pytest.mark.timeout(90)]

FIRST_CONFIRM_SECONDS_MAX = 3.0  #: after the broker accepts connections; the target is 1 s (V1)
CONSUMERS_BACK_SECONDS_MAX = 5.0  #: after the database answers
SHORT_LEASE_SECONDS = 1.0


@pytest.fixture
async def load(postgres_url: str, rabbitmq_url: str, rabbitmq: RabbitMQServer) -> AsyncIterator[Outage]:
    """A service under load, its topology on the broker's disk."""
    async with outage(postgres_url, rabbitmq_url) as load:
        await load.begin()
        await asyncio.to_thread(rabbitmq.sync)
        yield load


@pytest.fixture(autouse=True)
def _running_again(rabbitmq: RabbitMQServer, postgres: PostgresServer) -> Iterator[None]:
    yield
    rabbitmq.start()
    postgres.start()


@pytest.fixture(autouse=True)
def _nothing_unexpected(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """An outage is expected everywhere: a traceback in the log means that somebody was surprised by it."""
    yield
    surprises = [record.getMessage() for record in caplog.get_records("call") if record.exc_info]
    assert [] == surprises
    counted = [record.getMessage() for record in caplog.get_records("call") if "relay.returned" in record.msg]
    assert [] == counted


def report(what: str, seconds: float) -> None:
    print(f"{what}: {seconds:.2f} s")  # noqa: T201


async def cut_connections(load: Outage, rabbitmq: RabbitMQServer) -> None:
    """Once all connections stand, close them, and make sure that it happened."""
    await until_broker_is(load, ConnectionState.CONNECTED)
    before = [one.since for one in load.service.broker.status.connections]
    await asyncio.to_thread(rabbitmq.rabbitmqctl, "close_all_connections", "--global", "cut by the test")
    await until(lambda: all(one.since not in before for one in load.service.broker.status.connections), "a cut")


async def until_broker_is(load: Outage, state: ConnectionState) -> None:
    await until(lambda: load.service.broker.status.state is state, f"the broker to be {state}")


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, f"waited 10 s for {what}"
        await asyncio.sleep(0.02)


async def broker_back(load: Outage, rabbitmq: RabbitMQServer) -> None:
    confirmed = await load.watch_backlog()
    await asyncio.to_thread(rabbitmq.start)
    seconds = await confirmed()
    report("broker accepts connections -> first confirmed publish", seconds)
    assert seconds <= FIRST_CONFIRM_SECONDS_MAX


async def database_back(load: Outage, postgres: PostgresServer) -> None:
    await asyncio.to_thread(postgres.start)
    seconds = await load.progress()
    report("database answers -> consumers back", seconds)
    assert seconds <= CONSUMERS_BACK_SECONDS_MAX


async def test_a_broker_stopped_for_ten_seconds_costs_only_time(load: Outage, rabbitmq: RabbitMQServer) -> None:
    """The everyday outage: a broker upgrade."""
    await asyncio.to_thread(rabbitmq.stop)
    await asyncio.sleep(7)  # its start takes the rest
    await broker_back(load, rabbitmq)

    assert CLEAN == await load.end()


async def test_a_killed_broker_costs_only_time(load: Outage, rabbitmq: RabbitMQServer) -> None:
    """No goodbye, publishes and acks in flight: everything without an answer goes again."""
    await asyncio.to_thread(rabbitmq.kill)
    await asyncio.sleep(0.5)
    await broker_back(load, rabbitmq)

    assert CLEAN == await load.end()


async def test_connections_closed_again_and_again_cost_only_time(load: Outage, rabbitmq: RabbitMQServer) -> None:
    """Each cut turns what waits in memory stale; deliveries counted by the broker must not add up to a dead letter."""
    for _ in range(3):
        await cut_connections(load, rabbitmq)

    assert CLEAN == await load.end()


async def test_a_frozen_broker_costs_only_time(load: Outage, rabbitmq: RabbitMQServer) -> None:
    """Nothing answers and nothing closes; after the thaw all that was sent is still valid."""
    rabbitmq.freeze()
    await asyncio.sleep(8)
    confirmed = await load.watch_backlog()
    rabbitmq.thaw()
    report("broker thawed -> first confirmed publish", await confirmed())

    assert CLEAN == await load.end()


async def test_a_database_restarted_at_once_costs_only_time(load: Outage, postgres: PostgresServer) -> None:
    """Every commit on its way has an unknown outcome."""
    await asyncio.to_thread(postgres.restart_immediate)
    seconds = await load.progress()
    report("database answers -> consumers back", seconds)

    assert seconds <= CONSUMERS_BACK_SECONDS_MAX
    assert CLEAN == await load.end()


async def test_a_killed_database_costs_only_time(load: Outage, postgres: PostgresServer) -> None:
    """Handlers wait at the gate; no attempt is burnt however long it takes."""
    await asyncio.to_thread(postgres.kill)
    await asyncio.sleep(3)
    await database_back(load, postgres)

    assert CLEAN == await load.end()


async def test_broker_and_database_killed_at_once_cost_only_time(
    load: Outage, rabbitmq: RabbitMQServer, postgres: PostgresServer
) -> None:
    """The broker returns first: what it delivers again meets a shut gate and a full memory of stale deliveries."""
    await asyncio.gather(asyncio.to_thread(rabbitmq.kill), asyncio.to_thread(postgres.kill))
    await asyncio.to_thread(rabbitmq.start)
    await asyncio.sleep(2)
    await database_back(load, postgres)

    assert CLEAN == await load.end()


async def test_connections_cut_again_and_again_while_the_database_is_away_make_no_dead_letter(
    load: Outage, rabbitmq: RabbitMQServer, postgres: PostgresServer
) -> None:
    """Each cut delivers a prefetch anew to consumers that cannot run: not one may reach the broker's delivery limit."""
    load.may_run.clear()
    before = len(load.accepted)
    await until(lambda: len(load.accepted) > before + 100, "more orders than both prefetches")
    await asyncio.to_thread(postgres.kill)
    load.may_run.set()
    for _ in range(2):
        await cut_connections(load, rabbitmq)
    await until_broker_is(load, ConnectionState.CONNECTED)
    await asyncio.sleep(1)  # long enough for a message nacked in a circle to reach the limit
    await database_back(load, postgres)

    assert CLEAN == await load.end()


async def test_the_sums_see_what_was_planted(load: Outage) -> None:
    """A count that never found anything proves nothing."""
    await until(lambda: len(load.accepted) > 20, "orders")
    planted = load.accepted[0]
    load.may_run.clear()
    await load.ask("delete from effect where queue = 'outage.parallel' and n = $1", planted[0])
    await load.ask("insert into effect (queue, key, n, attempt) values ('outage.ordered', $2, $1, 2)", *planted)
    await load.ask("insert into effect (queue, key, n, attempt) values ('outage.ordered', 'nobody', 0, 1)")
    await load.ask("insert into placed (n, key) values (0, 'nobody')")
    load.may_run.set()

    sums = await load.end(quiet_seconds_max=8.0)

    assert {
        **CLEAN,
        "lost": [("outage.parallel", planted[0])],
        "doubled": [("outage.ordered", planted[0])],
        "invented": [0],
        "out_of_order": [planted[1]],
        "rows_without_order": [0],
        "attempts_burnt": [("outage.ordered", planted[1], planted[0], 2)],
    } == sums


async def test_shards_of_a_frozen_relay_are_taken_over_and_its_late_publishes_harm_nobody(
    postgres_url: str, rabbitmq_url: str, tmp_path: Path
) -> None:
    """S5, S6: two relays, each frozen past its lease in turn; the other ships its shards meanwhile."""
    lease = SHORT_LEASE_SECONDS
    async with outage(postgres_url, rabbitmq_url, lease_seconds=lease) as load:
        await load.begin()
        with (
            relay_process(postgres_url, rabbitmq_url, tmp_path, lease) as first,
            relay_process(postgres_url, rabbitmq_url, tmp_path, lease) as second,
        ):
            for pid in (first, second):
                await until_it_holds_shards(load, pid)
            for pid in (first, second):
                os.kill(pid, signal.SIGSTOP)
                began, count = time.monotonic(), len(load.accepted) + 60
                await until(lambda count=count: len(load.accepted) >= count, "orders for every shard")
                while not await load.all_effected(load.accepted[:count]):
                    assert time.monotonic() < began + 10, "nobody ships the shards of a frozen relay"
                    await asyncio.sleep(0.05)
                report("relay frozen -> its shards shipped by another", time.monotonic() - began)
                await asyncio.sleep(lease)
                os.kill(pid, signal.SIGCONT)
                await until_it_holds_shards(load, pid)
        assert CLEAN == await load.end()


async def until_it_holds_shards(load: Outage, pid: int) -> None:
    deadline = time.monotonic() + 30
    while not await load.shards_of(pid):
        assert time.monotonic() < deadline, f"process {pid} got no shard"
        await asyncio.sleep(0.05)
