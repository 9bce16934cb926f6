"""When review items are worth an alarm, and how long a person may keep one."""

from __future__ import annotations

from pydantic import Field

from spoolproof import limits
from spoolproof.settings_group import SettingsGroup


class ReviewSettings(SettingsGroup, env_prefix="SPOOLPROOF_REVIEW_"):
    """Review items."""

    open_max: int = Field(100, ge=1)
    """Health tells when more than this are open."""
    claim_seconds: float = Field(limits.REVIEW_CLAIM_SECONDS, ge=10, le=86_400)
    """How long a claim keeps others away; it is renewed by claiming again."""
