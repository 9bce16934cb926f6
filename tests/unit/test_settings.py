"""Settings: aliases work, faults come all at once, secrets never show."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from spoolproof.errors import SettingsError
from spoolproof.health.settings import HealthSettings
from spoolproof.settings import Settings, load_settings
from spoolproof.urls import path_of

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("SPOOLPROOF_", "RABBITMQ_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def faults_of_loading() -> list[str]:
    try:
        load_settings()
    except SettingsError as error:
        return list(error.faults)
    return []


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
    ("variable", "nearest"),
    [
        ("SPOOLPROOF_STORE_URL", "SPOOLPROOF_STORE"),
        ("SPOOLPROOF_STROE", "SPOOLPROOF_STORE"),
        ("SPOOLPROOF_BROKER_URL", "SPOOLPROOF_BROKER"),
        ("SPOOLPROOF_DRAIN", "SPOOLPROOF_DRAIN_SECONDS"),
        ("SPOOLPROOF_LEASE_SECS", "SPOOLPROOF_LEASE_SECONDS"),
        ("spoolproof_stores", "SPOOLPROOF_STORE"),
        ("SPOOLPROOF_POLICY_FILE", None),
        ("SPOOLPROOF_POLICES_FILE", "SPOOLPROOF_POLICIES_FILE"),
        ("SPOOLPROOF_POLICIES_PSP_ATTEMPTS", "SPOOLPROOF_POLICY_PSP_ATTEMPTS"),
        ("SPOOLPROOF_POLCIY_PSP_ATTEMPTS", "SPOOLPROOF_POLICY_PSP_ATTEMPTS"),
        ("spoolproof_policy_psp_attempts", "SPOOLPROOF_POLICY_PSP_ATTEMPTS"),
        ("SPOOLPROOF_CHAS", "SPOOLPROOF_CHAOS"),
    ],
)
def test_a_misspelt_variable_is_a_fault_that_names_the_nearest(
    monkeypatch: pytest.MonkeyPatch, variable: str, nearest: str | None
) -> None:
    """It started on SQLite without a word, and the events of a deployment lay in a container's file."""
    monkeypatch.setenv(variable, "postgresql://u:hunter2@h/db")

    faults = faults_of_loading()

    expected = f"{variable}: no setting has this name; the nearest is {nearest}"
    assert ([expected] if nearest else []) == faults  # what follows SPOOLPROOF_POLICY_ is the registry's to judge


@pytest.mark.parametrize(
    "variable",
    ["SPOOLPROOF_STORE", "SPOOLPROOF_BROKER", "RABBITMQ_URL", "SPOOLPROOF_DRAIN_SECONDS", "SPOOLPROOF_POLICIES_FILE"],
)
@pytest.mark.parametrize("value", ["", "  "])
def test_an_empty_variable_is_a_fault(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    """`SPOOLPROOF_STORE=${DATABASE_URL}` with the other unset must not mean SQLite."""
    monkeypatch.setenv(variable, value)

    assert f"{variable} is empty: give it a value, or unset it for the default" == faults_of_loading()[0]


def test_names_in_the_env_file_are_judged_like_those_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is where most settings are written by hand; what policies cannot see there is said, too."""
    (tmp_path / ".env").write_text(
        "SPOOLPROOF_STORE=\nSPOOLPROOF_BROCKER=x\nDJANGO_SECRET=y\nSPOOLPROOF_POLICY_PSP_ATTEMPTS=3\nSPOOLPROOF_CHAOS=1"
    )
    monkeypatch.setenv("SPOOLPROOF_CHAOS", "1")

    faults = faults_of_loading()

    assert [
        "SPOOLPROOF_STORE is empty: give it a value, or unset it for the default",
        "SPOOLPROOF_BROCKER: no setting has this name; the nearest is SPOOLPROOF_BROKER",
        "SPOOLPROOF_POLICY_PSP_ATTEMPTS in .env is not seen: policies read the environment alone; export it",
    ] == faults


def test_an_env_file_that_is_no_text_is_a_fault(tmp_path: Path) -> None:
    """A file saved as UTF-16 by an editor."""
    (tmp_path / ".env").write_text("SPOOLPROOF_STORE=memory://", encoding="utf-16")

    (fault,) = faults_of_loading()

    assert fault.startswith(".env cannot be read: ")


@pytest.mark.parametrize("name", ["STORE", "BROKER", "EXCHANGE", "LISTEN", "MIGRATE", "HEALTH_PORT", "DATA_DIR"])
def test_a_variable_without_our_prefix_is_nobodys_setting(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Other programs have a LISTEN or a STORE of their own."""
    monkeypatch.setenv(name, "1")

    assert load_settings(_env_file=None) == load_settings()
    assert "sqlite:///.spoolproof/store.db" == load_settings().store_url
    assert None is load_settings().of(HealthSettings).port


def test_what_kubernetes_sets_for_services_of_its_own_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Service called `spoolproof-shop` puts seven variables into every pod of its namespace."""
    for name in ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT_80_TCP", "PORT_80_TCP_ADDR"):
        monkeypatch.setenv(f"SPOOLPROOF_SHOP_{name}", "10.0.0.1")
    monkeypatch.setenv("SPOOLPROOF_SHOP_PORT", "tcp://10.0.0.1:80")

    load_settings()


def test_a_misspelt_keyword_is_a_fault_that_names_the_nearest() -> None:
    """`Settings(stroe=…)` in a test would run on a file in the working directory."""
    with pytest.raises(SettingsError) as caught:
        Settings(stroe="memory://", lease_seconds=0)

    assert "stroe=: no setting has this name; the nearest is store" == caught.value.faults[0]
    assert caught.value.faults[1].startswith("SPOOLPROOF_LEASE_SECONDS=0: ")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "nan", "inf"])
@pytest.mark.parametrize("name", ["drain_seconds", "consumer_timeout_seconds", "inbox_retention_seconds"])
def test_no_time_is_infinite_or_not_a_number(name: str, value: object) -> None:
    """What is computed from it would be, too."""
    with pytest.raises(SettingsError, match=f"SPOOLPROOF_{name.upper()}"):
        load_settings(**{name: value})


def test_every_variable_that_is_written_about_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable somebody adds elsewhere would be a fault for those who set it."""
    texts = [path.read_text() for folder in ("src", "examples", "docs") for path in (ROOT / folder).rglob("*.[mp][dy]")]
    texts += [(ROOT / "README.md").read_text()]
    named = {name for text in texts for name in re.findall(r"SPOOLPROOF_[A-Z_]*[A-Z]\b(?![<…*])", text)}
    for name in named - {"SPOOLPROOF_POLICY"}:
        monkeypatch.setenv(name, "1")

    assert len(named) > 20
    assert [] == [fault for fault in faults_of_loading() if "no setting has this name" in fault]


def test_a_data_directory_may_have_any_name_a_directory_may_have() -> None:
    """`?`, `#` and `,` mean something in a URL; a path is none."""
    settings = load_settings(data_dir="a#b?c,d")

    assert "a#b?c,d/store.db" == str(path_of(settings.store_url))
    assert ["a#b?c,d/broker.db"] == [str(path_of(url)) for url in settings.broker_urls]


def test_a_tilde_is_not_made_a_directory() -> None:
    """The shell expands it, a settings file does not."""
    with pytest.raises(SettingsError, match=r"SPOOLPROOF_DATA_DIR=.*nothing expands ~"):
        load_settings(data_dir="~/data")
