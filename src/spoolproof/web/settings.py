"""Where the dashboard listens, and who gets in."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from spoolproof.settings_group import SettingsGroup

PASSWORD_CHARACTERS_MIN = 12
_PASSWORDS = ("password", "operator_password", "reviewer_password", "viewer_password")


class DashboardSettings(SettingsGroup, env_prefix="SPOOLPROOF_DASHBOARD_"):
    """The dashboard."""

    host: str = "127.0.0.1"
    """Where `spoolproof dashboard` listens; anything but loopback needs a password."""
    port: int = Field(9400, ge=0, le=65535)
    """Its port; 0 picks a free one."""
    hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """More names the dashboard may be asked for by, where it is open to loopback alone."""
    password: SecretStr = SecretStr("")
    """Whoever gives it is an admin; the user name they give with it is who they are in the audit trail."""
    operator_password: SecretStr = SecretStr("")
    """Likewise for operators: replay, pause, breakers, cache, sagas."""
    reviewer_password: SecretStr = SecretStr("")
    """Likewise for reviewers: they decide review items, and look at the rest."""
    viewer_password: SecretStr = SecretStr("")
    """Likewise for viewers: they look, and see no payload."""

    @field_validator("hosts", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator(*_PASSWORDS)
    @classmethod
    def _long_enough(cls, value: SecretStr) -> SecretStr:
        if 0 < len(value.get_secret_value()) < PASSWORD_CHARACTERS_MIN:
            raise ValueError(f"at least {PASSWORD_CHARACTERS_MIN} characters")
        return value
