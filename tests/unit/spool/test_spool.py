"""A service whose store is a file that somebody locks: the spool takes over, and everything comes back in order."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from spoolproof import Place, RegistrationError, Service, Settings, SpoolFull, StoreUnavailable
from spoolproof.health.verdict import issues_of, unready_reason
from spoolproof.outbox.given_up import relay_dead_letter
from spoolproof.ports.dead_letters import DeadLetterFilter
from spoolproof.ports.outbox import OutboxRow
from spoolproof.ports.spool import SpoolFile
from spoolproof.ports.webhooks import Webhooks
from spoolproof.spool.part import SpoolPart
from spoolproof.spool.spool import Spool
from spoolproof.stores.sqlite.spool import SpoolStore, SqliteSpools

TOLD = ("spool.started", "spool.filling", "spool.full", "spool.drained", "spool.adopted", "spool.salvaged")


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Spool, "patience_seconds", 30.0)  # a busy machine is no outage
    monkeypatch.setattr("spoolproof.limits.SPOOL_PROBE_SECONDS", 0.1)
    monkeypatch.setattr("spoolproof.limits.SPOOL_ADOPT_SECONDS", 0.2)


@asynccontextmanager
async def shop(
    folder: Path, arrived: list[tuple[str, int]] | None = None, **settings: object
) -> AsyncIterator[Service]:
    given = {
        "data_dir": folder,
        "store": f"sqlite:///{folder / 'store.db'}",
        "broker": f"embedded:///{folder / 'broker.db'}",
        "spool": str(folder / "spool"),
        "spool_free_bytes_min": 16 * 1024**2,
        **settings,
    }
    service = Service("shop", settings=Settings(**given))
    if arrived is not None:
        seen: set[str] = set()

        @service.on("order", dedupe="none", concurrency=1)
        async def order(payload: dict[str, object]) -> None:
            if payload["id"] not in seen:  # at least once: a copy of an unknown outcome is told by its id
                seen.add(str(payload["id"]))
                arrived.append((str(payload["key"]), int(str(payload["n"]))))

    await service.start()
    try:
        yield service
        await service.drain(2)
    finally:
        await service.stop()


async def publish(service: Service, n: int, key: str | None = "k") -> Place:
    name = f"{key}-{n}"
    receipt = await service.publish({"n": n, "key": str(key), "id": name}, type="order", key=key, id=name)
    return receipt.place


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The store's file while another program writes to it and does not end."""
    connection = sqlite3.connect(folder / "store.db", isolation_level=None)
    connection.execute("begin immediate")
    patience, Spool.patience_seconds = Spool.patience_seconds, 0.1
    try:
        yield
    finally:
        Spool.patience_seconds = patience
        connection.execute("rollback")
        connection.close()


