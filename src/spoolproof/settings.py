"""Settings of a service: frozen, with unit, default and legal range, read from the environment and `.env`.

All faults are reported at once, in one SettingsError that names the variable, the value and what to write instead. A
variable that begins like ours and is none of ours, or is empty, is a fault too: a service that starts on SQLite because
of a slip of the pen accepts events nobody will look for there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from dotenv import dotenv_values
from pydantic import Field, PrivateAttr, SecretStr, ValidationError, field_validator

from spoolproof import limits
from spoolproof.errors import InvariantViolated, SettingsError
from spoolproof.parts import groups as groups_of_parts
from spoolproof.settings_group import PREFIX, G, SettingsGroup, also
from spoolproof.urls import several_fault, url_fault
from spoolproof.wiring import ADAPTER_GROUPS, BROKERS, STORES

GROUPS = (*groups_of_parts(), *ADAPTER_GROUPS)
_POLICY = f"{PREFIX}POLICY_"  #: `policies.config` knows what follows, and which policies there are
_READ_ELSEWHERE = frozenset(
    f"{PREFIX}{name}"
    for name in (
        "POLICIES_FILE",  # policies.registry
        "CHAOS",  # policies.chaos
        "DOSE",  # how much this project's own tests do
        "WAL_SECONDS",
    )
)
_SERVICE_LINK = re.compile(r".*_SERVICE_(HOST|PORT(_\w+)?)|.*_PORT_\d+_(TCP|UDP|SCTP)\w*")


class Settings(SettingsGroup):
    """What can be set, with its default and the environment variable it is read from.

    The variable is the field's name in capitals after `SPOOLPROOF_`, unless it says otherwise. Keyword arguments win
    over the environment, the environment over `.env`. Raises SettingsError with every fault.
    """

    _groups: dict[type[SettingsGroup], SettingsGroup] = PrivateAttr(default_factory=dict)

    def __init__(self, **values: Any) -> None:
        faults = _keyword_faults(values)
        try:
            dotenv = _read_dotenv(values.get("_env_file", self.model_config.get("env_file")))
        except (OSError, ValueError) as error:
            raise SettingsError([*faults, f".env cannot be read: {error}"]) from None
        faults += _variable_faults(os.environ, dotenv)
        made: dict[type[SettingsGroup], SettingsGroup] = {}
        for group in GROUPS:
            given = {field: values[name] for field in group.model_fields if (name := group.keyword_of(field)) in values}
            try:
                made[group] = group(**given, **{name: values[name] for name in values if name.startswith("_env")})
            except ValidationError as error:
                faults += [_sentence(group, fault) for fault in error.errors(include_url=False)]
        try:
            super().__init__(**values)
        except ValidationError as error:
            faults += [_sentence(Settings, fault) for fault in error.errors(include_url=False)]
        except ValueError as error:  # pydantic-settings: a value that is not the JSON its field needs
            faults.append(str(error))
        if faults:
            raise SettingsError(faults)
        self._groups.update(made)

    def of(self, group: type[G]) -> G:
        """Return the settings of a part, by the class it declares them in."""
        found = self._groups[group]
        if not isinstance(found, group):
            raise InvariantViolated(f"settings of {group.__name__} are of type {type(found).__name__}")
        return found

    def named(self, keyword: str) -> Any:
        """Return a setting by what it is called as an argument, whichever part declares it."""
        for kind in setting_kinds():
            for field in kind.model_fields:
                if kind.keyword_of(field) == keyword:
                    return getattr(self if kind is Settings else self.of(kind), field)
        raise InvariantViolated(f"no setting is called {keyword!r}")

    data_dir: Path = Path(".spoolproof")
    """Where SQLite files live: local disk, not a network file system."""
    store: SecretStr = SecretStr("")
    """`sqlite:///PATH`, `postgresql://…`, `memory://`, or `none`: events are kept in the spool alone. Default:
    `store.db` in the data directory."""
    broker: SecretStr = Field(SecretStr(""), validation_alias=also("BROKER", "RABBITMQ_URL"))
    """`embedded:///PATH`, `amqp(s)://a,amqp(s)://b`, `sqs://REGION` or `memory://`. Default: `broker.db` in the data
    directory."""
    exchange: str = Field("spoolproof.events", min_length=1, max_length=200)
    """The topic exchange events go to; the routing key is the type."""
    listen: Literal["auto", "off"] = "auto"
    """`off` behind PgBouncer in transaction mode: no LISTEN, no session settings; polling is always there."""
    migrate: Literal["auto", "refuse"] | None = None
    """Whether a start brings the schema up to date. Default: SQLite yes, PostgreSQL refuses and prints the command."""
    broker_required: bool = Field(False, validation_alias=also("BROKER_REQUIRED", "RABBITMQ_REQUIRED"))
    """True: the start waits for the broker and fails after `broker_rounds_max` rounds."""
    broker_rounds_max: int = Field(
        10, ge=1, le=1000, validation_alias=also("BROKER_MAX_RETRIES", "RABBITMQ_MAX_RETRIES")
    )
    """Rounds of connection attempts before a required broker fails the start: 10 is about 4 minutes."""
    broker_retry_seconds: float = Field(
        1.0, gt=0, le=300, validation_alias=also("BROKER_RETRY_DELAY", "RABBITMQ_RETRY_DELAY")
    )
    """The first wait between connection rounds; doubles up to 60 s."""
    outbox_rows_max: int = Field(
        10_000_000, ge=1, validation_alias=also("OUTBOX_ROWS_MAX", "RABBITMQ_MAX_PENDING_EVENTS")
    )
    """Rows the outbox may hold; then publish raises OutboxFull. Nothing accepted is dropped."""
    drain_seconds: float = Field(limits.DRAIN_SECONDS, ge=0, le=3600)
    """How long running handlers may go on after SIGTERM."""
    lease_seconds: float = Field(limits.LEASE_SECONDS, ge=1, le=limits.LEASE_SECONDS_MAX)
    """How long a shard stays with a process that no longer answers; renewed every third of it, self-fenced at two
    thirds. Short leases take over faster and mind a slow database more."""
    failpoints: str = ""
    failpoint_log: str | None = None

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

    @field_validator("data_dir")
    @classmethod
    def _no_tilde(cls, value: Path) -> Path:
        if str(value).startswith("~"):
            raise ValueError("nothing expands ~; write the whole path")
        return value

    @field_validator("store")
    @classmethod
    def _right_store(cls, value: SecretStr) -> SecretStr:
        text = value.get_secret_value()
        return _checked(value, url_fault(text, STORES) if text not in ("", "none") else None)

    @field_validator("broker")
    @classmethod
    def _right_broker(cls, value: SecretStr) -> SecretStr:
        text = value.get_secret_value()
        return _checked(value, text and several_fault(_split_urls(text), BROKERS))

    @property
    def store_url(self) -> str:
        """The store's URL, with password."""
        given = self.store.get_secret_value()
        return "none://" if given == "none" else given or f"sqlite:///{self.data_dir / 'store.db'}"

    @property
    def broker_urls(self) -> tuple[str, ...]:
        """The broker's URLs, with passwords; one or more."""
        given = self.broker.get_secret_value()
        return tuple(_split_urls(given)) if given else (f"embedded:///{self.data_dir / 'broker.db'}",)


