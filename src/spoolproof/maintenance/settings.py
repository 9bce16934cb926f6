"""How long what is done is remembered."""

from __future__ import annotations

from pydantic import Field, field_validator

from spoolproof import limits
from spoolproof.settings_group import SettingsGroup


class InboxSettings(SettingsGroup, env_prefix="SPOOLPROOF_INBOX_"):
    """The inbox."""

    retention_seconds: float = Field(limits.INBOX_RETENTION_SECONDS, gt=0)
    """How long a handled message is remembered. At least the longest retry tier and a day."""

    @field_validator("retention_seconds")
    @classmethod
    def _outlasts_retries(cls, value: float) -> float:
        least = limits.TIERS_SECONDS[-1] + 86400
        if value < least:
            raise ValueError(f"must be at least {least} s (the longest retry tier and a day), or a retry runs twice")
        return value
