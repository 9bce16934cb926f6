"""Probes and log while a real PostgreSQL is killed, frozen and started again: seen at once, and told as it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from spoolproof import Service, Settings
from spoolproof.health.snapshot import Dependency, Snapshot
from spoolproof.health.verdict import unready_reason
from spoolproof.testing.servers import PostgresServer

pytestmark = [pytest.mark.integration, pytest.mark.servers, pytest.mark.timeout(90)]

SEEN_SECONDS_MAX = 5.0
READY_SECONDS_MAX = 2.0


@pytest.fixture
async def service(postgres_url: str) -> AsyncIterator[Service]:
    service = Service("seen", settings=Settings(store=postgres_url, broker="memory://", migrate="auto", spool="off"))

    @service.on("seen.happened")
    async def happened(event: dict) -> None:  # type: ignore[type-arg]
        raise AssertionError("nothing is published here")

    await service.start()
    await seconds_until(lambda: unready_reason(snapshot(service)) is None)
    yield service
    await service.stop()


@pytest.fixture(autouse=True)
def _running_again(postgres: PostgresServer) -> Iterator[None]:
    yield
    postgres.thaw()
    postgres.start()


def snapshot(service: Service) -> Snapshot:
    return service.runtime.monitor.snapshot()


def db_of(service: Service) -> Dependency:
    db = snapshot(service).db
    assert db is not None
    return db


async def seconds_until(condition: Callable[[], bool]) -> float:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < 20
        await asyncio.sleep(0.02)
    return time.monotonic() - began


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_a_database_that_goes_is_seen_and_one_that_is_back_is_used_within_seconds(
    service: Service, postgres: PostgresServer, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """A probe that lags by half a minute sends requests into an outage, and keeps them away from its end."""
    gone_at = datetime.now(UTC)
    postgres.kill() if how == "killed" else postgres.freeze()
    seen_seconds = await seconds_until(lambda: unready_reason(snapshot(service)) == "store_unavailable")
    db = db_of(service)
    await asyncio.sleep(2 if how == "killed" else 6)  # frozen: longer than any statement may take, so all have met it
    assert "outage.ended" not in caplog.text
    if how == "killed":
        await asyncio.to_thread(postgres.start)
    else:
        postgres.thaw()
    ready_seconds = await seconds_until(lambda: unready_reason(snapshot(service)) is None)
    await seconds_until(lambda: "outage.ended" in caplog.text)

    assert seen_seconds <= SEEN_SECONDS_MAX
    assert ready_seconds <= READY_SECONDS_MAX
    assert gone_at - timedelta(seconds=1.5) <= db.since <= gone_at + timedelta(seconds=2)
    assert db.error is not None
    told = [record for record in caplog.records if record.name.startswith("spoolproof")]
    assert not [record.getMessage() for record in told if record.exc_info]
    ends = [record for record in told if record.getMessage().startswith("outage.")]
    assert ["outage.began", "outage.ended"] == [record.getMessage().split()[0] for record in ends]
    assert ["WARNING", "WARNING"] == [record.levelname for record in ends]
