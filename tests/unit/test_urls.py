"""Store and broker URLs: a wrong one is answered with a right one, and no password is shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoolproof import Service, Settings
from spoolproof.errors import SettingsError
from spoolproof.settings import load_settings
from spoolproof.urls import path_of, redact_url, seeds_fault, seeds_of, several_fault, url_fault
from spoolproof.wiring import BROKERS, STORES, shown

WRONG_STORES = [
    ("sqlite://store.db", "write sqlite:///store.db"),
    ("sqlite://data/store.db", "write sqlite:///data/store.db"),
    ("sqlite://", "names no file; the form is sqlite:///store.db"),
    ("sqlite:///", "names no file"),
    ("sqlite:////", "names no file"),
    ("sqlite:///data/", "names no file"),
    ("sqlite:///.", "names no file"),
    ("sqlite:///data/..", "names no file"),
    ("sqlite:///:memory:", "write memory://"),
    ("sqlite:///~/store.db", "nothing expands"),
    ("sqlite:///store.db?mode=ro", "has a ? or #"),
    ("sqlite:///store.db#x", "has a ? or #"),
    ("sqlite:///my%20data/store.db", "percent escape"),
    ("sqlite:///a\0b", "control character"),
    ("sqlite:///a\n", "control character or white space"),
    (" sqlite:///a", "write sqlite: where ' sqlite' stands"),
    ("sqlite:///a ", "white space around it"),
    ("sqlite:/store.db", "must be followed by slashes"),
    ("sqlite:store.db", "must be followed by slashes"),
    ("SQLITE:///store.db", "write sqlite: where 'SQLITE' stands"),
    ("sqlite+aiosqlite:///store.db", "write sqlite: where 'sqlite+aiosqlite' stands"),
    ("store.db", "is not a URL of one of sqlite://, postgresql://, postgres://, memory://"),
    ("/var/lib/store.db", "is not a URL"),
    ("file:///store.db", "is not a URL"),
    ("embedded:///store.db", "is not a URL"),
    ("mysql://u:hunter2@h/db", "'mysql://u:***@h/db' is not a URL"),
    ("memory://store", "takes nothing after"),
    ("memory:///store.db", "takes nothing after"),
    ("postgresql+asyncpg://u:hunter2@h/db", "write postgresql: where 'postgresql+asyncpg' stands"),
    ("postgresql:/h/db", "must be followed by slashes"),
    ("postgresql://", "names no host"),
    ("postgresql://u:hunter2@:5432/db", "names no host"),
    ("postgresql://u:hunter2@h:port/db", "port that is no number"),
    ("postgresql://u:hunter2@h:0/db", "port that is no number from 1 to 65535"),
    ("postgresql://u:hunter2@h:99999/db", "port that is no number from 1 to 65535"),
    ("postgresql://u:hunter2@h:5432:5432/db", "port that is no number"),
    ("postgresql://u:hunter2@[::1/db", "port that is no number"),
    ("postgresql://u:hunter2@a:1,b:x/db", "port that is no number"),
    ("postgresql://u:hunter2/x@h/db", "write / as %2F"),
    ("postgresql://u:12/hunter2@h/db", "write / as %2F"),
    ("postgresql://u:hunter2#x@h/db", "# as %23"),
    ("postgresql://u:12?hunter2@h/db", "? as %3F"),
    ("postgresql://u:hunter2@x@h/db", "more than one @"),
    ("postgresql://u:hunter2%@h/db", "% that is no escape"),
    ("postgresql://u:hunter2@h/db%zz", "% that is no escape"),
    ("postgresql://u:hunter2@h /db", "white space in it"),
    ("postgresql://u:hunter2@h/db?sslmode=on", "sslmode='on'; it is one of disable"),
    ("postgresql://u:hunter2@h/db?sslmod=require", "sslmode= is meant"),
    ("postgresql://u:hunter2@h/db?sslmode", "NAME=VALUE"),
    ("postgresql://u:hunter2@h/db?sslmode=require&channel_binding=require", "channel_binding=, which neither"),
    ("postgresql://u:hunter2@h/db?connect_timeout=10", "connect_timeout=, which neither"),
]
WRONG_BROKERS = [
    ("embedded://broker.db", "write embedded:///broker.db"),
    ("embedded:///", "names no file"),
    ("embedded:///a.db,embedded:///b.db", "only amqp:// takes several"),
    ("amqp://", "names no host"),
    ("amqp:///v", "names no host"),
    ("amqp://u:hunter2@", "names no host"),
    ("amqp://u:hunter2@:5672/", "names no host"),
    ("amqp://h:0/", "port that is no number from 1 to 65535"),
    ("amqp://h:65536/", "port that is no number from 1 to 65535"),
    ("amqp://h:rabbit/", "port that is no number"),
    ("amqp://a:5672:b/", "port that is no number"),
    ("amqp://u:hunter2/x@h/v", "write / as %2F"),
    ("amqp://u:12/hunter2@h/v", "write / as %2F"),
    ("amqp://u:hunter2%x@h/v", "% that is no escape"),
    ("amqp://a/v, ,amqp://b/v", "is not a URL"),
    ("amqp://a/v,", "is not a URL"),
    ("amqp://u:hun,ter2@h/v", "a comma in a password is %2C"),
    ("amqp://a/v,memory://", "one kind"),
    ("AMQP://a/v", "write amqp: where 'AMQP' stands"),
    ("rabbitmq://a/v", "is not a URL of one of embedded://, amqp://, amqps://, sqs://, memory://"),
    ("pyamqp://a/v", "is not a URL"),
    ("localhost:5672", "is not a URL"),
    ("sqs://", "names no host"),
    ("sqs://KEY:hunter2/x@eu-west-1", "write / as %2F"),
    ("sqs://a,sqs://b", "only amqp:// takes several URLs, not sqs://"),
    ("memory://broker", "takes nothing after"),
]


@pytest.mark.parametrize(("url", "needle"), WRONG_STORES)
def test_a_wrong_store_url_is_a_settings_fault_that_says_what_to_write(url: str, needle: str) -> None:
    """What a driver makes of it is a traceback, an outage without end, or a file nobody looks into."""
    with pytest.raises(SettingsError) as caught:
        load_settings(store=url)

    (fault,) = caught.value.faults
    assert fault.startswith("SPOOLPROOF_STORE: ")
    assert needle in fault
    assert "hunter2" not in fault


@pytest.mark.parametrize(("url", "needle"), WRONG_BROKERS)
def test_a_wrong_broker_url_is_a_settings_fault_that_says_what_to_write(url: str, needle: str) -> None:
    """The broker is reached in the background: a wrong URL would be an outage in the log of a service that started."""
    with pytest.raises(SettingsError) as caught:
        load_settings(broker=url)

    (fault,) = caught.value.faults
    assert fault.startswith("SPOOLPROOF_BROKER or RABBITMQ_URL: ")
    assert needle in fault
    assert "hunter2" not in fault


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///store.db",
        "sqlite:////var/lib/shop/store.db",
        "sqlite:///my data/store.db",
        "sqlite:///../100%/store.db",
        "memory://",
        "postgresql:///db",
        "postgres://h",
        "postgresql://u:p%40%2F%23@h:5432/db",
        "postgresql://u@a:5432,b:5433/db?target_session_attrs=read-write",
        "postgresql://u@[::1]:5432/db",
        "postgresql://u@%2Fvar%2Frun%2Fpostgresql/db",
        "postgresql:///db?host=/var/run/postgresql&user=a@b",
        "postgresql://?service=shop",
        "postgresql://h/db?sslmode=verify-full&sslrootcert=/ca.pem&application_name=x&search_path=shop&my.own=1",
    ],
)
def test_a_right_store_url_passes(url: str) -> None:
    """All that asyncpg and SQLite understand."""
    assert None is url_fault(url, STORES)


@pytest.mark.parametrize(
    "url",
    [
        "amqp://h",
        "amqp://u:p@ss@h/v",
        "amqp://u:p%2F@h:5672/a%2Fb?heartbeat=20",
        "amqps://[::1]:5671/",
        "embedded:///broker.db",
        "memory://",
    ],
)
def test_a_right_broker_url_passes(url: str) -> None:
    """All that the adapters understand."""
    assert None is several_fault([url], BROKERS)


SCHEMES = [scheme for row in (*STORES, *BROKERS) for scheme in row.schemes]


@given(st.text(max_size=40), st.sampled_from([*SCHEMES, "x"]), st.sampled_from([":", "://", "//"]))
def test_any_text_is_judged_without_an_exception(rest: str, scheme: str, between: str) -> None:
    """A fault in judging would hide all other faults."""
    url_fault(f"{scheme}{between}{rest}", STORES)
    several_fault(f"{scheme}{between}{rest}".split(","), BROKERS)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://u:secret@h:5672/v?heartbeat=3", "amqp://u:***@h:5672/v"),
        ("postgresql://u@h/db", "postgresql://u@h/db"),
        ("amqp://u:secret@[::1]:5672/", "amqp://u:***@[::1]:5672/"),
        ("sqlite:///store.db", "sqlite:///store.db"),
        ("sqlite:////var/store.db", "sqlite:////var/store.db"),
        ("memory://", "memory://"),
        ("secret", "***"),
        ("u:secret@h/v", "***"),
        ("amqp:///u:secret@h/v", "***"),
        ("postgresql:///db?user=u@h&password=secret", "postgresql:///db"),
        ("amqp://u:secret@h:notaport/", "***"),
        ("amqp://u:12/secret@h/v", "***"),
        ("amqp://u:12?secret@h/v", "***"),
    ],
)
def test_urls_are_shown_without_password_and_query(url: str, shown: str) -> None:
    """S17: also where an unescaped character moved a part of the password into the path."""
    assert shown == redact_url(url)


@given(st.text(max_size=60))
def test_whatever_the_url_its_password_is_not_shown(rubbish: str) -> None:
    """S17: also for what does not parse."""
    assert "hunter2" not in redact_url(f"amqp://user:hunter2@host/{rubbish}".replace("hunter2@host/@", ""))


def test_a_file_is_shown_by_its_whole_path() -> None:
    """It holds no password, and whoever looks for the file needs its name."""
    assert "sqlite:////var/a@b/store.db" == shown("sqlite:////var/a@b/store.db")
    assert "amqp://u:***@h/v" == shown("amqp://u:secret@h/v")


def test_paths_of_file_urls_may_be_relative_or_absolute() -> None:
    """Three slashes are relative, four absolute, as in SQLAlchemy."""
    assert "a/b.db" == str(path_of("sqlite:///a/b.db"))
    assert "/var/b.db" == str(path_of("sqlite:////var/b.db"))


@pytest.mark.parametrize(
    ("url", "hosts", "rest"),
    [
        ("redis+sentinel://:p%40w@a,b:1/shop/2", (("a", 26379), ("b", 1)), ("", "p@w", "shop", "2")),
        ("redis+sentinel://u:p@[::1]:5/shop", (("::1", 5),), ("u", "p", "shop", "")),
        ("redis+cluster://a,b:7001", (("a", 6379), ("b", 7001)), ("", "", "", "")),
    ],
)
def test_urls_of_several_servers_to_ask(url: str, hosts: object, rest: tuple[str, ...]) -> None:
    seeds = seeds_of(url)

    assert seeds is not None
    assert seeds_fault(*url.split("://")) is None
    assert (hosts, rest) == (seeds.hosts, (seeds.user, seeds.password, seeds.name, seeds.db))
    assert seeds_of("redis://a") is None


@pytest.mark.parametrize(
    ("url", "needle"),
    [
        ("redis+sentinel://a,b", "/mymaster"),
        ("redis+sentinel://a/shop/x", "no number"),
        ("redis+sentinel://a:99999/shop", "port"),
        ("redis+sentinel://a,,b/shop", "names no host"),
        ("redis+cluster://a/1", "one alone"),
        ("redis+cluster://a?x=1", "query"),
    ],
)
def test_a_wrong_url_of_several_servers_says_what_to_write(url: str, needle: str) -> None:
    with pytest.raises(SettingsError, match=needle):
        Service("shop", settings=Settings(store="memory://", broker="memory://", cache=url))._checked_settings()
