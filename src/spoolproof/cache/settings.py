"""Which shared cache lies under the memory of each process."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from pydantic import Field, SecretStr, field_validator, model_validator

from spoolproof.settings_group import SettingsGroup, also

PORT = 6379


class CacheSettings(SettingsGroup):
    """Settings of the cache."""

    cache: SecretStr = SecretStr("")
    """`redis://…` or `rediss://…` for several machines, `sqlite` or `sqlite:///PATH` for one, `memory` for this process
    alone. Default: Redis where `REDIS_HOST` names one; else a file beside the store's, or in the data directory."""
    redis_host: str = Field("", validation_alias=also("REDIS_HOST", "REDIS_HOST"))
    """With port, password and db the same as a `redis://` URL."""
    redis_port: int = Field(PORT, ge=1, le=65535, validation_alias=also("REDIS_PORT", "REDIS_PORT"))
    """Where Redis listens."""
    redis_password: SecretStr = Field(SecretStr(""), validation_alias=also("REDIS_PASSWORD", "REDIS_PASSWORD"))
    """Its password."""
    redis_db: int = Field(0, ge=0, validation_alias=also("REDIS_DB", "REDIS_DB"))
    """Its database."""

    @field_validator("redis_port", mode="before")
    @classmethod
    def _not_a_link(cls, value: Any) -> Any:
        # Kubernetes sets REDIS_PORT=tcp://10.0.0.7:6379 where a service is called redis
        return PORT if isinstance(value, str) and value.startswith("tcp://") else value

    @model_validator(mode="after")
    def _one_form(self) -> CacheSettings:
        given = self.cache.get_secret_value()
        if given and self.redis_host and given.rstrip("/") not in (self._redis, self._redis.removesuffix("/0")):
            raise ValueError("SPOOLPROOF_CACHE and REDIS_HOST name different caches; unset one of them")
        return self

    @property
    def _redis(self) -> str:
        password = self.redis_password.get_secret_value()
        user = f":{quote(password, safe='')}@" if password else ""
        return f"redis://{user}{self.redis_host}:{self.redis_port}/{self.redis_db}"

    @property
    def url(self) -> str:
        """The URL, with password; empty for the default."""
        return self.cache.get_secret_value() or (self._redis if self.redis_host else "")
