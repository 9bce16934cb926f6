"""Where probes are answered, and what they may see."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from spoolproof.settings_group import SettingsGroup, also


class HealthSettings(SettingsGroup, env_prefix="SPOOLPROOF_HEALTH_"):
    """The health endpoint."""

    host: str = "127.0.0.1"
    port: int | None = Field(None, ge=0, le=65535)
    """Where `spoolproof run` answers probes: 9464 unless set; 0 picks a free port. In an ASGI app only when set."""
    detail: Literal["loopback", "always", "never"] = "loopback"
    """Who sees URLs, counts and errors in the health body."""
    ready_needs: Annotated[tuple[str, ...], NoDecode] = Field((), validation_alias=also("READY_NEEDS"))
    """What this service is useless without (`db`, `rabbitmq`, `sqs`): away for 30 s they fail readiness."""

    @field_validator("ready_needs", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
