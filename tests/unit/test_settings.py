"""Settings: aliases work, faults come all at once, secrets never show."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoolproof.errors import SettingsError
from spoolproof.settings import load_settings, path_of, redact_url


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:  # type: ignore[no-untyped-def]
    import os

    for name in list(os.environ):
        if name.startswith(("SPOOLPROOF_", "RABBITMQ_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_nothing_set_means_sqlite_and_the_embedded_broker() -> None:
    """A first start needs no configuration."""
    settings = load_settings()

    assert "sqlite:///.spoolproof/store.db" == settings.store_url
    assert ("embedded:///.spoolproof/broker.db",) == settings.broker_urls


def test_the_five_aliases_of_rabbitmq_users_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """B4: teams keep the variables they have."""
    monkeypatch.setenv("RABBITMQ_URL", "amqp://a@h1/v,amqp://a@h2/v")
    monkeypatch.setenv("RABBITMQ_REQUIRED", "true")
    monkeypatch.setenv("RABBITMQ_MAX_RETRIES", "3")
    monkeypatch.setenv("RABBITMQ_RETRY_DELAY", "2.5")
    monkeypatch.setenv("RABBITMQ_MAX_PENDING_EVENTS", "1000")

    settings = load_settings()

    assert ("amqp://a@h1/v", "amqp://a@h2/v") == settings.broker_urls
    assert (True, 3, 2.5, 1000) == (
        settings.broker_required,
        settings.broker_rounds_max,
        settings.broker_retry_seconds,
        settings.outbox_rows_max,
    )


def test_all_faults_are_reported_together_and_without_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fixing one fault per restart is how a deployment takes an afternoon."""
    monkeypatch.setenv("SPOOLPROOF_STORE", "mysql://u:hunter2@h/db")
    monkeypatch.setenv("SPOOLPROOF_BROKER", "amqp://u:hunter2@h,embedded:///x")
    monkeypatch.setenv("RABBITMQ_RETRY_DELAY", "1000")
    monkeypatch.setenv("SPOOLPROOF_DRAIN_SECONDS", "soon")
    monkeypatch.setenv("SPOOLPROOF_INBOX_RETENTION_SECONDS", "60")

    with pytest.raises(SettingsError) as caught:
        load_settings()

    faults = "\n".join(caught.value.faults)
    assert 5 == len(caught.value.faults)
    assert "hunter2" not in faults
    for named in ("SPOOLPROOF_STORE", "SPOOLPROOF_BROKER", "RABBITMQ_RETRY_DELAY", "were milliseconds meant", "'soon'"):
        assert named in faults


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://u:secret@h:5672/v?heartbeat=3", "amqp://u:***@h:5672/v"),
        ("postgresql://u@h/db", "postgresql://u@h/db"),
        ("amqp://u:secret@[::1]:5672/", "amqp://u:***@[::1]:5672/"),
        ("secret", "***"),
        ("amqp://u:secret@h:notaport/", "***"),
    ],
)
def test_urls_are_shown_without_password_and_query(url: str, shown: str) -> None:
    """S17."""
    assert shown == redact_url(url)


@given(st.text(max_size=60))
def test_whatever_the_url_its_password_is_not_shown(rubbish: str) -> None:
    """S17: also for what does not parse."""
    assert "hunter2" not in redact_url(f"amqp://user:hunter2@host/{rubbish}".replace("hunter2@host/@", ""))


def test_paths_of_file_urls_may_be_relative_or_absolute() -> None:
    """Three slashes are relative, four absolute, as in SQLAlchemy."""
    assert "a/b.db" == str(path_of("sqlite:///a/b.db"))
    assert "/var/b.db" == str(path_of("sqlite:////var/b.db"))
