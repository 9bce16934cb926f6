"""What the settings name: what cannot be opened is said at once, and what is known of an adapter is true of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from spoolproof import Service, Settings
from spoolproof.errors import SettingsError
from spoolproof.ids import Ids
from spoolproof.testing.clock import ManualClock
from spoolproof.wiring import BROKERS, STORES, broker_adapter, build_broker, build_store, setting_faults, store_adapter


def make_directory(folder: Path) -> str:
    (folder / "store.db").mkdir()
    return "store.db"


def make_file_above(folder: Path) -> str:
    (folder / "data").write_text("")
    return "data/store.db"


def make_pipe(folder: Path) -> str:
    os.mkfifo(folder / "store.db")
    return "store.db"


def make_long_name(folder: Path) -> str:
    return "x" * 300


WRONG = [
    (make_directory, "is a directory; name a file in it"),
    (make_file_above, "is not a directory, so"),
    (make_pipe, "is not a regular file"),
    (make_long_name, "File name too long"),
]


@pytest.mark.parametrize(("make", "needle"), WRONG)
async def test_a_file_that_can_never_be_opened_is_a_settings_fault(
    tmp_path: Path, make: Callable[[Path], str], needle: str
) -> None:
    """A store like that was waited for for a minute; a broker like that was a service that starts and does nothing."""
    path = tmp_path / make(tmp_path)
    settings = Settings(store=f"sqlite:///{path}", broker=f"embedded:///{path}")

    with pytest.raises(SettingsError) as caught:
        await Service("shop", settings=settings).start()

    store, broker = caught.value.faults
    assert (True, True) == (store.startswith("SPOOLPROOF_STORE: "), broker.startswith("SPOOLPROOF_BROKER: "))
    assert needle in store
    assert needle in broker


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere; run as another user")
def test_a_directory_that_may_not_be_written_to_is_a_settings_fault(tmp_path: Path) -> None:
    """Another user made it, or the file system is read-only."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o500)

    faults = setting_faults(Settings(data_dir=folder, broker="memory://"))

    assert [
        f"SPOOLPROOF_STORE: {folder} cannot be written to by this user; chown it, or set SPOOLPROOF_DATA_DIR"
    ] == faults


def test_store_and_broker_do_not_share_a_file(tmp_path: Path) -> None:
    """Each would find the other's tables and a writer that is not its own; a link is the same file."""
    (tmp_path / "link").symlink_to(tmp_path)
    settings = Settings(store=f"sqlite:///{tmp_path}/one.db", broker=f"embedded:///{tmp_path}/link/one.db")

    (fault,) = setting_faults(settings)

    assert "give each a file of its own" in fault


def test_a_file_and_directories_that_are_still_to_be_made_are_no_fault(tmp_path: Path) -> None:
    """The first start makes them; looking must not."""
    assert [] == setting_faults(Settings(data_dir=tmp_path / "a" / "b"))
    assert [] == list(tmp_path.iterdir())


def test_an_unknown_need_is_a_fault_at_start() -> None:
    """A typing error here would never fail a probe, which nobody would notice before the outage."""
    (fault,) = setting_faults(Settings(store="memory://", broker="memory://", health_ready_needs="db, memory, rabitmq"))

    assert "SPOOLPROOF_READY_NEEDS=rabitmq: the dependencies are db, embedded, rabbitmq, sqs" == fault


URLS = {
    "sqlite": "sqlite:///store.db",
    "postgresql": "postgresql://h/db",
    "embedded": "embedded:///broker.db",
    "sqs": "sqs://eu-west-1",
    "rabbitmq": "amqps://a/v,amqp://b/v",
    "memory": "memory://",
    "none": "none",
}


async def test_every_adapter_is_made_from_its_url_and_bears_its_word() -> None:
    """Health bodies, `ready_needs` and logs speak of a broker by one word."""
    clock = ManualClock()
    ids = Ids(clock)

    def spawn(work: Any, name: str) -> Any:
        raise AssertionError(f"{name} was begun by making it")

    for row in STORES:
        settings = Settings(store=URLS[row.name])
        assert row is store_adapter(settings)
        assert build_store(settings, clock=clock, ids=ids, spawn=spawn).name
    for one in BROKERS:
        settings = Settings(broker=URLS[one.name])
        made = build_broker(settings, clock=clock, ids=ids, random=Random(1), spawn=spawn)
        assert (one, one.name) == (broker_adapter(settings), made.status().kind)
