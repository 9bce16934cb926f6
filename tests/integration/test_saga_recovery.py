"""What waits for a system goes on when its breaker closes, on a real store and a real clock."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from spoolproof import Service, Settings
from spoolproof.policies import Breaker, Policy, Registry
from spoolproof.saga import Flow, Step

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("on", ["sqlite", pytest.param("postgresql", marks=pytest.mark.servers)])
async def test_a_closed_breaker_wakes_sagas_and_marked_keys(
    on: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Their next try of their own is an hour away."""
    url = f"sqlite:///{tmp_path / 'store.db'}" if on == "sqlite" else request.getfixturevalue("postgres_url")
    settings = Settings(store=url, broker="memory://", migrate="auto", data_dir=tmp_path)  # type: ignore[arg-type]
    registry = Registry({})
    policy, is_checked, is_away = Policy("carrier", Breaker(), registry=registry), asyncio.Event(), asyncio.Event()
    service = Service("shop", settings=settings, policies=registry)
    order = service.saga("order", version=1)

    @order.step(why="test", policy=policy, retry_seconds=(3600, 3600))
    async def book(step: Step, id: str) -> int:
        return step.attempt

    @order.flow
    async def place(saga: Flow, id: str) -> int:
        return int(await saga.do(book))

    @service.reconciliation.check("parcels", retry=3600, waits_for="carrier")
    async def check(key: str) -> bool:
        is_away.set()
        if policy.state != "closed":
            return False
        is_checked.set()
        return True

    policy.isolate("they migrate")
    await service.start()
    try:
        await service.reconciliation.mark("parcels", "p-1")
        started = await order.start("o-1", id="o-1")
        async with asyncio.timeout(60):
            await is_away.wait()
            while (await started.look()).saga.waiting_for != "dependency:carrier":
                await asyncio.sleep(0.05)
        policy.reset("they are back")

        assert 2 == await started.result(timeout=60)
        async with asyncio.timeout(60):
            await is_checked.wait()
    finally:
        await service.drain(1)
        await service.stop()
