"""How a process that `spoolproof run` owns writes its log."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import field_validator

from spoolproof.settings_group import SettingsGroup


class LogSettings(SettingsGroup):
    """The log of `spoolproof run`; in an ASGI server the log is the server's and yours."""

    log: Literal["auto", "json", "text"] = "auto"
    """How lines are written. `auto`: JSON, or text where standard error is a terminal."""
    log_level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    """What is written; `--log-level` wins over it."""

    @field_validator("*", mode="before")
    @classmethod
    def _any_case(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value


def early_log_settings() -> LogSettings:
    """Return what the environment says before anything else is known; a fault in it is told when all are."""
    try:
        return LogSettings()
    except (ValueError, OSError):
        return LogSettings.model_construct()
