"""Fixtures for tests of services: pytest finds them where spoolproof is installed.

Loaded at the start of every test run in the environment, so it imports nothing of the package until a fixture is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from spoolproof.policies import Registry
    from spoolproof.policies.events import Event
    from spoolproof.service import Service
    from spoolproof.testing.app import App
    from spoolproof.testing.clock import ManualClock


@pytest.fixture
def manual_clock(policies_isolated: Registry) -> Iterator[ManualClock]:
    """A clock that moves only when told, in the place of the machine's for every policy; each begins as new."""
    from spoolproof.testing.clock import ManualClock

    with ManualClock().active() as clock:
        yield clock


@pytest.fixture
def policy_events() -> Iterator[list[Event]]:
    """Every event of every policy during the test, in order."""
    from spoolproof.testing.policies import captured

    with captured() as events:
        yield events


@pytest.fixture
def policies_isolated() -> Iterator[Registry]:
    """The process's registry: its policies begin as new and are afterwards what they were; new ones are forgotten."""
    from spoolproof.testing.policies import isolated

    with isolated() as registry:
        yield registry


@pytest.fixture
def run_service(policies_isolated: Registry) -> Callable[..., AbstractAsyncContextManager[App]]:
    """`async with run_service(service) as app`: `service.test()` with policies that begin as new."""

    def run(service: Service, **options: Any) -> AbstractAsyncContextManager[App]:
        return service.test(**options)

    return run
