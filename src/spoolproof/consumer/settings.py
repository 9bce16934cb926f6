"""How long the broker lets a handler hold a delivery."""

from __future__ import annotations

from pydantic import Field

from spoolproof import limits
from spoolproof.settings_group import SettingsGroup, also


class ConsumerSettings(SettingsGroup, env_prefix="SPOOLPROOF_CONSUMER_"):
    """The consumers."""

    timeout_seconds: float = Field(
        limits.CONSUMER_TIMEOUT_SECONDS,
        gt=0,
        validation_alias=also("CONSUMER_TIMEOUT_SECONDS", "RABBITMQ_CONSUMER_TIMEOUT_SECONDS"),
    )
    """The broker's own limit on an unacked delivery; handlers may use two thirds of it."""
    threads: int = Field(limits.HANDLER_THREADS, ge=1, le=1000)
    """Threads for handlers that are plain functions, in each process."""
