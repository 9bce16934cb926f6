"""Where alerts go, and the numbers of every rule: `SPOOLPROOF_ALERT_OUTBOX_PENDING_ABOVE=100`, `…_CLEAR`,
`…_FOR_SECONDS`, `…_KEEP_SECONDS`, `…_SEVERITY=page|warn|off`. What is not set is as the table of rules has it."""

from __future__ import annotations

import re
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, create_model, field_validator

from spoolproof.alerts.rule import Rule, Severity
from spoolproof.alerts.rules import RULES
from spoolproof.errors import SettingsError
from spoolproof.settings_group import SettingsGroup

_PREFIX = "SPOOLPROOF_ALERT_"
_BETWEEN = re.compile(r"\s+|,(?=\s*[A-Za-z][A-Za-z0-9+.-]*://)")


class Targets(SettingsGroup, env_prefix=_PREFIX):
    """Where alerts go."""

    urls_page: SecretStr = SecretStr("")
    """URLs of apprise for what needs a person now; several are separated by spaces."""
    urls_warn: SecretStr = SecretStr("")
    """The same for what needs one today."""
    alertmanager_url: SecretStr = SecretStr("")
    """An Alertmanager, as `http://alertmanager:9093`; it is told of both."""
    heartbeat_url: SecretStr = SecretStr("")
    """Asked for every five minutes while alerts are judged: a watchdog elsewhere alarms when that ends."""

    @field_validator("alertmanager_url", "heartbeat_url")
    @classmethod
    def _is_http(cls, value: SecretStr) -> SecretStr:
        text = value.get_secret_value()
        try:
            parts = urlsplit(text)
            is_right = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            is_right = False
        if text and not is_right:
            raise ValueError("is no http:// or https:// URL (it may hold a secret and is not shown)")
        return value

    @property
    def page(self) -> list[str]:
        """The URLs for pages, with secrets."""
        return _split(self.urls_page)

    @property
    def warn(self) -> list[str]:
        """The URLs for warnings, with secrets."""
        return _split(self.urls_warn)


def _split(urls: SecretStr) -> list[str]:
    return [one for one in _BETWEEN.split(urls.get_secret_value().strip()) if one]


def _fields() -> dict[str, Any]:
    fields: dict[str, Any] = {}
    seconds = (float | None, Field(None, ge=0, le=86_400))
    for rule in RULES:
        fields[f"{rule.snake}_{rule.bound}"] = (float | None, Field(None, ge=0))
        fields[f"{rule.snake}_clear"] = (float | None, Field(None, ge=0))
        fields[f"{rule.snake}_for_seconds"] = fields[f"{rule.snake}_keep_seconds"] = seconds
        fields[f"{rule.snake}_severity"] = (Literal["page", "warn", "off"] | None, None)
    return fields


AlertSettings: type[Targets] = create_model("AlertSettings", __base__=Targets, **_fields())
"""Where alerts go, and the numbers of every rule."""


def rules_of(settings: Targets) -> list[Rule]:
    """Return the rules with the numbers that were set, without those that are off. Raises SettingsError."""
    found, faults = [], []
    for rule in RULES:
        trigger, clear, for_seconds, keep_seconds, severity = (
            getattr(settings, f"{rule.snake}_{field}")
            for field in (rule.bound, "clear", "for_seconds", "keep_seconds", "severity")
        )
        if severity == "off":
            continue
        more = {"severity": None if severity is None else Severity(severity)}
        moved = rule.moved(trigger, clear, for_seconds=for_seconds, keep_seconds=keep_seconds, **more)
        if moved.is_bad(moved.clears_at):
            name = f"{_PREFIX}{rule.snake.upper()}"
            side = "at least" if rule.is_below else "at most"
            faults.append(
                f"{name}_CLEAR={moved.clears_at:g}: must be {side} {name}_{rule.bound.upper()}={moved.trigger:g}"
            )
        found.append(moved)
    if faults:
        raise SettingsError(faults)
    return found