def load_settings(**values: Any) -> Settings:
    """Read the settings from the environment and `.env` as they are now; keyword arguments win.

    Raises SettingsError with every fault.
    """
    return Settings(**values)


def _split_urls(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def _checked(value: SecretStr, fault: str | None) -> SecretStr:
    if fault:
        raise ValueError(fault)
    return value


# --- names -----------------------------------------------------------------------------------------------------------


def setting_kinds() -> list[type[SettingsGroup]]:
    """Return the service's own settings and every group."""
    return [Settings, *GROUPS]


def _known_variables() -> set[str]:
    return {name for kind in setting_kinds() for field in kind.model_fields for name in kind.variables_of(field)}


def _keywords() -> list[str]:
    return [kind.keyword_of(field) for kind in setting_kinds() for field in kind.model_fields]


def _variable_faults(environ: Mapping[str, str], dotenv: Mapping[str, str | None]) -> list[str]:
    """Return what is wrong with the names of variables, and which are empty. Values may be secret: none is shown."""
    faults = []
    known = _known_variables()
    for name, value in {**dotenv, **environ}.items():
        if name.upper() in known or name in _READ_ELSEWHERE:
            if not value or value.isspace():
                faults.append(f"{name} is empty: give it a value, or unset it for the default")
        elif name.upper().startswith(PREFIX) and not name.startswith(_POLICY) and not _is_service_link(name, value):
            faults.append(f"{name}: no setting has this name; the nearest is {_nearest(name.upper(), known)}")
        if (name in _READ_ELSEWHERE or name.startswith(_POLICY)) and name not in environ:
            faults.append(f"{name} in .env is not seen: policies read the environment alone; export it")
    return faults


def _is_service_link(name: str, value: str | None) -> bool:
    """Tell whether Kubernetes set it, as it does in every container for a service of its own called `spoolproof-…`."""
    return _SERVICE_LINK.fullmatch(name) is not None or (name.endswith("_PORT") and "://" in (value or ""))


def _nearest(name: str, known: Iterable[str]) -> str:
    word, _, rest = name.removeprefix(PREFIX).partition("_")
    candidates = {*known, *_READ_ELSEWHERE}
    if rest and get_close_matches(word, ["POLICY", "POLICIES"]):
        candidates.add(f"{_POLICY}{rest}")
    plain = [one.removeprefix(PREFIX) for one in candidates if one.startswith(PREFIX)]
    return PREFIX + get_close_matches(name.removeprefix(PREFIX), sorted(plain), 1, cutoff=0)[0]


def _keyword_faults(values: Iterable[str]) -> list[str]:
    known, keywords = _known_variables(), _keywords()
    unknown = [
        name for name in values if name not in keywords and name.upper() not in known and not name.startswith("_")
    ]
    return [
        f"{name}=: no setting has this name; the nearest is {get_close_matches(name, keywords, 1, cutoff=0)[0]}"
        for name in unknown
    ]


def _read_dotenv(file: Any) -> dict[str, str | None]:
    """Return what the file or files of variables hold; a missing one holds nothing. Raises OSError, ValueError."""
    found: dict[str, str | None] = {}
    for one in () if file is None else (file,) if isinstance(file, str | os.PathLike) else file:
        path = Path(one).expanduser()
        if path.is_file():
            found |= dotenv_values(path, encoding="utf-8")
    return found


def _sentence(kind: type[SettingsGroup], fault: Any) -> str:
    place = str(fault["loc"][0]) if fault["loc"] else "settings"
    names, shown = place, f"={fault['input']!r}"
    for field in kind.model_fields:
        variables = kind.variables_of(field)
        if place == field or place.upper() in variables:
            names = " or ".join(variables)
            if kind.model_fields[field].annotation is SecretStr:
                shown = ""  # a wrong URL may hold a password; the message of its validator shows it redacted
    return f"{names}{shown}: {fault['msg'].removeprefix('Value error, ')}"
