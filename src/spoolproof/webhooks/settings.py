"""Where webhooks may go beyond the Internet."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated, Any

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from spoolproof.settings_group import SettingsGroup


class WebhookSettings(SettingsGroup, env_prefix="SPOOLPROOF_WEBHOOK_"):
    """Webhooks."""

    allow_private: Annotated[tuple[str, ...], NoDecode] = ()
    """Networks that endpoints may be in although the Internet cannot reach them, as `10.1.0.0/16,fd00::/8`; there, and
    nowhere else, `http://` is allowed, too."""
    ports: Annotated[tuple[Annotated[int, Field(ge=1, le=65535)], ...], NoDecode] = ()
    """Ports of endpoints beside 443."""

    @field_validator("allow_private", "ports", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("allow_private")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            try:
                ip_network(text)
            except ValueError as error:
                raise ValueError(f"{error}; write a network as 10.1.0.0/16") from None
        return value
