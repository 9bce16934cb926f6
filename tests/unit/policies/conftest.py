"""A registry of its own for each test, and a clock that moves only when told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from spoolproof.policies import Policy, Registry, events
from spoolproof.testing.clock import ManualClock


@pytest.fixture
def clock() -> Iterator[ManualClock]:
    clock = ManualClock()
    with clock.active():
        yield clock


@pytest.fixture
def registry() -> Registry:
    return Registry(environ={})


@pytest.fixture
def make(registry: Registry, clock: ManualClock) -> Callable[..., Policy]:
    """Make a policy with no back-off worth waiting for, unless a test says otherwise."""

    def make(*parts: Any, name: str = "psp", **settings: Any) -> Policy:
        return Policy(name, *parts, registry=registry, **settings)

    return make


@pytest.fixture
def told() -> Iterator[list[events.Event]]:
    """Every event of the test, in order."""
    kept: list[events.Event] = []
    unsubscribe = events.subscribe(kept.append)
    yield kept
    unsubscribe()


async def settle() -> None:
    """Let every task that can run, run."""
    for _ in range(20):
        await asyncio.sleep(0)
