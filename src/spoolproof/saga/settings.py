"""How many sagas a process works on."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from spoolproof import limits
from spoolproof.settings_group import SettingsGroup


class SagaSettings(SettingsGroup, env_prefix="SPOOLPROOF_SAGA_"):
    """Sagas."""

    claimed_max: Annotated[int, Field(ge=1, le=10_000)] = limits.SAGAS_CLAIMED_MAX
    """Sagas that one process works on at a time; those that sleep or wait are none of them."""