async def until(is_so: Callable[[], bool], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not is_so():
            await asyncio.sleep(0.02)


async def test_a_key_keeps_its_order_from_store_to_spool_to_store(tmp_path: Path) -> None:
    """What is spooled never overtakes what the store still holds, nor is it overtaken by what comes after it."""
    arrived: list[tuple[str, int]] = []
    async with shop(tmp_path, arrived) as service:
        places = [await publish(service, n) for n in range(3)]
        with locked(tmp_path):
            places += [await publish(service, n) for n in range(3, 10)]
            issues = [issue.text for issue in issues_of(service.runtime.monitor.snapshot())]
        places += [await publish(service, n) for n in range(10, 13)]
        part = service.runtime.part(SpoolPart)
        await until(lambda: part.waiting == 0)
        await until(lambda: not list((tmp_path / "spool" / "shop").glob("*.db")))
        await until(lambda: service.runtime.publisher.beside is not None and not part._drainer._under_way)
        places += [await publish(service, n) for n in range(13, 15)]
        await until(lambda: len(arrived) == 15)

    assert [("k", n) for n in range(15)] == arrived
    assert ["stored"] * 3 + ["spooled"] * 10 + ["stored"] * 2 == places
    assert any(text.startswith("spool: ") for text in issues), issues
    assert [] == list((tmp_path / "spool" / "shop").iterdir())


async def test_without_a_key_the_spool_goes_straight_to_the_broker(tmp_path: Path) -> None:
    """A broker that is there gets what has no order to keep, however long the store stays away."""
    arrived: list[tuple[str, int]] = []
    async with shop(tmp_path, arrived) as service:
        await publish(service, 0, key=None)
        with locked(tmp_path):
            for n in range(1, 8):
                assert Place.SPOOLED == await publish(service, n, key=None)
            part = service.runtime.part(SpoolPart)
            await until(lambda: part.waiting == 0)
        assert unready_reason(service.runtime.monitor.snapshot()) is None
        await until(lambda: len(arrived) == 8)

    assert set(range(8)) == {n for _, n in arrived}


async def test_a_new_endpoint_misses_nothing_of_an_outage_that_follows(tmp_path: Path) -> None:
    """Once straight at the broker, an event has no row for it."""
    private = {"webhook_allow_private": "127.0.0.0/8,::1/128", "webhook_ports": "9"}
    async with shop(tmp_path, [], **private) as service:
        part = service.runtime.part(SpoolPart)
        await until(lambda: not part._spool.has_webhooks)
        await service.webhooks.add("all", "http://localhost:9/", ["*"])
        part._spool.is_store_left, part._spool.is_quiet = True, False
        assert Place.SPOOLED == await publish(service, 1, key=None)
        await until(lambda: part.waiting == 0)

        assert {"all": 1} == await service.runtime.store.port(Webhooks).waiting()


async def test_without_a_store_the_spool_is_all_there_is(tmp_path: Path) -> None:
    """An edge device: no database, publishes kept in a file, handlers without an inbox; what is left is adopted."""
    arrived: list[tuple[str, int]] = []
    async with shop(tmp_path, arrived, store="none") as service:
        assert {Place.SPOOLED} == {await publish(service, n) for n in range(5)}
        await until(lambda: len(arrived) == 5)
    assert [] == list((tmp_path / "spool" / "shop").iterdir()), "an empty file is deleted at the end"

    away = {"store": "none", "broker": "amqp://127.0.0.1:1/"}
    async with shop(tmp_path, **away) as service:
        for n in range(5, 8):
            await publish(service, n)
    (left,) = (tmp_path / "spool" / "shop").glob("*.db")
    async with shop(tmp_path, arrived, store="none"):
        await until(lambda: len(arrived) == 8)
        await until(lambda: not left.exists())

    assert [("k", n) for n in range(8)] == arrived


async def test_without_a_store_a_handler_with_inbox_is_refused(tmp_path: Path) -> None:
    """It would run twice where it was promised to run once."""
    service = Service("shop", settings=Settings(store="none", data_dir=tmp_path))

    @service.on("order")
    async def order(payload: dict[str, object]) -> None: ...

    with pytest.raises(RegistrationError, match=r"SPOOLPROOF_STORE=none has no inbox.*dedupe=\"none\""):
        await service.start()


async def test_a_damaged_file_is_salvaged_and_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What can be read goes on; the file itself is never deleted (L30)."""
    arrived: list[tuple[str, int]] = []
    async with shop(tmp_path, store="none", broker="amqp://127.0.0.1:1/") as service:
        await asyncio.gather(*(publish(service, n, key=f"{n:0200}") for n in range(200)))
    (file,) = (tmp_path / "spool" / "shop").glob("*.db")
    content = bytearray(file.read_bytes())
    rows = [page for page in range(len(content) // 4096) if b"0" * 150 in content[page * 4096 : page * 4096 + 4096]]
    for page in rows[len(rows) // 2 :][:3]:
        content[page * 4096 : page * 4096 + 4096] = b"\xff" * 4096
    file.write_bytes(content)

    async with shop(tmp_path, arrived, store="none") as service:
        await until(lambda: any("spool.salvaged" in text for text in caplog.messages))
        (kept,) = (tmp_path / "spool" / "shop").glob("*.corrupt-*")
        await until(lambda: not file.exists() and service.runtime.part(SpoolPart)._drainer._under_way == [])
        told = next(text for text in caplog.messages if "spool.salvaged" in text)
        fields = dict(one.split("=") for one in told.partition(":")[0].split()[1:])
        await until(lambda: len(arrived) == int(fields["rows"]))
        issues = [issue.text for issue in issues_of(service.runtime.monitor.snapshot())]

    assert 150 <= int(fields["rows"]) < 200, told
    assert int(fields["unreadable"]) >= 200 - int(fields["rows"]), told
    assert any(str(kept) in text for text in issues)
    assert bytes(content) == kept.read_bytes()


async def test_what_the_relay_gives_up_on_is_a_dead_letter_of_the_store(tmp_path: Path) -> None:
    """Nothing the spool took ends out of sight."""
    async with shop(tmp_path) as service:
        with locked(tmp_path):
            receipt = await service.publish({"n": 1}, type="order", destination="queue:nowhere")
            assert Place.SPOOLED == receipt.place
            part = service.runtime.part(SpoolPart)
            file = part._spool.file
            assert file is not None
            await until(lambda: part._drainer._under_way != [])
            rows = (await file.outbox.fetch({0: 0}, (), 10)).rows or await deferred(file)
            letter = relay_dead_letter(
                rows[0], "unroutable", "no queue", consumer="relay:queue:nowhere", now=rows[0].outgoing.message.time,
                id="018f0000-0000-7000-8000-000000000001",
            )  # fmt: skip
            assert await file.outbox.give_up(rows[0].ref, letter, file.fences[0])
        store = service.runtime.store
        await until(lambda: not list((tmp_path / "spool" / "shop").glob("*.db")))

        assert ["unroutable"] == [one.reason for one in await store.dead_letters.search(DeadLetterFilter())]


async def deferred(file: SpoolFile) -> list[OutboxRow]:
    sql = "update spoolproof_outbox set state = 0, available_at = null"
    assert isinstance(file, SpoolStore)
    await file.database.write(lambda connection: connection.execute(sql).rowcount)
    return list((await file.outbox.fetch({0: 0}, (), 10)).rows)


async def test_at_its_limit_the_spool_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Full is an error with its numbers and its remedy; health and log have spoken before."""
    async with shop(tmp_path, spool_rows_max=10) as service:
        with locked(tmp_path):
            for n in range(9):
                await publish(service, n)
            await until(lambda: any("spool.filling" in text for text in caplog.messages))
            issues = [issue.text for issue in issues_of(service.runtime.monitor.snapshot())]
            await publish(service, 9)
            with pytest.raises(SpoolFull, match=r"10 of at most 10; .*SPOOLPROOF_SPOOL_ROWS_MAX"):
                await publish(service, 10)
            await until(lambda: not service.runtime.part(SpoolPart).report().keeps_publishes)

    assert any("90% of its limit" in text for text in issues), issues
    assert any("spool.full" in text for text in caplog.messages)


async def test_a_full_disk_refuses_and_loses_nothing(tmp_path: Path) -> None:
    """A real file system of 8 MiB without a reserve: SQLite itself says that it is full. Every publish that was not
    refused is delivered once the disk has room for the deletes again, and the store is not asked twice meanwhile."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("mounting a small file system needs root")
    (disk / "ballast").write_bytes(b"x" * 6_000_000)
    arrived: list[tuple[str, int]] = []
    accepted: list[int] = []
    refused: list[SpoolFull] = []

    async def put(service: Service, n: int) -> None:
        name = f"k-{n}"
        try:
            payload = {"n": n, "key": "k", "id": name, "load": "x" * 5000}
            await service.publish(payload, type="order", key=f"k{n}", id=name)
            accepted.append(n)
        except SpoolFull as error:
            refused.append(error)

    try:
        async with shop(tmp_path, arrived, spool=str(disk)) as service:
            spools = service.runtime.part(SpoolPart)._spools
            assert isinstance(spools, SqliteSpools)
            spools.free_bytes_min = 0
            with locked(tmp_path):
                for start in range(0, 400, 40):
                    await asyncio.gather(*(put(service, n) for n in range(start, start + 40)))
            await until(lambda: bool(arrived))
            (disk / "ballast").unlink()
            await until(lambda: set(accepted) <= {n for _, n in arrived})
            await until(lambda: not list((disk / "shop").glob("*.db")))
    finally:
        subprocess.run(["umount", disk], check=True)

    assert len(accepted) > 20
    assert len(refused) > 20


async def test_a_service_starts_without_its_store_and_joins_it_later(tmp_path: Path) -> None:
    """Whoever comes up while the database is down has something to say; what needs the database starts with it."""
    arrived: list[tuple[str, int]] = []
    async with shop(tmp_path):
        pass
    hidden = (tmp_path / "store.db").rename(tmp_path / "elsewhere.db")
    (tmp_path / "store.db").write_bytes(b"no database " * 1000)
    async with shop(tmp_path, arrived) as service:
        places = [await publish(service, n) for n in range(3)]
        with pytest.raises(StoreUnavailable):
            async with service.transaction() as tx:
                await tx.publish({"n": 99}, type="order")
        assert [] == arrived
        hidden.rename(tmp_path / "store.db")
        await until(lambda: len(arrived) == 3)
        await until(lambda: not list((tmp_path / "spool" / "shop").glob("*.db")))
        places.append(await publish(service, 3))
        await until(lambda: len(arrived) == 4)

    assert ["spooled"] * 3 + ["stored"] == places
    assert [("k", n) for n in range(4)] == arrived
