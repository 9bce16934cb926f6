"""Start and end of a running service."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

import spoolproof
from spoolproof import NotStarted, RegistrationError, Service, StoreUnavailable, failpoints
from spoolproof.policies import Breaker, Policy, Registry
from spoolproof.settings import Settings


def in_memory(name: str = "shop") -> Service:
    return Service(name, settings=Settings(store="memory://", broker="memory://"))


class FailingStop:
    """A broker whose stop goes wrong."""

    async def stop(self) -> None:
        raise RuntimeError("planted")


async def test_a_broker_that_cannot_stop_does_not_keep_the_store_open() -> None:
    """V7: a database connection left behind outlives the service in a test, a notebook, an ASGI server."""
    service = in_memory()
    await service.start()
    runtime = service.runtime
    original, runtime.broker = runtime.broker, FailingStop()  # type: ignore[assignment]

    with pytest.raises(RuntimeError, match="planted"):
        await service.stop()

    with pytest.raises(StoreUnavailable):
        await runtime.store.ping()
    await original.stop()


async def test_a_service_can_be_started_again_after_its_stop() -> None:
    """Tests and ASGI servers do."""
    service = in_memory()
    for _ in range(2):
        await service.start()
        await service.stop()
        await service.stop()

    with pytest.raises(NotStarted, match="spoolproof run"):
        await service.publish({"a": 1}, type="x")


async def test_a_second_start_and_an_unknown_role_are_refused() -> None:
    """Two relays of one process would share one identity."""
    service = in_memory()
    with pytest.raises(RegistrationError, match="the roles are relay, consumer, saga, maintenance"):
        await service.start(only=["relays"])
    await service.start()
    try:
        with pytest.raises(RegistrationError, match="is started already"):
            await service.start()
    finally:
        await service.stop()


async def test_each_start_reads_the_settings_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service at module level got the store of the first test that started it."""
    service = Service("shop", policies=Registry(environ={}))
    found = []

    for name in ("one", "two"):
        monkeypatch.setenv("SPOOLPROOF_DATA_DIR", str(tmp_path / name))
        before = service.settings.data_dir
        await service.start()
        monkeypatch.setenv("SPOOLPROOF_DATA_DIR", str(tmp_path / "later"))
        found.append((before, service.settings.data_dir, service.runtime.store.name))
        await service.stop()

    assert [
        (tmp_path / name, tmp_path / name, f"sqlite:///{tmp_path}/{name}/store.db") for name in ("one", "two")
    ] == found


async def test_the_failpoints_of_one_start_end_with_it() -> None:
    """The next start in the process goes by its own settings."""
    settings = Settings(store="memory://", broker="memory://", failpoints="relay.after_fetch=raise@9")
    service = Service("shop", settings=settings)

    await service.start()
    during = failpoints.armed_plan()
    await service.stop()

    assert (True, None) == (during is not None, failpoints.armed_plan())


async def test_the_start_line_says_what_runs_here_and_on_what(caplog: pytest.LogCaptureFixture) -> None:
    """The first question at 3 a.m.; and a setting that was not read shows here, before anything is lost to it."""
    caplog.set_level(logging.INFO)
    settings = Settings(store="memory://", broker="memory://")
    service = Service("shop", settings=settings)

    @service.on("order.placed", "order.changed")
    async def book(order: dict) -> None:  # type: ignore[type-arg]
        raise AssertionError("nothing is published here")

    await service.start()
    service_store = service.runtime.store.name
    await service.stop()

    assert [
        f"service.started name=shop release={spoolproof.__version__} store={service_store} broker=memory:// "
        "roles=relay,consumer,saga,maintenance handlers=shop.book(order.changed,order.placed)"
    ] == [text for text in caplog.messages if text.startswith("service.started")]


async def test_a_healthy_start_logs_nothing_above_info(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """A warning that is always there teaches people to overlook warnings."""
    caplog.set_level(logging.DEBUG)
    settings = Settings(store=f"sqlite:///{tmp_path}/store.db", broker=f"embedded:///{tmp_path}/broker.db")
    policies = Registry(environ={})
    psp = Policy("psp", Breaker(), registry=policies, lint_ignore={"W1"})
    service = Service("shop", settings=settings, policies=policies)

    @service.on("order.placed", gate=psp)
    async def pay(order: dict) -> None:  # type: ignore[type-arg]
        raise AssertionError("nothing is published here")

    await service.start()
    await asyncio.sleep(0.5)  # the first turn of every loop
    await service.drain(1)
    await service.stop()

    assert [] == [text for _, level, text in caplog.record_tuples if level > logging.INFO]


async def test_a_service_ships_its_own_events_where_another_one_came_first(tmp_path: Path) -> None:
    """Which rows it may take is known only when the store was reached; before, it would ship those of the first."""
    handled = asyncio.Event()
    settings = Settings(store=f"sqlite:///{tmp_path}/a.db", broker=f"embedded:///{tmp_path}/broker.db")
    first, second = (Service(name, settings=settings) for name in ("bank", "shop"))

    @second.on("order", queue="shop.order")
    async def take(payload: dict[str, object]) -> None:
        handled.set()

    await first.start(only=["consumer"])
    await first.publish({"n": 1}, type="order")
    await first.stop()
    await second.start()
    try:
        await second.publish({"n": 2}, type="order")
        async with asyncio.timeout(10):
            await handled.wait()
            while (left := await second.runtime.store.outbox.backlog()).rows > 1:
                await asyncio.sleep(0.01)  # the row goes a moment after its confirm
    finally:
        await second.stop()

    assert 1 == left.rows, "what the other service published waits for that service"
