"""Settings of a service: frozen, with unit, default and legal range, read from the environment and `.env`.

All faults are reported at once, in one SettingsError that names the variable, the value and what to write instead.
URLs are shown without their password and query, everywhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit, urlunsplit

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from spoolproof import limits
from spoolproof.errors import SettingsError

STORE_SCHEMES = ("sqlite", "postgresql", "postgres", "memory")
BROKER_SCHEMES = ("embedded", "amqp", "amqps", "memory")


def _alias(name: str, *others: str) -> AliasChoices:
    return AliasChoices(name.lower(), f"SPOOLPROOF_{name}", *others)


class Settings(BaseSettings):
    """What can be set, with its default and the environment variable it is read from.

    Construct it with keyword arguments in tests; `load_settings` reads the environment and reports every fault.
    """

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", frozen=True, populate_by_name=True)

    data_dir: Path = Field(Path(".spoolproof"), validation_alias=_alias("DATA_DIR"))
    """Where SQLite files live: local disk, not a network file system."""
    store: SecretStr = Field(SecretStr(""), validation_alias=_alias("STORE"))
    """`sqlite:///PATH`, `postgresql://…` or `memory://`. Default: `store.db` in the data directory."""
    broker: SecretStr = Field(SecretStr(""), validation_alias=_alias("BROKER", "RABBITMQ_URL"))
    """`embedded:///PATH`, `amqp(s)://a,amqp(s)://b` or `memory://`. Default: `broker.db` in the data directory."""
    exchange: str = Field("spoolproof.events", min_length=1, max_length=200, validation_alias=_alias("EXCHANGE"))
    """The topic exchange events go to; the routing key is the type."""
    listen: Literal["auto", "off"] = Field("auto", validation_alias=_alias("LISTEN"))
    """`off` behind PgBouncer, which does not carry LISTEN; polling is always there."""
    migrate: Literal["auto", "refuse"] | None = Field(None, validation_alias=_alias("MIGRATE"))
    """Whether a start brings the schema up to date. Default: SQLite yes, PostgreSQL refuses and prints the command."""
    broker_required: bool = Field(False, validation_alias=_alias("BROKER_REQUIRED", "RABBITMQ_REQUIRED"))
    """True: the start waits for the broker and fails after `broker_rounds_max` rounds."""
    broker_rounds_max: int = Field(
        10, ge=1, le=1000, validation_alias=_alias("BROKER_MAX_RETRIES", "RABBITMQ_MAX_RETRIES")
    )
    """Rounds of connection attempts before a required broker fails the start: 10 is about 4 minutes."""
    broker_retry_seconds: float = Field(
        1.0, gt=0, le=300, validation_alias=_alias("BROKER_RETRY_DELAY", "RABBITMQ_RETRY_DELAY")
    )
    """The first wait between connection rounds; doubles up to 60 s."""
    outbox_rows_max: int = Field(
        10_000_000, ge=1, validation_alias=_alias("OUTBOX_ROWS_MAX", "RABBITMQ_MAX_PENDING_EVENTS")
    )
    """Rows the outbox may hold; then publish raises OutboxFull. Nothing accepted is dropped."""
    consumer_timeout_seconds: float = Field(
        limits.CONSUMER_TIMEOUT_SECONDS,
        gt=0,
        validation_alias=_alias("CONSUMER_TIMEOUT_SECONDS", "RABBITMQ_CONSUMER_TIMEOUT_SECONDS"),
    )
    """The broker's own limit on an unacked delivery; handlers may use two thirds of it."""
    drain_seconds: float = Field(limits.DRAIN_SECONDS, ge=0, le=3600, validation_alias=_alias("DRAIN_SECONDS"))
    """How long running handlers may go on after SIGTERM."""
    lease_seconds: float = Field(limits.LEASE_SECONDS, ge=1, le=300, validation_alias=_alias("LEASE_SECONDS"))
    """How long a shard stays with a process that no longer answers; renewed every third of it, self-fenced at two
    thirds. Short leases take over faster and mind a slow database more."""
    inbox_retention_seconds: float = Field(
        limits.INBOX_RETENTION_SECONDS, gt=0, validation_alias=_alias("INBOX_RETENTION_SECONDS")
    )
    """How long a handled message is remembered. At least the longest retry tier and a day."""
    health_host: str = Field("127.0.0.1", validation_alias=_alias("HEALTH_HOST"))
    health_port: int | None = Field(None, ge=0, le=65535, validation_alias=_alias("HEALTH_PORT"))
    """Where `spoolproof run` answers probes: 9464 unless set; 0 picks a free port. In an ASGI app only when set."""
    health_detail: Literal["loopback", "always", "never"] = Field("loopback", validation_alias=_alias("HEALTH_DETAIL"))
    """Who sees URLs, counts and errors in the health body."""
    ready_needs: Annotated[tuple[str, ...], NoDecode] = Field((), validation_alias=_alias("READY_NEEDS"))
    """Dependencies without which this service is useless (`db`, `rabbitmq`): away for 30 s they fail readiness."""
    failpoints: str = Field("", validation_alias=_alias("FAILPOINTS"))
    failpoint_log: str | None = Field(None, validation_alias=_alias("FAILPOINT_LOG"))

    @field_validator("ready_needs", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("broker_retry_seconds", mode="before")
    @classmethod
    def _seconds_not_milliseconds(cls, value: Any) -> Any:
        try:
            number = float(value)
        except (TypeError, ValueError):
            return value
        if number > 300:
            raise ValueError(f"{number:g} is over 300 seconds; were milliseconds meant? Write {number / 1000:g}")
        return value

    @field_validator("store")
    @classmethod
    def _store_scheme(cls, value: SecretStr) -> SecretStr:
        return _check_urls(value, STORE_SCHEMES, several=False)

    @field_validator("broker")
    @classmethod
    def _broker_scheme(cls, value: SecretStr) -> SecretStr:
        return _check_urls(value, BROKER_SCHEMES, several=True)

    @field_validator("inbox_retention_seconds")
    @classmethod
    def _outlasts_retries(cls, value: float) -> float:
        least = limits.TIERS_SECONDS[-1] + 86400
        if value < least:
            raise ValueError(f"must be at least {least} s (the longest retry tier and a day), or a retry runs twice")
        return value

    @property
    def store_url(self) -> str:
        """The store's URL, with password."""
        return self.store.get_secret_value() or f"sqlite:///{self.data_dir / 'store.db'}"

    @property
    def broker_urls(self) -> tuple[str, ...]:
        """The broker's URLs, with passwords; one or more."""
        text = self.broker.get_secret_value() or f"embedded:///{self.data_dir / 'broker.db'}"
        return tuple(part.strip() for part in text.split(",") if part.strip())


def load_settings(**values: Any) -> Settings:
    """Read the settings from the environment; keyword arguments win. Raises SettingsError with every fault."""
    try:
        return Settings(**values)
    except ValidationError as error:
        raise SettingsError([_sentence(fault) for fault in error.errors(include_url=False)]) from None
    except ValueError as error:  # pydantic-settings: an environment value that is not the JSON its field needs
        raise SettingsError([str(error)]) from None


def redact_url(url: str) -> str:
    """Return a URL with `***` for its password and without its query; `***` if it does not parse."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        if ":" in host:
            host = f"[{host}]"
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        return "***"
    if not parts.scheme:
        return "***"
    user = f"{parts.username}:***@" if parts.password is not None else (f"{parts.username}@" if parts.username else "")
    return urlunsplit((parts.scheme, f"{user}{host}{port}", parts.path, "", ""))


def path_of(url: str) -> Path:
    """Return the file of a `sqlite:///PATH` or `embedded:///PATH` URL; `///./x` is relative, `////x` absolute."""
    return Path(urlsplit(url).path.removeprefix("/"))


def _check_urls(value: SecretStr, schemes: tuple[str, ...], *, several: bool) -> SecretStr:
    text = value.get_secret_value()
    urls = [part.strip() for part in text.split(",")] if several else [text]
    known = ", ".join(f"{scheme}://" for scheme in schemes)
    for url in urls if text else []:
        scheme, separator, _ = url.partition("://")
        if not separator or scheme not in schemes:
            raise ValueError(f"{redact_url(url)!r} is not a URL of one of {known}")
    kinds = {url.partition("://")[0].removesuffix("s") for url in urls if text}
    if len(kinds) > 1:
        raise ValueError(f"several URLs must be of one kind, not {', '.join(sorted(kinds))}")
    if len(urls) > 1 and kinds != {"amqp"}:
        raise ValueError(f"only amqp:// takes several URLs, not {', '.join(sorted(kinds))}://")
    return value


def _sentence(fault: Any) -> str:
    field = str(fault["loc"][0]) if fault["loc"] else "settings"
    names = field
    for info in Settings.model_fields.values():
        alias = info.validation_alias
        if isinstance(alias, AliasChoices) and field.lower() in [str(choice).lower() for choice in alias.choices]:
            names = " or ".join(str(choice) for choice in alias.choices[1:])
    # a wrong URL may hold a password; the message of its validator shows it redacted
    shown = "" if field.lower().endswith(("store", "broker", "url")) else f"={fault['input']!r}"
    return f"{names}{shown}: {fault['msg'].removeprefix('Value error, ')}"
