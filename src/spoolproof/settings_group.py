"""The settings of one part: frozen, each with unit, default and legal range.

A group is a class beside its part and is named by its prefix: field `port` of `class HealthSettings(SettingsGroup,
env_prefix="SPOOLPROOF_HEALTH_")` is read from SPOOLPROOF_HEALTH_PORT, given as `Settings(health_port=…)` and found at
`settings.of(HealthSettings).port`.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from pydantic import AliasChoices
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "SPOOLPROOF_"

G = TypeVar("G", bound="SettingsGroup")


class SettingsGroup(BaseSettings):
    """Base of every group, and of the service's own settings."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        env_ignore_empty=True,  # an empty variable is a fault already
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        allow_inf_nan=False,
    )

    @classmethod
    def variables_of(cls, field: str) -> list[str]:
        """Return the environment variables a field is read from, ours first."""
        alias = cls.model_fields[field].validation_alias
        if isinstance(alias, AliasChoices):
            return [str(name) for name in alias.choices]
        return [f"{cls.model_config['env_prefix']}{field.upper()}"]

    @classmethod
    def keyword_of(cls, field: str) -> str:
        """Return what a field is called as an argument of `Settings`."""
        return f"{cls.model_config['env_prefix'].removeprefix(PREFIX).lower()}{field}"


def also(name: str, *others: str) -> AliasChoices:
    """Return the variable of a field and the other ones it is read from."""
    return AliasChoices(f"{PREFIX}{name}", *others)


class Groups(Protocol):
    """All settings of a service, as a part sees them."""

    def of(self, group: type[G]) -> G:
        """Return the settings of a part, by the class it declares them in."""

    def named(self, keyword: str) -> Any:
        """Return a setting by what it is called as an argument, whichever part declares it."""
