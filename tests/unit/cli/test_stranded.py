"""What the command line says of a queue that nobody reads."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from spoolproof import Service
from spoolproof.cli.checks import store
from spoolproof.cli.groups.dlq import replay
from spoolproof.consumer.queues import kind_of
from spoolproof.ports.finding import Verdict
from spoolproof.settings import Settings
from spoolproof.testing.conformance._messages import make_dead_letter


async def test_doctor_fails_for_a_queue_that_no_handler_reads(tmp_path: Path) -> None:
    """The end of the story that begins with a renamed function: found by whoever looks, with its name and its count."""
    settings = Settings(store=f"sqlite:///{tmp_path}/store.db", broker=f"embedded:///{tmp_path}/broker.db")
    before, after = Service("shop", settings=settings), Service("shop", settings=settings)

    @before.on("order.placed")
    async def book(order: dict) -> None:  # type: ignore[type-arg]
        raise AssertionError("nothing is published here")

    @after.on("order.placed")
    async def enter(order: dict) -> None:  # type: ignore[type-arg]
        raise AssertionError("nothing is published here")

    for service in (before, after):
        await service.start()
        async with asyncio.timeout(20):
            while "shop." not in str(await service.runtime.store.state.all(kind_of("shop"))):
                await asyncio.sleep(0.05)
            while service is after and not _is_told(await service.runtime.store.state.all(kind_of("shop"))):
                await asyncio.sleep(0.05)
        await service.drain(1)
        await service.stop()
    findings = await store(settings)

    (found,) = [finding for finding in findings if finding.check == "queue"]
    assert Verdict.FAIL is found.verdict
    assert "queue shop.book: no handler of shop reads it any more; 0 messages wait in it" == found.found


def _is_told(rows: object) -> bool:
    return "stranded_since" in str(rows)


@pytest.mark.parametrize("is_stranded", [False, True])
async def test_doctor_passes_when_every_queue_is_read(tmp_path: Path, is_stranded: bool) -> None:
    """A failure that is always there is read by nobody."""
    settings = Settings(store=f"sqlite:///{tmp_path}/store.db", broker=f"embedded:///{tmp_path}/broker.db")
    service = Service("shop", settings=settings)
    await service.start(only=())
    value = b'{"stranded_since":"2026-01-01T00:00:00Z","messages":7}' if is_stranded else b"{}"
    await service.runtime.store.state.put(kind_of("shop"), "shop.book", value)
    await service.stop()

    verdicts = {one.check: one.verdict for one in await store(settings) if one.check.startswith("queue")}

    assert ({"queue": Verdict.FAIL} if is_stranded else {"queues": Verdict.PASS}) == verdicts


def test_a_replay_into_a_queue_that_nobody_reads_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Alone, `replayed` would end the search for a message that now waits where nobody looks."""
    url = f"sqlite:///{tmp_path}/store.db"
    letter = make_dead_letter(consumer="shop.book", destination="queue:shop.book")

    async def prepare() -> None:
        service = Service("shop", settings=Settings(store=url, broker="memory://"))
        await service.start(only=())
        kept = service.runtime.store
        await kept.dead_letters.add(letter)
        value = b'{"stranded_since":"2026-01-01T00:00:00Z","messages":7}'
        await kept.state.put(kind_of("shop"), "shop.book", value)
        await service.stop()

    asyncio.run(prepare())
    monkeypatch.setenv("SPOOLPROOF_STORE", url)

    replay(ids=[letter.id], reason="back", actor="me")

    assert (
        f"replayed {letter.id}\n",
        "warning: queue shop.book: no handler of shop reads it any more; 7 messages wait in it, and so will this one\n",
    ) == capsys.readouterr()
