"""Connecting, giving up, waiting: against a scripted broker and ports nobody listens on."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
from typing import Any

import pytest
from pika import spec

from spoolproof import limits
from spoolproof.clock import SystemClock
from spoolproof.errors import BrokerTooOld, BrokerUnavailable
from spoolproof.ports.broker import ConnectionState
from spoolproof.testing.clock import ManualClock
from spoolproof.testing.conformance import eventually
from spoolproof.testing.conformance._broker import Outcomes, make_topology
from spoolproof.testing.conformance._messages import make_outgoing
from spoolproof.testing.servers.ports import free_port, release_port


@pytest.fixture
def dead_url() -> Any:
    port = free_port()
    yield f"amqp://shop:secret@127.0.0.1:{port}/v?heartbeat=7"
    release_port(port)


async def test_a_missing_broker_does_not_stop_the_start_and_the_first_attempt_is_logged(
    dead_url: str, make_broker: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A1: the service starts at once; the log says what it does, without the password."""
    caplog.set_level(logging.INFO, "spoolproof.broker")
    broker = make_broker(dead_url, clock=SystemClock())

    await broker.start(make_topology())
    await eventually(lambda: all(one.attempt >= 3 for one in broker.status().connections))

    assert 2 == len(caplog.records), "one line a minute for each connection, however often it is tried"
    status = broker.status()
    assert status.state in (ConnectionState.DISCONNECTED, ConnectionState.CONNECTING)
    assert {"publish", "consume"} == {one.purpose for one in status.connections}
    assert all("refused" in str(one.last_error).lower() for one in status.connections)
    line = caplog.records[0].getMessage()
    assert line.startswith("broker.connection.attempt connection=")
    for part in ("url=amqp://shop:***@127.0.0.1:", "/v attempt=1 round=1 outcome=refused error=", "retry_in_seconds="):
        assert part in line
    assert "secret" not in caplog.text
    assert "heartbeat" not in caplog.text
    with pytest.raises(BrokerUnavailable):
        broker.submit(make_outgoing(), 1, Outcomes())


async def test_a_required_broker_that_stays_away_fails_the_start(dead_url: str, make_broker: Any) -> None:
    """B1: after the configured rounds, with the setting to change."""
    broker = make_broker(dead_url, clock=SystemClock(), is_required=True, rounds_max=2)

    with pytest.raises(BrokerUnavailable) as caught:
        await broker.start(make_topology())

    for part in (
        "amqp://shop:***@127.0.0.1",
        "2 rounds",
        "SPOOLPROOF_BROKER_MAX_RETRIES",
        "SPOOLPROOF_BROKER_REQUIRED",
    ):
        assert part in str(caught.value)
    assert "secret" not in str(caught.value)


async def test_a_required_broker_is_waited_for(server: Any, dead_url: str, make_broker: Any) -> None:
    """The first URL is dead, the second answers: the round goes on without waiting."""
    broker = make_broker(dead_url, server.url, clock=SystemClock(), is_required=True, rounds_max=1)

    await broker.start(make_topology())

    status = broker.status()
    assert ConnectionState.CONNECTED == status.state
    assert {server.url.replace("guest:guest", "guest:***")} == {one.url for one in status.connections}


async def test_a_broker_that_is_too_old_is_not_used(server: Any, make_broker: Any) -> None:
    """Before 3.10 there is no at-least-once dead-lettering: copies would be lost silently."""
    server.version = "3.9.29"
    broker = make_broker(server.url, clock=SystemClock(), is_required=True, rounds_max=1)

    with pytest.raises(BrokerTooOld, match=r"3\.9\.29"):
        await broker.start(make_topology())

    assert [] == server.published


async def test_rounds_back_off_to_a_minute_and_a_refused_service_is_failed_later(
    dead_url: str, server: Any, make_broker: Any
) -> None:
    """B2: once up, a required broker that stays away is `failed`, and is still asked once a minute."""
    clock = ManualClock()
    broker = make_broker(server.url, clock=clock, is_required=True, rounds_max=3, retry_first_seconds=1.0)
    await broker.start(make_topology())
    await server.stop()

    states = set()
    for _ in range(2000):
        await clock.advance(0.5)
        await asyncio.sleep(0)
        states = {one.state for one in broker.status().connections}
        if states == {ConnectionState.FAILED}:
            break

    assert {ConnectionState.FAILED} == states
    for one in broker.status().connections:
        assert one.retry_at is not None
        assert 0 < (one.retry_at - one.since).total_seconds() <= limits.CONNECT_ROUND_CAP_SECONDS
        assert one.attempt >= 3
    await server.start()  # for the fixture's own stop


