"""How toys are treated."""

from __future__ import annotations

from pydantic import Field

from spoolproof.settings_group import SettingsGroup


class ToySettings(SettingsGroup, env_prefix="SPOOLPROOF_TOY_"):
    """Toys."""

    kept_seconds: float = Field(86_400.0, gt=0)
    """How long a toy is kept that nobody plays with."""
    wind_seconds: float = Field(60.0, gt=0)
    """How often toys are wound up."""
