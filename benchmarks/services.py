"""A service of ours on given servers."""

from __future__ import annotations

from typing import Any

from spoolproof import Service
from spoolproof.settings import Settings

NAME = "bench"


def service_on(*, store: str, broker: str, **settings: Any) -> Service:
    """Return a service that reads nothing from the environment and migrates its store."""
    chosen = Settings(_env_file=None, store=store, broker=broker, exchange=NAME, migrate="auto", **settings)  # type: ignore[call-arg]
    return Service(NAME, settings=chosen)