async def test_an_attempt_against_a_peer_that_says_nothing_ends(
    make_broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A black hole accepts the connection and never speaks; the next URL must get its turn."""
    monkeypatch.setattr(limits, "CONNECT_SECONDS", 0.3)
    peers: list[asyncio.StreamWriter] = []

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.append(writer)
        await reader.read()

    silent = await asyncio.start_server(swallow, "127.0.0.1", 0)
    url = f"amqp://127.0.0.1:{silent.sockets[0].getsockname()[1]}"
    broker = make_broker(url, clock=SystemClock())
    await broker.start(make_topology())

    await eventually(
        lambda: all(one.last_error == "TimeoutError: TimeoutError()" for one in broker.status().connections),
        limits.CONNECT_SECONDS + 3,
    )

    await broker.stop()
    silent.close()
    for writer in peers:
        writer.transport.abort()
    await silent.wait_closed()


SILENT_AT = (
    spec.Connection.StartOk,
    spec.Connection.Open,
    spec.Channel.Open,
    spec.Confirm.Select,
    spec.Queue.Declare,
    spec.Queue.Bind,
    spec.Basic.Consume,
)


async def test_a_node_that_falls_silent_at_any_step_gives_way_to_the_next(server: Any, make_broker: Any) -> None:
    """Frozen in the middle of a set-up it would be waited for, for as long as a new quorum queue may take."""
    silent = [type(server)() for _ in SILENT_AT]
    brokers = []
    for one, method in zip(silent, SILENT_AT, strict=True):
        await one.start()
        one.held.add(method)
        broker = make_broker(one.url, server.url, clock=SystemClock())
        await broker.start(make_topology())
        await broker.subscribe("scripted.q", 1, lambda _: None)
        brokers.append(broker)
    alive = server.url.replace("guest:guest", "guest:***")

    def are_all_there() -> bool:
        server.heartbeat()
        states = {(one.state, one.url) for broker in brokers for one in broker.status().connections}
        return states == {(ConnectionState.CONNECTED, alive)}

    await eventually(are_all_there, limits.SILENCE_SECONDS + 10)

    for one in silent:
        one.drop_connections()
        await one.stop()


async def test_a_connection_that_is_lost_right_after_connecting_again_and_again_is_an_issue(
    server: Any, make_broker: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Between two losses it is connected, so that nothing else shows it; and the log must not fill with it."""
    broker = make_broker(server.url, clock=SystemClock())
    await broker.start(make_topology())

    for _ in range(limits.FLAPS_ISSUE_COUNT):
        assert await broker.wait_for_room(5.0)
        server.drop_connections()
        await eventually(lambda: broker.room() == 0)
    assert await broker.wait_for_room(5.0)

    issues = [issue for issue in broker.status().issues if "publish-0: lost 3 times in a row" in issue]
    assert 1 == len(issues)
    assert 1 == sum("broker.connection.lost connection=publish-0" in message for message in caplog.messages)


async def test_running_out_of_file_descriptors_is_a_connection_failure_like_others(
    server: Any, make_broker: Any, dead_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It ends by itself; a loop that it ended would never connect again."""
    broker = make_broker(dead_url, server.url, clock=SystemClock())
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken[0] + 1, limit[1]))
    try:
        await broker.start(make_topology())
        await eventually(lambda: all("24" in str(one.last_error) for one in broker.status().connections))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        os.close(taken[0])

    await eventually(lambda: broker.status().state is ConnectionState.CONNECTED, 10.0)
    assert "Traceback" not in caplog.text


async def test_stop_in_the_middle_of_an_attempt_leaves_nothing(make_broker: Any, server: Any) -> None:
    """The leak check of the test run is the assertion: no task, no socket, no timer."""
    broker = make_broker(server.url, clock=SystemClock())
    await broker.start(make_topology())
    await asyncio.sleep(0)

    await broker.stop()

    assert ConnectionState.DISCONNECTED == broker.status().state
